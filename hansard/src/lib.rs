//! The one binary: every role in one process, and the operator's commands.
