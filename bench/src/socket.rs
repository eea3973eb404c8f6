//! A client's WebSocket: to Hansard's `/ws`, or to socket.io over its WebSocket transport. Both with the
//! same code beneath, so that the generator costs the same.

use anyhow::{Context, bail, ensure};
use events::RoomId;
use futures::{SinkExt, StreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::server::System;

/// The library's default is zero-filled for each read, which would cost the generator too much.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    system: System,
}

/// How many files a process may have open here.
///
/// # Errors
/// The limit can't be read.
pub fn most_files() -> anyhow::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(most)
}

/// Lets this process, and what it starts, have as many sockets as the system allows.
///
/// # Errors
/// The limit can't be read or raised.
pub fn allow_many() -> anyhow::Result<()> {
    let most = most_files()?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
        .context("the limit of open files can't be raised")
}

impl Socket {
    /// An authenticated connection to Hansard.
    ///
    /// # Errors
    /// It is refused.
    pub async fn to_hansard(address: &str, token: &str) -> anyhow::Result<Self> {
        let mut socket = Self::open(System::Hansard, address, "/ws").await?;
        socket
            .send(json!({"type": "auth", "token": token}).to_string())
            .await?;
        socket.expect(r#"{"type":"authenticated""#).await?;
        Ok(socket)
    }

    /// A connection to socket.io: <https://socket.io/docs/v4/engine-io-protocol/> and
    /// <https://socket.io/docs/v4/socket-io-protocol/>.
    ///
    /// # Errors
    /// It is refused.
    pub async fn to_socket_io(address: &str) -> anyhow::Result<Self> {
        let path = "/socket.io/?EIO=4&transport=websocket";
        let mut socket = Self::open(System::SocketIo, address, path).await?;
        socket.expect("0").await?;
        socket.send("40".to_owned()).await?;
        socket.expect("40").await?;
        Ok(socket)
    }

    /// A connection to a bare loop.
    ///
    /// # Errors
    /// It is refused.
    pub async fn to_broadcast(address: &str) -> anyhow::Result<Self> {
        Self::open(System::Broadcast, address, "/").await
    }

    async fn open(system: System, address: &str, path: &str) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let url = format!("ws://{address}{path}");
        let (stream, _) = client_async_with_config(url, connection, Some(config)).await?;
        Ok(Self { stream, system })
    }

    /// Subscribes to all these rooms at once, and waits until it is.
    ///
    /// # Errors
    /// It is refused.
    pub async fn subscribe(&mut self, rooms: &[RoomId]) -> anyhow::Result<()> {
        for room in rooms {
            let frame = match self.system {
                System::Hansard => json!({"type": "subscribe", "room": room}).to_string(),
                System::SocketIo => format!("42{}", json!(["subscribe", room])),
                System::Broadcast => format!("listen {room}"),
            };
            self.stream.feed(Message::text(frame)).await?;
        }
        self.stream.flush().await?;
        for _ in rooms {
            self.expect_subscribed().await?;
        }
        Ok(())
    }

    /// Has what is said in this room pushed: by Hansard with a personal subscription, whatever else is in it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn subscribe_to(&mut self, room: RoomId) -> anyhow::Result<()> {
        match self.system {
            System::Hansard => self.subscribe_to_own().await,
            System::SocketIo | System::Broadcast => self.subscribe(&[room]).await,
        }
    }

    /// Makes Hansard's personal subscription.
    ///
    /// # Errors
    /// It is refused.
    pub async fn subscribe_to_own(&mut self) -> anyhow::Result<()> {
        self.send(json!({"type": "subscribe"}).to_string()).await?;
        self.expect_subscribed().await
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send(&mut self, frame: String) -> anyhow::Result<()> {
        Ok(self.stream.send(Message::text(frame)).await?)
    }

    /// Sends a frame, though perhaps not before [`flush`](Self::flush).
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn feed(&mut self, frame: &str) -> anyhow::Result<()> {
        Ok(self.stream.feed(Message::text(frame)).await?)
    }

    /// Sends what has not been sent yet.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.flush().await?)
    }

    /// The connection beneath, to read what comes as bytes.
    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// The next message that was pushed.
    ///
    /// # Errors
    /// The connection is closed, or something else came.
    pub async fn pushed(&mut self) -> anyhow::Result<Utf8Bytes> {
        self.expect(match self.system {
            System::Hansard => r#"{"type":"new message""#,
            System::SocketIo => r#"42["new message""#,
            System::Broadcast => "",
        })
        .await
    }

    async fn expect_subscribed(&mut self) -> anyhow::Result<()> {
        let beginning = match self.system {
            System::Hansard => r#"{"type":"subscribed""#,
            System::SocketIo => r#"42["subscribed""#,
            System::Broadcast => "listening",
        };
        self.expect(beginning).await.map(drop)
    }

    async fn expect(&mut self, beginning: &str) -> anyhow::Result<Utf8Bytes> {
        loop {
            match self
                .stream
                .next()
                .await
                .context("the connection is over")??
            {
                // Engine.IO's own ping and pong.
                Message::Text(text) if self.system == System::SocketIo && text.as_str() == "2" => {
                    self.send("3".to_owned()).await?;
                }
                Message::Text(text) => {
                    ensure!(
                        text.as_str().starts_with(beginning),
                        "instead of {beginning} came {:.200}",
                        text.as_str()
                    );
                    return Ok(text);
                }
                Message::Close(frame) => bail!("the connection was closed: {frame:?}"),
                _ => {}
            }
        }
    }
}
