//! What people write, as search reads it: `read_models::Words`.

use read_models::Words;

use crate::Outcome;

pub fn run(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    let words = Words::of(text);
    assert!(words.are_all_in(&words));
    for word in words.iter() {
        assert!(!word.is_empty());
        // Whoever looks for it looks for it, and perhaps for more: the text's own parts may have been cut.
        assert!(Words::of(word).iter().any(|it| it == word), "{word:?}");
    }
    Outcome::Accepted
}
