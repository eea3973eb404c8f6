//! The least that pushes messages to rooms of many: axum's WebSocket and tokio's broadcast channel, with the buffers
//! that suit it, and nothing that Hansard or socket.io do besides. It listens on PORT of the loopback address. A
//! client that sends `listen ROOM` is answered `listening` and then sent each TEXT that others send as
//! `say ROOM TEXT`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// More messages than are under way in a room at any time.
const WAITING: usize = 512;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port = std::env::var("PORT").context("PORT is not set")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    let rooms = Rooms::default();
    let connect = move |upgrade: WebSocketUpgrade| {
        let rooms = rooms.clone();
        let upgrade = upgrade
            .read_buffer_size(4 * 1024)
            .write_buffer_size(16 * 1024);
        async move { upgrade.on_upgrade(|socket| serve(socket, rooms)) }
    };
    let routes = Router::new()
        .route("/ready", any(async || "ready"))
        .route("/", any(connect));
    axum::serve(listener, routes).await?;
    Ok(())
}

#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>>);

impl Rooms {
    fn of(&self, name: &str) -> broadcast::Sender<Utf8Bytes> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(name) {
            return room.clone();
        }
        let (room, _) = broadcast::channel(WAITING);
        rooms.insert(name.to_owned(), room.clone());
        room
    }
}

async fn serve(mut socket: WebSocket, rooms: Rooms) {
    while let Some(Ok(Message::Text(frame))) = socket.next().await {
        match frame.split_once(' ') {
            Some(("listen", room)) => return tell(socket, rooms.of(room).subscribe()).await,
            Some(("say", said)) => {
                let Some((room, text)) = said.split_once(' ') else {
                    return;
                };
                // Nobody may be listening.
                let _ = rooms.of(room).send(text.into());
            }
            _ => return,
        }
    }
}

/// Writes what waits, and flushes once when nothing does.
async fn tell(mut socket: WebSocket, mut heard: broadcast::Receiver<Utf8Bytes>) {
    let mut text = Utf8Bytes::from_static("listening");
    loop {
        if socket.feed(Message::Text(text)).await.is_err() {
            return;
        }
        text = match heard.try_recv() {
            Ok(text) => text,
            Err(TryRecvError::Empty) => {
                if socket.flush().await.is_err() {
                    return;
                }
                match heard.recv().await {
                    Ok(text) => text,
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
            Err(_) => return,
        };
    }
}
