//! Follows the log and writes the read models.
