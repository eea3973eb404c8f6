//! What search takes for a word: the one place that decides it, so that both adapters find the same.
//!
//! A word is a run of letters and digits with the marks that belong to them; everything else separates.
//! Case and diacritics make no difference, nor do forms that are compatible by Unicode (full width, ligatures,
//! superscripts). There are no stems and no stop words. Scripts without spaces (Chinese, Japanese, Thai and
//! others) have no runs to go by: there each character is a word, and so is each pair of neighbours, which
//! makes a search for `東京` one for these two side by side.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, is_combining_mark};
use unicode_segmentation::UnicodeSegmentation;

/// Characters of a word that count: what is longer is no word that anybody types.
const MAX_CHARACTERS: usize = 64;

/// Different words of a text that count: far more than a text of ordinary length has. Without an end one
/// message could make more entries in an index than a database takes.
const MAX_WORDS: usize = 10_000;

/// The different words of a text.
///
/// Each is made of lower-case letters, digits and marks alone: no quotes, spaces or operators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(BTreeSet<String>);

impl Words {
    /// The words of `text`.
    pub fn of(text: &str) -> Self {
        let text = plain(text);
        let mut words = BTreeSet::new();
        for run in text.split(|character| !is_of_word(character)) {
            let mut before = "";
            for part in run.split_word_bounds() {
                // A mark that no letter comes before is a part of its own.
                if !part.contains(char::is_alphanumeric) {
                    continue;
                }
                let mut add = |word: &str| {
                    if words.len() < MAX_WORDS {
                        words.insert(word.chars().take(MAX_CHARACTERS).collect());
                    }
                };
                add(part);
                if !before.is_empty() {
                    add(&format!("{before}{part}"));
                }
                before = part;
            }
        }
        Self(words)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether each of them is among those of `text`.
    pub fn are_all_in(&self, text: &Self) -> bool {
        self.0.is_subset(&text.0)
    }
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        words.0.into_iter().collect()
    }
}

/// The text without the differences that search does not see.
fn plain(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd()
        .filter(|character| !is_ignored(*character))
        // By way of upper case, which `ß` and `ss`, or `ς` and `σ`, have in common.
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfc()
        .collect()
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || (!character.is_ascii() && is_combining_mark(character))
}

/// Diacritics, and what is not seen. Marks that make another letter of a letter stay: vowel signs, viramas
/// and nuktas of Indic scripts, tones of Thai, the voicing of kana.
fn is_ignored(character: char) -> bool {
    match character {
        // Soft hyphen, joiners, variation selectors, enclosing marks.
        '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{2060}' | '\u{feff}' => true,
        '\u{fe00}'..='\u{fe0f}' | '\u{20dd}'..='\u{20e4}' => true,
        _ => matches!(canonical_combining_class(character), 1 | 10..=36 | 200..),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        Words::of(text).into()
    }

    #[test]
    fn a_word_is_a_run_of_letters_and_digits() {
        assert_eq!(
            words("Order, order! It's 3.50 at example.com_2"),
            ["2", "3", "50", "at", "com", "example", "it", "order", "s"]
        );
        assert_eq!(words(" \u{0}\t\"*-'(👍🏽) \u{301}\u{20e3} \u{fffd}"), [""; 0]);
        assert_eq!(words("NEAR(a b) $where"), ["a", "b", "near", "where"]);
        assert_eq!(words("1\u{fe0f}\u{20e3} shy\u{ad}phen"), ["1", "shyphen"]);
    }

    #[test]
    fn case_diacritics_and_compatible_forms_make_no_difference() {
        for same in [
            &["Crème", "creme", "CREME\u{300}", "ｃｒｅｍｅ"][..],
            &["Straße", "STRASSE", "strasse"],
            &["ΟΔΟΣ", "οδος", "οδός"],
            &["İzmir", "izmir", "Izmir"],
            &["ﬁnd", "FIND"],
            &["Ёлка", "елка"],
            &["שָׁלוֹם", "שלום"],
            &["مُحَمَّد", "محمد"],
            &[
                "한국어",
                "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}",
            ],
            &["ｶﾞｷﾞ", "ガギ"],
        ] {
            for other in same {
                assert_eq!(words(other), words(same[0]), "{other}");
                assert_eq!(words(other).len(), 1, "{other}");
            }
        }
        for (one, other) in [("か", "が"), ("दिन", "दान"), ("ไม", "ไม่"), ("o", "ø")]
        {
            assert_ne!(words(one), words(other));
        }
    }

    #[test]
    fn scripts_without_spaces_are_found_by_neighbours() {
        assert_eq!(words("東京都"), ["京", "京都", "東", "東京", "都"]);
        assert_eq!(
            words("iPhone手机 5"),
            ["5", "iphone", "iphone手", "手", "手机", "机"]
        );
        let text = Words::of("私は東京に住んでいます。ภาษาไทยง่าย");
        for (query, found) in [
            ("東京", true),
            ("京東", false),
            ("住んで", true),
            ("ภาษาไทย", true),
            ("ไทยภาษา", false),
        ] {
            assert_eq!(Words::of(query).are_all_in(&text), found, "{query}");
        }
        // Where there are spaces, words are whole.
        assert_eq!(words("हिन्दी में"), ["में", "हिन्दी"]);
        assert_eq!(words("서울에서"), ["서울에서"]);
    }

    #[test]
    fn no_text_makes_words_without_end() {
        assert_eq!(words(&"x".repeat(100_000)), ["x".repeat(MAX_CHARACTERS)]);
        let many: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
        assert_eq!(words(&many.join(" ")).len(), MAX_WORDS);
    }

    proptest! {
        #[test]
        fn words_are_plain_and_stay_as_they_are(text in "\\PC{0,30}|[ -~]{0,30}|\\p{M}{0,4}.{0,20}") {
            for word in words(&text) {
                prop_assert!(!word.is_empty() && word.chars().all(is_of_word), "{word:?}");
                prop_assert!(
                    word.chars().all(|c| !c.is_ascii() || c.is_ascii_lowercase() || c.is_ascii_digit()),
                    "{word:?}"
                );
                prop_assert!(Words::of(&word).iter().any(|again| again == word), "{word:?}");
            }
        }

        #[test]
        fn a_text_has_the_words_of_its_parts(one in "\\PC{0,20}", other in "\\PC{0,20}") {
            let both = Words::of(&format!("{one} {other}"));
            prop_assert!(Words::of(&one).are_all_in(&both));
            prop_assert!(Words::of(&other).are_all_in(&both));
            prop_assert_eq!(both.len(), {
                let mut all = Words::of(&one).0;
                all.append(&mut Words::of(&other).0);
                all.len()
            });
        }
    }
}
