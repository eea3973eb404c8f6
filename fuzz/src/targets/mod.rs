//! The targets.

mod body;
mod configuration;
mod event;
mod export;
mod frame;
mod identifier;
mod key_file;
mod proof;
mod query;
mod signal;
mod socketio;
mod stored_key;
mod token;
mod url;
mod words;

use crate::Target;

/// All there are, in alphabetical order.
pub const TARGETS: &[Target] = &[
    Target {
        name: "body",
        run: body::run,
    },
    Target {
        name: "configuration",
        run: configuration::run,
    },
    Target {
        name: "event",
        run: event::run,
    },
    Target {
        name: "export",
        run: export::run,
    },
    Target {
        name: "frame",
        run: frame::run,
    },
    Target {
        name: "identifier",
        run: identifier::run,
    },
    Target {
        name: "key_file",
        run: key_file::run,
    },
    Target {
        name: "proof",
        run: proof::run,
    },
    Target {
        name: "query",
        run: query::run,
    },
    Target {
        name: "signal",
        run: signal::run,
    },
    Target {
        name: "socketio",
        run: socketio::run,
    },
    Target {
        name: "stored_key",
        run: stored_key::run,
    },
    Target {
        name: "token",
        run: token::run,
    },
    Target {
        name: "url",
        run: url::run,
    },
    Target {
        name: "words",
        run: words::run,
    },
];
