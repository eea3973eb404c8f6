//! The least that pushes messages to many: what one client sends, all are sent. axum's WebSocket and tokio's broadcast
//! channel, with the buffers that suit it, and nothing that Hansard or socket.io do besides. It listens on PORT of
//! the loopback address; a client at `/listen` is sent what clients at `/` send.

use std::net::Ipv4Addr;

use anyhow::Context;
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// More messages than are under way at any time.
const WAITING: usize = 4_096;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port = std::env::var("PORT").context("PORT is not set")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    let (said, _) = broadcast::channel(WAITING);
    let listening = said.clone();
    let listen = move |upgrade: WebSocketUpgrade| {
        let heard = listening.subscribe();
        async move { with_buffers(upgrade).on_upgrade(|socket| tell(socket, heard)) }
    };
    let say = move |upgrade: WebSocketUpgrade| {
        let said = said.clone();
        async move { with_buffers(upgrade).on_upgrade(|socket| hear(socket, said)) }
    };
    let routes = Router::new()
        .route("/ready", any(async || "ready"))
        .route("/listen", any(listen))
        .route("/", any(say));
    axum::serve(listener, routes).await?;
    Ok(())
}

fn with_buffers(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(4 * 1024)
        .write_buffer_size(16 * 1024)
}

async fn hear(mut socket: WebSocket, said: broadcast::Sender<Utf8Bytes>) {
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        // Nobody may be listening.
        let _ = said.send(text);
    }
}

/// Writes what waits, and flushes once when nothing does.
async fn tell(mut socket: WebSocket, mut heard: broadcast::Receiver<Utf8Bytes>) {
    loop {
        let text = match heard.try_recv() {
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
        if socket.feed(Message::Text(text)).await.is_err() {
            return;
        }
    }
}
