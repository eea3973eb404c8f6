//! The API's JSON shapes and validation texts, shared by every service that speaks it.
