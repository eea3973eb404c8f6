//! The service alone.
fn main() {}
