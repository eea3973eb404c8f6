//! What gateways tell each other over the broker.

use gateway_ws::testing::read_signal;

use crate::Outcome;

pub fn run(data: &[u8]) -> Outcome {
    // Signals that can't be read are passed over: they may be of a newer version.
    let Some(written) = read_signal(data) else {
        return Outcome::Refused;
    };
    assert_eq!(read_signal(&written).as_deref(), Some(written.as_slice()));
    Outcome::Accepted
}
