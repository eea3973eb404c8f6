//! A client of the tutorial's HTTP contract, as far as the load needs it: Hansard keeps it, and whatever else is
//! to be measured beside it has to.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::load::Client;

/// A request with all that is in it.
pub type Whole = Request<Full<Bytes>>;

/// Asks a command not to wait for the projection (RFC 7240).
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Where a server is.
#[derive(Debug, Clone)]
pub struct Address(String);

/// Somebody with a token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's id.
    pub id: String,
    token: String,
}

/// A connection, which takes one request at a time. Leaner than a pool of them: the generator must not be what is
/// measured.
#[derive(Debug)]
pub struct Connection {
    address: Address,
    requests: SendRequest<Full<Bytes>>,
}

/// A client that sends the same request again and again.
#[derive(Debug)]
pub struct Repeating {
    connection: Connection,
    request: Whole,
}

impl Address {
    /// `HOST:PORT`.
    pub fn new(host_and_port: &str) -> Self {
        Self(host_and_port.to_owned())
    }

    /// Of the server with this URL, `http://HOST:PORT`.
    ///
    /// # Errors
    /// The URL is another one.
    pub fn of_url(url: &str) -> anyhow::Result<Self> {
        let host_and_port = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|rest| !rest.contains('/') && rest.contains(':'));
        let host_and_port = host_and_port.with_context(|| {
            format!("{url} is no URL of a server such as http://127.0.0.1:3000")
        })?;
        Ok(Self::new(host_and_port))
    }

    /// `HOST:PORT`.
    pub fn host_and_port(&self) -> &str {
        &self.0
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.0).await;
        let stream = stream.with_context(|| format!("{} can't be reached", self.0))?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        // What ends it is told to whoever sends the next request.
        tokio::spawn(connection);
        Ok(Connection {
            address: self.clone(),
            requests,
        })
    }

    /// A request of `caller`, if any, with a body, if any.
    ///
    /// # Errors
    /// The path is none.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        caller: Option<&Caller>,
        body: Option<&Value>,
    ) -> anyhow::Result<Whole> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.0);
        if let Some(caller) = caller {
            request = request.header(AUTHORIZATION, format!("Bearer {}", caller.token));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        Ok(request.body(Full::new(body))?)
    }

    /// The request that posts a message.
    ///
    /// # Errors
    /// None that can happen with a room's id.
    pub fn post(&self, room: &str, author: &Caller, text: &str) -> anyhow::Result<Whole> {
        self.request(
            Method::POST,
            &format!("/room/{room}/message"),
            Some(author),
            Some(&json!({ "messageText": text })),
        )
    }
}

impl Caller {
    /// Who it is, to the server.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Connection {
    /// Sends a request and waits for the whole answer, which must be a success.
    ///
    /// # Errors
    /// It is none, or the connection is over.
    pub async fn send(&mut self, request: Whole) -> anyhow::Result<Response<Bytes>> {
        self.requests.ready().await?;
        let answer = self.requests.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        ensure!(
            head.status.is_success(),
            "a request was answered {}: {:.200}",
            head.status,
            String::from_utf8_lossy(&body)
        );
        Ok(Response::from_parts(head, body))
    }

    /// Makes a user who is logged in.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn new_caller(&mut self) -> anyhow::Result<Caller> {
        let user = json!({"firstName": "Some", "lastName": "Body", "type": "consumer"});
        let answer = self.ask("/users", None, Some(&user)).await?;
        let id = text(&answer, "/user/_id")?;
        let answer = self.ask(&format!("/login/{id}"), None, None).await?;
        let token = text(&answer, "/authorization")?;
        Ok(Caller { id, token })
    }

    /// Makes a room of these two; gives its id.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn new_room(&mut self, caller: &Caller, other: &Caller) -> anyhow::Result<String> {
        let room = json!({"userIds": [other.id], "type": "consumer-to-consumer"});
        let answer = self
            .ask("/room/initiate", Some(caller), Some(&room))
            .await?;
        text(&answer, "/chatRoom/chatRoomId")
    }

    async fn ask(
        &mut self,
        path: &str,
        caller: Option<&Caller>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let request = self.address.request(Method::POST, path, caller, body)?;
        let answer = self.send(request).await.context(path.to_owned())?;
        Ok(serde_json::from_slice(answer.body())?)
    }
}

fn text(answer: &Value, pointer: &str) -> anyhow::Result<String> {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    let found = found.with_context(|| format!("an answer has no {pointer}: {answer}"))?;
    Ok(found.to_owned())
}

impl Repeating {
    /// With a connection of its own.
    ///
    /// # Errors
    /// The server can't be reached.
    pub async fn connect(to: &Address, request: Whole) -> anyhow::Result<Self> {
        let connection = to.connect().await?;
        Ok(Self {
            connection,
            request,
        })
    }
}

impl Client for Repeating {
    async fn request(&mut self) -> anyhow::Result<()> {
        self.connection.send(self.request.clone()).await.map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_url() {
        for url in ["http://127.0.0.1:3000", "http://127.0.0.1:3000/"] {
            assert_eq!(Address::of_url(url).unwrap().0, "127.0.0.1:3000");
        }
        for url in [
            "127.0.0.1:3000",
            "https://127.0.0.1:3000",
            "http://a:1/b",
            "http://a",
        ] {
            assert!(Address::of_url(url).is_err(), "{url}");
        }
    }
}
