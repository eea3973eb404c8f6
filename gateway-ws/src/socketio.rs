//! Socket.IO at `/socket.io/`, for clients of versions 2 to 4: the same connections as at `/ws`, over
//! another transport.
//!
//! Engine.IO (handshakes, long polling, upgrades, heartbeats) and the format of Socket.IO's packets are
//! the libraries'. Here is what is left: who may connect, what a client's events mean
//! ([`client_events`]), and how frames become events ([`sink`]).

mod client_events;
mod handshake;
mod sink;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Extension;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use engineioxide::config::EngineIoConfig;
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::{EngineIoService, NotFoundService};
use engineioxide::{DisconnectReason, ProtocolVersion, Str};
use futures::Stream;
use platform::http::WithCredentials;
use platform::stall::StallLimit;
use serde_json::json;
use socketioxide_core::Value;
use socketioxide_core::packet::{ConnectPacket, Packet, PacketData};
use socketioxide_core::parser::{Parse, ParseConfig, ParseError, ParserState};
use socketioxide_parser_common::CommonParser;
use tokio::sync::mpsc;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

use crate::protocol::{ErrorCode, InvalidFrame, close};
use crate::socketio::handshake::Handshake;
use crate::socketio::sink::EventSink;
use crate::transport::{Incoming, Kind, Transport};
use crate::{Shared, connection, origin};

/// The one namespace that is served.
const NAMESPACE: &str = "/";

/// Packets of the libraries' own that find room beside a full window of frames: a heartbeat that does not
/// ends the session.
const SPARE_PACKETS: usize = 16;

/// For how many packets that are not dealt with yet a session has room beyond the burst that is allowed.
const SPARE_INCOMING: usize = 64;

/// An Engine.IO session.
type Socket = engineioxide::Socket<Session>;

/// The route `/socket.io/`.
pub fn routes(shared: Arc<Shared>) -> OpenApiRouter {
    let limits = &shared.limits;
    let config = EngineIoConfig {
        req_path: "/socket.io".into(),
        ping_interval: limits.ping_interval,
        ping_timeout: limits.ping_interval,
        max_buffer_size: sink::WINDOW_FRAMES + SPARE_PACKETS,
        // Of both what a client posts and what a poll is answered: as much as may wait.
        max_payload: sink::WINDOW_BYTES as u64,
        ws_max_message_size: limits.message_bytes,
        ws_max_frame_size: limits.message_bytes,
        ..EngineIoConfig::default()
    };
    let server = Arc::new(Server {
        shared: Arc::clone(&shared),
        parse: parse_config(limits.message_bytes),
    });
    let service = EngineIoService::with_config(server, config);
    OpenApiRouter::new()
        .route("/socket.io/", any(serve))
        .with_state(Service { shared, service })
}

/// What the library is to take of binary attachments.
fn parse_config(message_bytes: usize) -> ParseConfig {
    ParseConfig {
        max_incoming_binary_buf_size: message_bytes,
        max_incoming_binaries: 16,
        ..ParseConfig::default()
    }
}

/// What a text packet that comes first asks for: each thing, or why it can't be had.
#[cfg(feature = "testing")]
pub(crate) fn read_packet(packet: &str) -> Vec<Result<(), String>> {
    let config = parse_config(crate::Limits::default().message_bytes);
    match CommonParser.decode_str(&config, &ParserState::default(), packet.to_owned().into()) {
        Err(error) => vec![Err(error.to_string())],
        Ok(Packet {
            inner: PacketData::Event(event, _),
            ..
        }) => {
            let event = event.as_str().map_or("", Str::as_str);
            let read = client_events::read(event).map(|incoming| match incoming {
                Incoming::Frame(Err(invalid)) => Err(invalid.message),
                _ => Ok(()),
            });
            read.collect()
        }
        Ok(_) => vec![Ok(())],
    }
}

#[derive(Clone)]
struct Service {
    shared: Arc<Shared>,
    service: EngineIoService<Server, NotFoundService>,
}

