//! The notary: keeps the Merkle tree over the log, signs its heads, and verifies the log against them.
//!
//! It runs in the projector's process and follows the log by itself (`keeper.rs`), so that nothing that is
//! written waits for it. What it keeps is stored beside the read models; every signed tree head goes into a
//! file as well, and to a webhook if there is one. Before it goes on with a tree it makes sure that the log
//! is still the one that was hashed (`examine.rs`). Where it is not, it says so and stops: what was signed is
//! never made to fit.
//!
//! Several notaries may run. Each computes the same from the same log, and the stored size moves from what
//! they think it is only, so that one of them is ahead and the others stand by; nothing is lost or wrong
//! when two are at it for a moment. That is why there is no lease.

mod examine;
mod heads_file;
mod keeper;
mod prove;
mod report;
mod status;
mod tampering;
mod verify;
mod webhook;

pub use heads_file::{HeadsFile, set_aside};
pub use keeper::{Options, keep};
pub use prove::{ProveError, Proven};
pub use report::{Difference, How, LogReport};
pub use status::Status;
pub use tampering::Tampering;
pub use verify::{Evidence, VerifyLogError, verify_log};
pub use webhook::Webhook;
