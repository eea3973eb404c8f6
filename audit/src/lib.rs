//! Replays the log for audits: filters, formats, and the HTTP stream.
