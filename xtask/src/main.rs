//! What a developer runs: cargo xtask test, bench and the rest.
fn main() {}
