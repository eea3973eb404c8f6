//! `GET /ws`: plain WebSockets, with JSON text frames, as a transport.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, Stream, StreamExt};
use platform::error::ApiError;
use tokio_tungstenite::tungstenite;
use tungstenite::error::ProtocolError;

use crate::protocol::{ClientFrame, ErrorCode, InvalidFrame, close};
use crate::transport::{Gone, Incoming, Kind, Outgoing, Transport};
use crate::{Shared, connection, origin};

/// The size of a connection's read buffer in bytes. Each connection has one, used or not, and the library
/// fills it with zeros before each read, so its default of 128 KiB is slow as well as large. What clients
/// send is small: a token is the longest of it. A longer frame is read in several steps.
const READ_BUFFER_BYTES: usize = 1024;

/// The size in bytes that a connection's write buffer reaches before it is written without being flushed.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// Open a WebSocket.
///
/// JSON text frames. Send `{"type":"subscribe","after":POSITION}` to get what happens in all your rooms
/// pushed, or `{"type":"subscribe","room":ROOM,"after":POSITION}` for one room; with `after`, everything
/// after that position comes first. `/asyncapi.json` describes every frame.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "push",
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "Not a WebSocket upgrade", body = contract::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The web page's origin is not allowed", body = contract::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn connect(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !origin::is_allowed(&shared.allowed_origins, &headers) {
        return origin::refusal().into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let message = format!("this path takes WebSocket connections: {rejection}");
            return ApiError::bad_request(message).into_response();
        }
    };
    let claims = headers.contains_key(header::AUTHORIZATION).then(|| {
        let claims = shared.auth.bearer(&headers);
        claims.map_err(|error| error.message().to_owned())
    });
    let open = shared.sockets.token();
    let message_bytes = shared.limits.message_bytes;
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(message_bytes)
        .max_frame_size(message_bytes)
        .on_upgrade(move |socket| async move {
            let (sink, stream) = socket.split();
            let transport = Transport {
                sink: FramesOut(sink),
                stream: FramesIn {
                    stream,
                    message_bytes,
                },
                kind: Kind::WebSocket,
                after: None,
            };
            connection::run(shared, transport, claims).await;
            drop(open);
        })
}

struct FramesOut(SplitSink<WebSocket, Message>);

impl Sink<Outgoing> for FramesOut {
    type Error = Gone;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_ready_unpin(context).map_err(|_| Gone)
    }

    fn start_send(mut self: Pin<&mut Self>, outgoing: Outgoing) -> Result<(), Gone> {
        let message = match outgoing {
            Outgoing::Frame { text, .. } => Message::Text(text),
            Outgoing::Ping => Message::Ping(bytes::Bytes::new()),
            Outgoing::Close { code, reason, .. } => Message::Close(Some(CloseFrame {
                code,
                reason: reason.into(),
            })),
        };
        self.0.start_send_unpin(message).map_err(|_| Gone)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_flush_unpin(context).map_err(|_| Gone)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_close_unpin(context).map_err(|_| Gone)
    }
}

struct FramesIn {
    stream: SplitStream<WebSocket>,
    message_bytes: usize,
}

impl Stream for FramesIn {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.stream.poll_next_unpin(context).map(|message| {
            let incoming = match message? {
                Ok(Message::Text(text)) => Incoming::Frame(ClientFrame::read(text.as_str())),
                Ok(Message::Binary(_)) => Incoming::Frame(Err(InvalidFrame {
                    code: ErrorCode::UnsupportedFrame,
                    message: "binary frames are not supported; send JSON in text frames".to_owned(),
                })),
                // The library answers pings.
                Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Alive,
                Ok(Message::Close(_)) => Incoming::Closing,
                Err(error) => return broken(&error.into_inner(), self.message_bytes),
            };
            Some(incoming)
        })
    }
}

/// What is wrong with the client's bytes; `None` when the connection is just gone.
fn broken(error: &axum::BoxError, message_bytes: usize) -> Option<Incoming> {
    let (code, reason, error) = match error.downcast_ref::<tungstenite::Error>()? {
        tungstenite::Error::Capacity(_) => (
            close::TOO_LARGE,
            format!("a message may have at most {message_bytes} bytes"),
            Some(ErrorCode::TooLarge),
        ),
        tungstenite::Error::Utf8(_) => (
            close::PROTOCOL_ERROR,
            "a text frame is not UTF-8".to_owned(),
            None,
        ),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        tungstenite::Error::Protocol(_) => (
            close::PROTOCOL_ERROR,
            "a frame is not as RFC 6455 wants it".to_owned(),
            None,
        ),
        _ => return None,
    };
    Some(Incoming::Broken {
        code,
        reason,
        error,
    })
}
