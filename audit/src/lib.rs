//! Replays the log for audits: which events, in which format, to a file, a pipe or an HTTP client; and hands
//! out the proofs that it is what it was.
//!
//! Events are read from the log itself and never from the read models, one at a time, so that a replay of
//! any length needs the same little memory; a transcript needs what it takes to tell of one room. Events that this version of Hansard can't decode are part of
//! the record: they are replayed with the reason and their bytes.

mod document;
mod export;
mod filter;
mod format;
mod http;
mod output;
mod pace;
mod people;
mod proofs;
mod reading;
mod replay;
mod selection;
mod transcript;

pub use document::Told;
pub use export::{
    ExportError, ExportReport, ExportRequest, Exported, Exporter, Sources, UnreadableExport,
    export, export_to, verify_export,
};
pub use filter::{Bound, EventType, InvalidBound, InvalidEventType, InvalidRange, ReplayFilter};
pub use format::Format;
pub use http::{Options, RecordHandle, routes};
pub use pace::{InvalidSpeed, Speed};
pub use reading::{operator, record_reading};
pub use replay::{ReplayArgs, Summary, replay};
pub use selection::{Selected, Selection, Step};
