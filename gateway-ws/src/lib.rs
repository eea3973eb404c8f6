//! Pushes what happens in a room to the WebSockets subscribed to it.