async fn serve(State(Service { shared, service }): State<Service>, request: Request) -> Response {
    if !origin::is_allowed(&shared.allowed_origins, request.headers()) {
        return origin::refusal().into_response();
    }
    // The library ends a session only once what it has begun to write is written.
    if request.headers().contains_key(header::UPGRADE)
        && let Some(ConnectInfo(stall)) = request.extensions().get::<ConnectInfo<StallLimit>>()
    {
        stall.set(shared.limits.ping_interval * 2);
    }
    let Ok(response) = service.oneshot(request).await;
    // Version 2 of the clients sends credentials with its requests.
    (Extension(WithCredentials), response).into_response()
}

/// What all sessions share.
struct Server {
    shared: Arc<Shared>,
    parse: ParseConfig,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").finish_non_exhaustive()
    }
}

/// What the library keeps with a session.
#[derive(Debug, Default)]
struct Session {
    parser: ParserState,
    /// Where what the client sends goes; gone once the client is.
    inbox: Mutex<Option<mpsc::Sender<FromClient>>>,
}

#[derive(Debug)]
enum FromClient {
    /// The client wants to connect to the namespace, with this JSON.
    Connect(Option<Str>),
    /// What it sends then.
    Incoming(Incoming),
}

impl Session {
    fn set_inbox(&self, inbox: Option<mpsc::Sender<FromClient>>) {
        *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) = inbox;
    }

    /// `false`: the client sends faster than it may, or is gone.
    fn take_in(&self, packet: FromClient) -> bool {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inbox) = &*inbox else { return false };
        inbox.try_send(packet).is_ok()
    }
}

impl EngineIoHandler for Server {
    type Data = Session;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket>) {
        let burst = usize::try_from(self.shared.limits.frame_burst).unwrap_or(usize::MAX);
        let (sender, receiver) = mpsc::channel(burst.saturating_add(SPARE_INCOMING));
        socket.data.set_inbox(Some(sender));
        let open = self.shared.sockets.token();
        tokio::spawn(async move {
            run(&self.shared, &socket, Inbox(receiver)).await;
            leave(&self.shared, &socket).await;
            drop(open);
        });
    }

    fn on_disconnect(&self, socket: Arc<Socket>, _: DisconnectReason) {
        socket.data.set_inbox(None);
    }

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<Socket>) {
        let packet = if message.len() > self.shared.limits.message_bytes {
            Err(None)
        } else {
            let parsed = CommonParser.decode_str(&self.parse, &socket.data.parser, message);
            parsed.map_err(Some)
        };
        self.on_packet(packet, &socket);
    }

    fn on_binary(self: &Arc<Self>, data: Bytes, socket: Arc<Socket>) {
        let packet = CommonParser.decode_bin(&self.parse, &socket.data.parser, data);
        self.on_packet(packet.map_err(Some), &socket);
    }
}

impl Server {
    /// Hands a packet to the session's task. An error of `None` stands for a message that is too large.
    fn on_packet(&self, packet: Result<Packet, Option<ParseError>>, socket: &Socket) {
        let session = &socket.data;
        let taken_in = match packet {
            Err(Some(ParseError::NeedsMoreBinaryData)) => true,
            Err(Some(_)) => session.take_in(FromClient::Incoming(Incoming::Broken {
                code: close::PROTOCOL_ERROR,
                reason: "a packet is not as Socket.IO wants it".to_owned(),
                error: None,
            })),
            Err(None) => {
                let limit = self.shared.limits.message_bytes;
                session.take_in(FromClient::Incoming(Incoming::Broken {
                    code: close::TOO_LARGE,
                    reason: format!("a message may have at most {limit} bytes"),
                    error: Some(ErrorCode::TooLarge),
                }))
            }
            Ok(packet) if &*packet.ns != NAMESPACE => {
                if let PacketData::Connect(_) = packet.inner {
                    let refusal = "there is no such namespace; connect to /";
                    emit(socket, Packet::connect_error(packet.ns, refusal));
                }
                true
            }
            Ok(packet) => match packet.inner {
                PacketData::Connect(auth) => {
                    let auth = auth.as_ref().and_then(Value::as_str).cloned();
                    session.take_in(FromClient::Connect(auth))
                }
                PacketData::Disconnect => {
                    session.set_inbox(None);
                    true
                }
                PacketData::Event(event, ack) => {
                    let event = event.as_str().map_or("", Str::as_str);
                    let taken_in = client_events::read(event)
                        .all(|incoming| session.take_in(FromClient::Incoming(incoming)));
                    if let Some(ack) = ack {
                        // Says no more than that the event has arrived: what comes of it is an event.
                        let nothing = Value::Str("[]".into(), None);
                        emit(socket, Packet::ack(NAMESPACE, nothing, ack));
                    }
                    taken_in
                }
                PacketData::BinaryEvent(..) => {
                    session.take_in(FromClient::Incoming(Incoming::Frame(Err(InvalidFrame {
                        code: ErrorCode::UnsupportedFrame,
                        message: "binary arguments are not supported; send JSON".to_owned(),
                    }))))
                }
                // The server asks for none.
                PacketData::EventAck(..)
                | PacketData::BinaryAck(..)
                | PacketData::ConnectError(_) => true,
            },
        };
        if !taken_in {
            socket.close(DisconnectReason::TransportClose);
        }
    }
}

