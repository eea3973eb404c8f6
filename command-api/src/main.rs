//! The write side as a service of its own.
