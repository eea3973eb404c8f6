//! An HTTP client with a method for each route of the contract.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::shape::Shapes;

/// The header in which commands say where their event stands, and queries where they must read from.
const POSITION: &str = "hansard-position";

/// What Hansard answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null when it is none.
    pub json: Value,
    /// The body as it came.
    pub text: String,
    /// What was asked, for messages.
    request: String,
}

impl Answer {
    /// The body of an answer with status 200.
    ///
    /// # Panics
    /// It has another status.
    #[must_use = "compare it, or say `let _ =`"]
    pub fn ok(self) -> Value {
        self.expect(200)
    }

    /// The body of an answer with this status.
    ///
    /// # Panics
    /// It has another status.
    #[must_use = "compare it, or say `let _ =`"]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{} was answered: {}",
            self.request,
            self.text
        );
        self.json
    }

    /// The body of a refusal with this status and message, after a look at its form: the tutorial's
    /// members, those of RFC 9457, the code, and no others but `errors`.
    ///
    /// # Panics
    /// It is none.
    pub fn refused(self, status: u16, message: &str) -> Value {
        let content_type = self.header("content-type").to_owned();
        let (title, text) = (self.status.canonical_reason(), self.text.clone());
        let body = self.expect(status);
        let mut pattern = json!({
            "success": false,
            "message": message,
            "code": "<text>",
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": message,
        });
        if let Some(errors) = body.get("errors") {
            pattern["errors"] = errors.clone();
        }
        assert_eq!(content_type, "application/problem+json", "{text}");
        Shapes::new().check(&body, &pattern);
        body
    }

    /// What a refusal for wrong fields says about each of them.
    ///
    /// # Panics
    /// It is none.
    #[must_use = "compare it, or say `let _ =`"]
    pub fn wrong_fields(self) -> Value {
        self.refused(400, "Kindly fix the error(s)")["errors"].clone()
    }

    /// A header's text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or(""))
    }
}

/// A client of Hansard, with or without a token.
#[derive(Debug, Clone)]
pub struct TestClient {
    http: reqwest::Client,
    base_url: String,
    headers: HeaderMap,
    newest: Option<NewestPosition>,
}

/// The newest position that a group of clients was answered, as its text.
pub(crate) type NewestPosition = Arc<Mutex<String>>;

