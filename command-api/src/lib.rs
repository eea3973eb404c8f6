//! The write side over HTTP: POST, PUT, DELETE, decided and appended to the log.
