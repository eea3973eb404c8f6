//! The decoders of what clients and other gateways send, for hostile input.

use platform::error::ApiError;

use crate::changes;
use crate::signals::Envelope;
use crate::socketio;

/// What a text packet of Socket.IO asks of the connection: each thing, or why it can't be had.
pub fn read_socketio(packet: &str) -> Vec<Result<(), String>> {
    socketio::read_packet(packet)
}

/// Reads what another gateway sent, and writes it again; `None` when it is no signal.
pub fn read_signal(bytes: &[u8]) -> Option<Vec<u8>> {
    let signal: Envelope = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&signal).ok()
}

/// Reads the query of `GET /changes`.
///
/// # Errors
/// What is wrong with it.
pub fn read_changes_query(query: &str) -> Result<(), ApiError> {
    changes::Request::read(query).map(drop)
}
