//! Hansard under fire: many clients at work, faults at random, and afterwards a checker that compares what
//! the clients were told with what the log holds.
//!
//! `cargo xtask chaos` builds what this needs and runs it. From top to bottom:
//!
//! - [`run`] is one run: it founds a [`town`], lets its people live ([`workload`], [`client`], [`follower`]),
//!   makes things go wrong ([`faults`]), measures how quickly they recover ([`recovery`]) and gathers the
//!   [`evidence`].
//! - [`overload`] breaks nothing, but asks for far more than can be done.
//! - [`power`] cuts the power of a stack whose disk forgets what was not synced.
//! - [`checker`] says what is wrong with that evidence, and [`shrink`] shows it in the fewest lines.
//!
//! For tests only: what goes wrong in the harness itself panics and says what to do.

pub mod checker;
pub mod client;
pub mod evidence;
pub mod faults;
pub mod follower;
pub mod history;
mod leaks;
mod living;
pub mod overload;
pub mod power;
mod record;
pub mod recovery;
pub mod run;
pub mod shrink;
mod sockets;
mod summary;
pub mod town;
mod verification;
pub mod workload;