impl TestClient {
    /// A client without a token of the Hansard at `base_url` (`http://HOST:PORT`).
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(60))
                .build()
                .unwrap(),
            base_url: base_url.to_owned(),
            headers: HeaderMap::new(),
            newest: None,
        }
    }

    /// The same client, which from now on sends back the newest position that it or another client with
    /// the same `newest` was answered.
    pub(crate) fn with_newest_position(mut self, newest: &NewestPosition) -> Self {
        self.newest = Some(Arc::clone(newest));
        self
    }

    /// `http://HOST:PORT` of what it talks to.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The same client with this bearer token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// The same client, sending this header with each request: `Idempotency-Key`, `Prefer`,
    /// `Hansard-Position` and so on.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value).unwrap(),
        );
        client
    }

    /// `POST /login/:userId`
    pub async fn login(&self, user: &str) -> Answer {
        self.send(Method::POST, &format!("/login/{user}"), None)
            .await
    }

    /// `GET /users`
    pub async fn users(&self) -> Answer {
        self.send(Method::GET, "/users", None).await
    }

    /// `POST /users`; `user_type` is `consumer` or `support`.
    pub async fn create_user(&self, first: &str, last: &str, user_type: &str) -> Answer {
        let body = json!({"firstName": first, "lastName": last, "type": user_type});
        self.send(Method::POST, "/users", Some(body)).await
    }

    /// `GET /users/:id`
    pub async fn user(&self, user: &str) -> Answer {
        self.send(Method::GET, &format!("/users/{user}"), None)
            .await
    }

    /// `DELETE /users/:id`
    pub async fn delete_user(&self, user: &str) -> Answer {
        self.send(Method::DELETE, &format!("/users/{user}"), None)
            .await
    }

    /// `POST /room/initiate`; `room_type` is `consumer-to-consumer` or `consumer-to-support`.
    pub async fn initiate(&self, users: &[&str], room_type: &str) -> Answer {
        let body = json!({"userIds": users, "type": room_type});
        self.send(Method::POST, "/room/initiate", Some(body)).await
    }

    /// `POST /room/:roomId/message`
    pub async fn post(&self, room: &str, text: &str) -> Answer {
        let body = json!({"messageText": text});
        self.send(Method::POST, &format!("/room/{room}/message"), Some(body))
            .await
    }

    /// `GET /room`; `query` is empty or like `page=1&limit=5`.
    pub async fn conversations(&self, query: &str) -> Answer {
        self.send(Method::GET, &with_query("/room", query), None)
            .await
    }

    /// `GET /room/:roomId`; `query` is empty or like `page=1&limit=5`.
    pub async fn conversation(&self, room: &str, query: &str) -> Answer {
        let path = with_query(&format!("/room/{room}"), query);
        self.send(Method::GET, &path, None).await
    }

    /// `PATCH /room/:roomId/message/:messageId`
    pub async fn edit(&self, room: &str, message: &str, text: &str) -> Answer {
        let path = format!("/room/{room}/message/{message}");
        let body = json!({"messageText": text});
        self.send(Method::PATCH, &path, Some(body)).await
    }

    /// `GET /room/:roomId/message/:messageId/history`
    pub async fn history(&self, room: &str, message: &str) -> Answer {
        let path = format!("/room/{room}/message/{message}/history");
        self.send(Method::GET, &path, None).await
    }

    /// `GET /search` with these parameters, which are encoded here.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn search(&self, parameters: &[(&str, &str)]) -> Answer {
        let url = reqwest::Url::parse_with_params("http://encoding/", parameters).unwrap();
        let path = with_query("/search", url.query().unwrap_or_default());
        self.send(Method::GET, &path, None).await
    }

    /// `PUT /room/:roomId/mark-read`, everything.
    pub async fn mark_read(&self, room: &str) -> Answer {
        self.send(Method::PUT, &format!("/room/{room}/mark-read"), None)
            .await
    }

    /// `PUT /room/:roomId/mark-read`, up to a message.
    pub async fn mark_read_up_to(&self, room: &str, message: &str) -> Answer {
        let path = format!("/room/{room}/mark-read");
        self.send(Method::PUT, &path, Some(json!({"upTo": message})))
            .await
    }

    /// `DELETE /delete/room/:roomId`
    pub async fn delete_room(&self, room: &str) -> Answer {
        self.send(Method::DELETE, &format!("/delete/room/{room}"), None)
            .await
    }

    /// `DELETE /delete/message/:messageId`
    pub async fn delete_message(&self, message: &str) -> Answer {
        self.send(Method::DELETE, &format!("/delete/message/{message}"), None)
            .await
    }

    /// `POST /users/:id/erase`
    pub async fn erase_user(&self, user: &str) -> Answer {
        let path = format!("/users/{user}/erase");
        self.send(Method::POST, &path, None).await
    }

    /// `PUT /room/:roomId/hold`
    pub async fn hold(&self, room: &str, reason: &str) -> Answer {
        let path = format!("/room/{room}/hold");
        let body = json!({"reason": reason});
        self.send(Method::PUT, &path, Some(body)).await
    }

    /// `DELETE /room/:roomId/hold`
    pub async fn release(&self, room: &str) -> Answer {
        let path = format!("/room/{room}/hold");
        self.send(Method::DELETE, &path, None).await
    }

    /// `GET /changes`; `query` is empty or like `after=POSITION&wait=5`.
    pub async fn changes(&self, query: &str) -> Answer {
        self.send(Method::GET, &with_query("/changes", query), None)
            .await
    }

    /// `GET /audit/events`, whose answer's text has one event a line; `query` is empty or like
    /// `room=ID&from=POSITION`.
    pub async fn audit_events(&self, query: &str) -> Answer {
        self.send(Method::GET, &with_query("/audit/events", query), None)
            .await
    }

    /// `GET` of any path.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// Any method and path, with a JSON body or none.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.answer(self.request(method, path, body))
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Any method and path, with a JSON body or none; an error when there is no answer, as while servers
    /// are killed.
    ///
    /// # Errors
    /// The connection fails or breaks.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        self.answer(self.request(method, path, body)).await
    }

    /// Any method and path with bytes as they are for a body.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let request = self
            .request(method, path, None)
            .header("content-type", content_type)
            .body(body);
        self.answer(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// A request that is not sent yet, for what the other methods don't do.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base_url))
            .headers(self.headers.clone());
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
    }

    /// Sends what [`Self::request`] began.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn send_request(&self, request: reqwest::RequestBuilder) -> Answer {
        self.answer(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let mut request = request.build()?;
        if let Some(newest) = &self.newest
            && request.method() == Method::GET
            && !request.headers().contains_key(POSITION)
        {
            let newest = newest.lock().unwrap();
            if let Ok(value) = HeaderValue::try_from(newest.as_str())
                && !value.is_empty()
            {
                request.headers_mut().insert(POSITION, value);
            }
        }
        let asked = format!("{} {}", request.method(), request.url().path());
        let response = self.http.execute(request).await?;
        let status = response.status();
        let headers = response.headers().clone();
        if let (Some(newest), Some(position)) = (&self.newest, headers.get(POSITION)) {
            let mut newest = newest.lock().unwrap();
            let position = position.to_str().unwrap();
            if position > newest.as_str() {
                *newest = position.to_owned();
            }
        }
        let text = response.text().await?;
        Ok(Answer {
            status,
            headers,
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
            request: asked,
        })
    }
}

fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}