/// Runs a session to its end.
async fn run(shared: &Arc<Shared>, socket: &Arc<Socket>, mut inbox: Inbox) {
    let auth = match socket.protocol {
        // Socket.IO 2: opening the session connects it as well.
        ProtocolVersion::V3 => None,
        ProtocolVersion::V4 => {
            let connect = tokio::time::timeout(shared.limits.auth_timeout, inbox.connect());
            tokio::select! {
                () = shared.shutdown.cancelled() => return,
                connect = connect => match connect {
                    Ok(Some(auth)) => auth,
                    // It has not connected in time, or is gone.
                    _ => return,
                },
            }
        }
    };
    let handshake = match Handshake::check(&shared.auth, &socket.req_parts, auth.as_deref()) {
        Ok(handshake) => handshake,
        Err(reason) => {
            refuse(socket, &reason);
            // The client closes, or its user connects anew.
            let _ = tokio::time::timeout(shared.limits.auth_timeout, socket.closed()).await;
            return;
        }
    };
    let answer = match socket.protocol {
        ProtocolVersion::V3 => None,
        ProtocolVersion::V4 => CommonParser
            .encode_default(&ConnectPacket { sid: socket.id })
            .ok(),
    };
    emit(socket, Packet::connect(NAMESPACE, answer));
    let transport = Transport {
        sink: EventSink::new(Arc::clone(socket)),
        stream: inbox,
        kind: Kind::SocketIo,
        after: handshake.after,
    };
    connection::run(Arc::clone(shared), transport, handshake.claims.map(Ok)).await;
}

/// Tells the client why it can't connect.
fn refuse(socket: &Socket, reason: &str) {
    match socket.protocol {
        ProtocolVersion::V4 => emit(socket, Packet::connect_error(NAMESPACE, reason)),
        // Version 2 of the clients hands on whatever the packet holds: with its own servers, a string.
        ProtocolVersion::V3 => {
            let _ = socket.emit(format!("4{}", json!(reason)));
        }
    }
}

/// Ends the session and waits until what was sent is on its way.
async fn leave(shared: &Shared, socket: &Socket) {
    socket.close(DisconnectReason::TransportClose);
    let _ = tokio::time::timeout(shared.limits.close_timeout, socket.closed()).await;
}

/// Sends a packet. A session that has no room for it is about to end.
fn emit(socket: &Socket, packet: Packet) {
    if let Value::Str(text, _) = CommonParser.encode(packet) {
        let _ = socket.emit(text);
    }
}

/// What a client sends, until it is gone.
struct Inbox(mpsc::Receiver<FromClient>);

impl Inbox {
    /// Waits for the client to connect to the namespace; `None` when it goes.
    async fn connect(&mut self) -> Option<Option<Str>> {
        loop {
            if let FromClient::Connect(auth) = self.0.recv().await? {
                return Some(auth);
            }
        }
    }
}

impl Stream for Inbox {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        loop {
            match std::task::ready!(self.0.poll_recv(context)) {
                // It is connected already.
                Some(FromClient::Connect(_)) => {}
                Some(FromClient::Incoming(incoming)) => return Poll::Ready(Some(incoming)),
                None => return Poll::Ready(None),
            }
        }
    }
}
