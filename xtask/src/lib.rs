//! What a developer runs, and what the test harness shares with it: finding real servers, starting them,
//! and making sure that nothing that was started outlives whoever started it.
//!
//! Builds in seconds, so it stays free of async runtimes, HTTP clients and database drivers.

pub mod chromium;
pub mod cores;
mod fetch;
pub mod mongod;
pub mod nats;
pub mod node;
pub mod port;
pub mod process;
pub mod schemathesis;
pub mod servers;
