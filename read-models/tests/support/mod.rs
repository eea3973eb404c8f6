//! What the tests of the read models share.

pub mod compare;
pub mod history;
pub mod model;
pub mod record;
