//! What clients send over Socket.IO: a text packet, which may be an event.

use gateway_ws::testing::read_socketio;

use crate::{Outcome, refused};

pub fn run(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    let mut outcome = Outcome::Accepted;
    for read in read_socketio(text) {
        if let Err(reason) = read {
            outcome = refused(&reason);
        }
    }
    outcome
}
