//! A client of the WebSocket at `/ws`.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use crate::wait::within;

/// How long a frame may take that must come.
const FRAME: Duration = Duration::from_secs(20);

/// A connection to `/ws`.
#[derive(Debug)]
pub struct WsClient {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// How the last frame's position named its log.
    pub log: String,
    /// How many bytes of text the server has sent.
    pub bytes: u64,
    /// What the server said when it closed the connection.
    pub reason: String,
}

impl WsClient {
    /// Connects to `url` (`ws://HOST:PORT/ws`), with the token in the `Authorization` header or without.
    ///
    /// # Panics
    /// The connection is refused.
    pub async fn connect(url: &str, token: Option<&str>) -> Self {
        match Self::try_connect(url, token).await {
            Ok(client) => client,
            Err(error) => panic!("no WebSocket at {url}: {error}"),
        }
    }

    /// Connects, or tells why not.
    ///
    /// # Errors
    /// The connection is refused, or takes too long; an HTTP answer is [`Error::Http`].
    pub async fn try_connect(url: &str, token: Option<&str>) -> Result<Self, Box<Error>> {
        let request = request(url, token)?;
        let connected = tokio::time::timeout(FRAME, connect_async(request)).await;
        let (stream, _) =
            connected.unwrap_or_else(|_| Err(Error::Io(std::io::ErrorKind::TimedOut.into())))?;
        Ok(Self::over(stream))
    }

    /// As [`Self::try_connect`], but so many bytes at most (the kernel takes twice that) wait unread on
    /// this side: a client that stops reading is soon felt by the server.
    ///
    /// # Errors
    /// As [`Self::try_connect`].
    pub async fn try_connect_narrowly(
        url: &str,
        token: Option<&str>,
        bytes: u32,
    ) -> Result<Self, Box<Error>> {
        let request = request(url, token)?;
        let address = request.uri().authority().unwrap().as_str();
        let address = address.parse().unwrap();
        let connected = async {
            let socket = TcpSocket::new_v4().map_err(Error::from)?;
            socket.set_recv_buffer_size(bytes).map_err(Error::from)?;
            let stream = socket.connect(address).await.map_err(Error::from)?;
            client_async(request, MaybeTlsStream::Plain(stream)).await
        };
        let (stream, _) = within("connecting to the WebSocket", FRAME, connected).await?;
        Ok(Self::over(stream))
    }

    fn over(stream: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self {
            stream,
            log: String::new(),
            bytes: 0,
            reason: String::new(),
        }
    }

    /// Closes the connection as one should. Frames that come until the server has agreed are ignored.
    ///
    /// # Panics
    /// It stays open.
    pub async fn close(mut self) {
        // Fails when the server was quicker.
        let _ = self.stream.close(None).await;
        let ended = async { while let Some(Ok(_)) = self.stream.next().await {} };
        within("the WebSocket's end", FRAME, ended).await;
    }

    /// Sends a JSON frame.
    ///
    /// # Panics
    /// The connection is closed.
    pub async fn send(&mut self, frame: Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    /// Sends a JSON frame, unless the connection is closed.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn try_send(&mut self, frame: Value) -> Result<(), Box<Error>> {
        self.try_send_raw(Message::text(frame.to_string())).await
    }

    /// Sends any frame, unless the connection is closed.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn try_send_raw(&mut self, message: Message) -> Result<(), Box<Error>> {
        Ok(self.stream.send(message).await?)
    }

    /// Sends any frame.
    ///
    /// # Panics
    /// The connection is closed.
    pub async fn send_raw(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// Subscribes to a room, with what follows the message `after` if one is given; gives the answer.
    ///
    /// # Panics
    /// It is refused.
    pub async fn subscribe(&mut self, room: &str, after: Option<&str>) -> Value {
        let mut frame = json!({"type": "subscribe", "room": room});
        if let Some(after) = after {
            frame["after"] = after.into();
        }
        self.send(frame).await;
        let answer = self.next().await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Unsubscribes from a room.
    ///
    /// # Panics
    /// The next frame is not the answer.
    pub async fn unsubscribe(&mut self, room: &str) {
        self.send(json!({"type": "unsubscribe", "room": room}))
            .await;
        let expected = json!({"type": "unsubscribed", "room": room});
        assert_eq!(self.next().await, expected);
    }

    /// The next JSON frame.
    ///
    /// # Panics
    /// None comes in time, or the connection is closed.
    pub async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(frame) => frame,
            Err(code) => panic!("the WebSocket was closed with code {code:?}"),
        }
    }

    /// The next JSON frame of this type; others before it are skipped.
    ///
    /// # Panics
    /// None comes in time, or the connection is closed.
    pub async fn next_of_type(&mut self, frame_type: &str) -> Value {
        let wanted = async {
            loop {
                let frame = self.next().await;
                if frame["type"] == frame_type {
                    return frame;
                }
            }
        };
        within(&format!("a frame of type {frame_type}"), FRAME, wanted).await
    }

    /// All frames that come before the answer to a ping sent now.
    ///
    /// # Panics
    /// No answer comes in time, or the connection is closed.
    pub async fn frames_until_pong(&mut self) -> Vec<Value> {
        self.send(json!({"type": "ping"})).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] == "pong" {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// The code with which the server closes the connection; `None` without a code. Frames before that
    /// are skipped.
    ///
    /// # Panics
    /// It stays open.
    pub async fn closed(&mut self) -> Option<u16> {
        let closed = async {
            loop {
                if let Err(code) = self.next_or_close().await {
                    return code;
                }
            }
        };
        within("the WebSocket's end", FRAME, closed).await
    }

    /// The next JSON frame, or the code of the connection's end, as [`Self::receive`].
    ///
    /// # Errors
    /// The connection is closed.
    ///
    /// # Panics
    /// None comes in time.
    pub async fn next_or_close(&mut self) -> Result<Value, Option<u16>> {
        within("a frame", FRAME, self.receive()).await
    }

    /// The next JSON frame, whenever it comes. Its position is cut to that of the event, as HTTP answers
    /// have it; how it named its log is kept in `log`.
    ///
    /// # Errors
    /// The connection is closed, with this code if it was closed with one.
    ///
    /// # Panics
    /// The frame is not JSON.
    pub async fn receive(&mut self) -> Result<Value, Option<u16>> {
        let mut frame = self.receive_whole().await?;
        if let Some(cursor) = frame.get("position").and_then(Value::as_str) {
            let Some((position, log)) = cursor.split_once('-') else {
                panic!("a position that names no log: {frame}");
            };
            self.log = log.to_owned();
            frame["position"] = json!(position);
        }
        Ok(frame)
    }

    /// The next JSON frame as it came, whenever it comes.
    ///
    /// # Errors
    /// As [`Self::receive`].
    ///
    /// # Panics
    /// The frame is not JSON.
    pub async fn receive_whole(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.bytes += text.len() as u64;
                    let frame = serde_json::from_str(&text);
                    return Ok(frame.unwrap_or_else(|_| panic!("a frame that is no JSON: {text}")));
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map(|frame| {
                        self.reason = frame.reason.as_str().to_owned();
                        frame.code.into()
                    }));
                }
                // Pings are answered by the library as it reads.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}

fn request(url: &str, token: Option<&str>) -> Result<Request, Box<Error>> {
    let mut request = url.into_client_request()?;
    if let Some(token) = token {
        let value = format!("Bearer {token}").try_into().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    Ok(request)
}
