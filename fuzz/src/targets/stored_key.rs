//! Keys as they are kept: a row of the bucket, and what is unwrapped of it.

use std::sync::LazyLock;

use events::DataKey;
use keys::testing::{read_kept, written_kept};
use keys::{Kept, MasterKeys, Slot, WrappedKey};
use tokio::runtime::Runtime;

use crate::{Outcome, refused};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
});

/// A master key, and a key that was wrapped with it.
static WRAPPED: LazyLock<(MasterKeys, WrappedKey)> = LazyLock::new(|| {
    let masters = MasterKeys::random();
    let key = DataKey::from_bytes([7; 32]);
    let wrapped = RUNTIME.block_on(masters.wrap(Slot::Check, &key)).unwrap();
    (masters, wrapped)
});

pub fn run(data: &[u8]) -> Outcome {
    let (masters, genuine) = &*WRAPPED;
    let unwrap = |sealed: Vec<u8>| {
        let wrapped = WrappedKey {
            master: genuine.master,
            sealed,
        };
        RUNTIME.block_on(masters.unwrap(Slot::Check, &wrapped))
    };
    refused(&unwrap(data.to_vec()).unwrap_err());
    // The genuine bytes with some of them changed.
    let mut changed = genuine.sealed.clone();
    for (byte, other) in changed.iter_mut().zip(data) {
        *byte ^= other;
    }
    assert_eq!(unwrap(changed.clone()).is_ok(), changed == genuine.sealed);

    let Some(kept) = read_kept(data) else {
        return Outcome::Refused;
    };
    assert_eq!(read_kept(&written_kept(&kept)).as_ref(), Some(&kept));
    if let Kept::Wrapped(wrapped) = kept {
        refused(
            &RUNTIME
                .block_on(masters.unwrap(Slot::Check, &wrapped))
                .unwrap_err(),
        );
    }
    Outcome::Accepted
}
