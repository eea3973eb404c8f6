//! Socket.IO at `/socket.io/` with real JavaScript clients: versions 2, 3 and 4, each over long polling and
//! over WebSocket, and as they come, which begins with one and goes on to the other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{SinkExt, StreamExt};
use hansard_tests::{
    Auth, Backend, Layout, NodeScript, Person, Service, Stack, TestClient, eventually, room_of,
    run, within,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Every version of the client over every transport; without a transport, as the client likes.
const CLIENTS: [(u8, Option<&str>); 8] = [
    (2, Some("polling")),
    (2, Some("websocket")),
    (2, None),
    (3, Some("polling")),
    (3, Some("websocket")),
    (4, Some("polling")),
    (4, Some("websocket")),
    (4, None),
];

/// A name for such a client of somebody, which failures tell.
fn name(of: &str, (version, transport): (u8, Option<&str>)) -> String {
    format!("{of}, {version}.x {}", transport.unwrap_or("as it comes"))
}

/// How long something may take that a client must hear.
const HEARD: Duration = Duration::from_secs(40);

/// The clients of a test, in one script.
struct Clients {
    script: NodeScript,
    url: String,
    /// All that the script has said.
    said: Vec<Value>,
    /// How much of that has been gone past for each client.
    passed: HashMap<String, usize>,
}

impl Clients {
    /// `None` where JavaScript clients are left out.
    async fn start(url: &str) -> Option<Self> {
        Some(Self {
            script: NodeScript::start("socketio/clients.mjs", &[])?,
            url: url.to_owned(),
            said: Vec::new(),
            passed: HashMap::new(),
        })
    }

    /// Makes a client of this kind, with more options as in `clients.mjs`.
    async fn make(&mut self, name: &str, kind: (u8, Option<&str>), options: Value) {
        let (version, transport) = kind;
        let mut order = json!({
            "connect": name, "url": self.url, "version": version,
            "transports": transport.map(|transport| [transport]),
        });
        let more = options.as_object().unwrap().clone();
        order.as_object_mut().unwrap().extend(more);
        self.script.tell(&order).await;
    }

    /// Makes a client of each kind, and waits until all are connected; their names.
    async fn make_all(&mut self, of: &str, options: &Value) -> Vec<String> {
        let names: Vec<String> = CLIENTS.iter().map(|kind| name(of, *kind)).collect();
        for (name, kind) in names.iter().zip(CLIENTS) {
            self.make(name, kind, options.clone()).await;
        }
        for name in &names {
            self.hears(name, "connect", |_| true).await;
        }
        names
    }

    async fn emit(&mut self, name: &str, event: Value) {
        let order = json!({"emit": name, "event": event});
        self.script.tell(&order).await;
    }

    async fn close(&mut self, name: &str) {
        self.script.tell(&json!({"close": name})).await;
    }

    /// The first argument of the next such event that this client hears; what it hears before is passed
    /// over.
    async fn hears(&mut self, name: &str, event: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let Self {
            script,
            said,
            passed,
            ..
        } = self;
        let passed = passed.entry(name.to_owned()).or_default();
        eventually(&format!("{name} hears {event:?}"), HEARD, || {
            said.extend(script.said_after(said.len()));
            let position = said[*passed..].iter().position(|it| {
                it["client"] == name && it["event"] == event && matches(&it["arguments"][0])
            });
            let found = position.map(|position| {
                *passed += position + 1;
                said[*passed - 1]["arguments"][0].clone()
            });
            std::future::ready(found)
        })
        .await
    }

    /// The new messages that this client has heard so far, in order: texts and positions.
    fn messages(&mut self, name: &str) -> Vec<(String, String)> {
        let news = self.script.said_after(self.said.len());
        self.said.extend(news);
        let said = self.said.iter();
        said.filter(|it| it["client"] == name && it["event"] == "new message")
            .map(|it| {
                let frame = &it["arguments"][0];
                let text = &frame["message"]["message"]["messageText"];
                let position = frame["position"].as_str().unwrap();
                (text.as_str().unwrap().to_owned(), position.to_owned())
            })
            .collect()
    }

    /// That this client has heard exactly these messages, in this order.
    fn assert_heard(&mut self, name: &str, texts: &[String]) {
        let heard = self.messages(name);
        let heard: Vec<&String> = heard.iter().map(|(text, _)| text).collect();
        assert_eq!(heard, texts.iter().collect::<Vec<_>>(), "{name}");
    }
}

async fn post(person: &Person, room: &str, text: &str) -> Value {
    person.client.post(room, text).await.ok()["post"].clone()
}

fn is_message(text: &str) -> impl Fn(&Value) -> bool {
    move |frame| frame["message"]["message"]["messageText"] == text
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

// --- The tutorial ---

async fn the_tutorials_clients_talk(stack: Stack) {
    for (version, transport) in CLIENTS {
        let ada = stack.person("Ada").await;
        let grace = stack.person("Grace").await;
        let arguments = [
            stack.base_url(),
            &version.to_string(),
            transport.unwrap_or("default"),
            &ada.id,
            &grace.id,
        ];
        let Some(mut script) = NodeScript::start("socketio/tutorial.mjs", &arguments) else {
            return;
        };
        let what = name("the tutorial", (version, transport));
        let told = script.says(&what, |it| it["post"].is_object()).await;
        for message in told["messages"].as_array().unwrap() {
            assert_eq!(message, &told["post"], "{what}");
        }
        assert_eq!(told["messages"].as_array().unwrap().len(), 2, "{what}");
        assert_eq!(told["heard"], 0, "{what}: muted, and told nevertheless");
        if let Some(transport) = transport {
            assert_eq!(told["transport"], transport, "{what}");
        }
        assert!(script.end().await.success(), "{what}");
    }
}

async fn without_tokens_people_say_who_they_are(stack: Stack) {
    let Some(mut clients) = Clients::start(stack.base_url()).await else {
        return;
    };
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    for name in clients.make_all("nobody", &json!({})).await {
        clients.emit(&name, json!(["subscribe", room])).await;
        let error = clients.hears(&name, "error", |_| true).await;
        assert_eq!(error["code"], "unauthorized", "{name}: {error}");
        clients.emit(&name, json!(["identity", ada.id])).await;
        clients.hears(&name, "authenticated", |_| true).await;
        clients.emit(&name, json!(["subscribe", room])).await;
        clients.hears(&name, "subscribed", |_| true).await;
    }
    // A token that is given counts, and a bad one is none.
    for (name, kind) in CLIENTS.map(|kind| (name("a liar", kind), kind)) {
        clients.make(&name, kind, json!({"token": "made up"})).await;
        clients.hears(&name, "refused", |_| true).await;
    }
}

// --- Who is told what ---

async fn members_are_told_and_others_are_not(stack: Stack) {
    let Some(mut clients) = Clients::start(stack.base_url()).await else {
        return;
    };
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let mallory = stack.person("Mallory").await;
    let room = room_of(&ada, &[&grace]).await;
    let with_token = |person: &Person| json!({"token": person.token});
    let adas = clients.make_all("Ada", &with_token(&ada)).await;
    let graces = clients.make_all("Grace", &with_token(&grace)).await;
    let mallorys = clients.make_all("Mallory", &with_token(&mallory)).await;

    // Who subscribes is subscribed, and brings the other user's clients, all of them, if they belong there.
    for (name, other) in adas.iter().zip([&grace, &mallory].into_iter().cycle()) {
        let event = json!(["subscribe", room, other.id]);
        clients.emit(name, event).await;
        let subscribed = clients.hears(name, "subscribed", |_| true).await;
        assert_eq!(subscribed["room"], room.as_str(), "{name}: {subscribed}");
    }
    for name in &graces {
        let subscribed = clients.hears(name, "subscribed", |_| true).await;
        assert_eq!(subscribed["room"], room.as_str(), "{name}: {subscribed}");
    }
    for name in &mallorys {
        let event = json!(["subscribe", room, ""]);
        clients.emit(name, event).await;
        let error = clients.hears(name, "error", |_| true).await;
        assert_eq!(error["code"], "not_a_member", "{name}: {error}");
    }
    let texts = ["Hello", "a\u{0}b\u{1b}[31m\"\\\n", "👋🏽 ﷽ \u{2028}\u{202e}x"];
    for text in texts {
        let posted = post(&ada, &room, text).await;
        for name in adas.iter().chain(&graces) {
            let frame = clients.hears(name, "new message", is_message(text)).await;
            assert_eq!(frame["message"], posted, "{name}");
            assert_eq!(frame["room"], room.as_str(), "{name}");
        }
    }

    // What makes no sense is said so, and ends nothing.
    for name in &graces {
        for event in [
            json!(["dance"]),
            json!(["subscribe", "nowhere"]),
            json!(["subscribe", room, {"user": 7}]),
            json!(["subscribe", room, "", "never"]),
            json!(["unsubscribe", [[]]]),
            json!(["typing", room, "loudly"]),
            json!(["identity"]),
            json!(["identity", ada.id]),
        ] {
            clients.emit(name, event.clone()).await;
            let error = clients.hears(name, "error", |_| true).await;
            let message = error["message"].as_str();
            assert!(
                message.is_some_and(|it| !it.is_empty()),
                "{name}, {event}: {error}"
            );
        }
    }

    // Half of them leave, and are told nothing more.
    let (leaving, staying) = graces.split_at(graces.len() / 2);
    for name in leaving {
        clients.emit(name, json!(["unsubscribe", room])).await;
        clients.hears(name, "unsubscribed", |_| true).await;
    }
    post(&ada, &room, "between us").await;
    for name in staying.iter().chain(&adas) {
        let heard = clients.hears(name, "new message", is_message("between us"));
        heard.await;
    }
    for name in leaving {
        clients.emit(name, json!(["subscribe", room])).await;
        clients.hears(name, "subscribed", |_| true).await;
    }
    post(&ada, &room, "all together").await;
    let all: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    for name in graces.iter().chain(&adas) {
        let heard = clients.hears(name, "new message", is_message("all together"));
        heard.await;
        let mut expected = all.clone();
        if !leaving.contains(name) {
            expected.push("between us".to_owned());
        }
        expected.push("all together".to_owned());
        clients.assert_heard(name, &expected);
    }
    for name in &mallorys {
        clients.assert_heard(name, &[]);
    }

    // The room ends, and then a user.
    let _ = ada.client.delete_room(&room).await.ok();
    for name in adas.iter().chain(&graces) {
        clients.hears(name, "room deleted", |_| true).await;
    }
    let _ = stack.operator().delete_user(&mallory.id).await.ok();
    for name in &mallorys {
        let closing = clients.hears(name, "closing", |_| true).await;
        assert_eq!(closing["code"], 4003, "{name}");
        clients
            .hears(name, "disconnect", |why| why == "io server disconnect")
            .await;
    }
}

async fn tokens_are_checked(stack: Stack) {
    let Some(mut clients) = Clients::start(stack.base_url()).await else {
        return;
    };
    let ada = stack.person("Ada").await;
    let claims = |exp: u64| json!({"userId": ada.id, "userType": "consumer", "exp": exp});
    let expired = stack.sign(&claims(now() - 3600));
    for (options, reason) in [
        (json!({}), "jwt must be provided"),
        (json!({"token": ""}), "jwt must be provided"),
        (json!({"token": "made up"}), "jwt malformed"),
        (json!({"token": expired}), "jwt expired"),
        (
            json!({"token": ada.token, "after": "yesterday"}),
            "after must be the position of a frame or a message's id",
        ),
    ] {
        for (name, kind) in CLIENTS.map(|kind| (name(&options.to_string(), kind), kind)) {
            clients.make(&name, kind, options.clone()).await;
            let refused = clients.hears(&name, "refused", |_| true).await;
            assert_eq!(refused, reason, "{name}");
            clients.close(&name).await;
        }
    }
    // All versions can say it in the query.
    for (name, kind) in CLIENTS.map(|kind| (name("by query", kind), kind)) {
        let options = json!({"token": ada.token, "by": "query"});
        clients.make(&name, kind, options).await;
        clients.hears(&name, "connect", |_| true).await;
    }
    // A connection lasts no longer than its token.
    let short = stack.sign(&claims(now() + 5));
    for (name, kind) in CLIENTS.map(|kind| (name("for a moment", kind), kind)) {
        clients.make(&name, kind, json!({"token": short})).await;
        let closing = clients.hears(&name, "closing", |_| true).await;
        assert_eq!(closing["code"], 4001, "{name}");
        clients
            .hears(&name, "disconnect", |why| why == "io server disconnect")
            .await;
    }
}

// --- Absence ---

async fn absences_are_made_good(mut stack: Stack) {
    let Some(mut clients) = Clients::start(stack.base_url()).await else {
        return;
    };
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let mut texts = Vec::new();
    let mut ids = Vec::new();
    let say = async |number: usize| {
        let text = format!("message {number}");
        let posted = post(&ada, &room, &text).await;
        (text, posted["postId"].as_str().unwrap().to_owned())
    };
    for number in 0..200 {
        let (text, id) = say(number).await;
        texts.push(text);
        ids.push(id);
    }

    // From the beginning, from a message, from a position; said in the event, or once for all.
    let beginning = "0000000000000000";
    let greet = |after: Value| json!([["subscribe", room, "", after]]);
    let names = clients
        .make_all(
            "Grace",
            &json!({"token": grace.token, "after": beginning, "greet": greet(json!(null))}),
        )
        .await;
    for name in &names {
        let subscribed = clients.hears(name, "subscribed", |_| true).await;
        assert_eq!(subscribed["recovered"], true, "{name}");
        let replayed = clients.hears(name, "replayed", |_| true).await;
        assert!(
            replayed["count"].as_u64() >= Some(200),
            "{name}: {replayed}"
        );
        clients.assert_heard(name, &texts);
    }
    let position = clients.messages(&names[0])[99].1.clone();
    for after in [ids[99].clone(), position] {
        let of = format!("Grace after {after}");
        let options = json!({"token": grace.token});
        for name in clients.make_all(&of, &options).await {
            let event = json!(["subscribe", room, "", after]);
            clients.emit(&name, event).await;
            clients.hears(&name, "replayed", |_| true).await;
            clients.assert_heard(&name, &texts[100..]);
            clients.close(&name).await;
        }
    }

    // The gateway is killed, and told to stop; the clients come back by themselves.
    for (round, how) in ["killed", "told to stop"].into_iter().enumerate() {
        if how == "killed" {
            stack.kill(Service::GatewayWs);
        } else {
            let status = stack.terminate(Service::GatewayWs).await;
            assert!(status.success(), "{status}");
            for name in &names {
                let closing = clients.hears(name, "closing", |_| true).await;
                assert_eq!(closing["code"], 1001, "{name}");
            }
        }
        if stack.has(Service::Edge) {
            for number in 0..50 {
                let (text, _) = say(1000 * (round + 1) + number).await;
                texts.push(text);
            }
        }
        stack.restart(Service::GatewayWs).await;
        let (text, _) = say(1000 * (round + 1) + 999).await;
        texts.push(text.clone());
        for name in &names {
            clients.hears(name, "connect", |_| true).await;
            clients.hears(name, "new message", is_message(&text)).await;
            clients.assert_heard(name, &texts);
        }
    }
}

// --- Who does not read ---

async fn who_never_reads_is_given_up(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let gateway = stack.direct(Service::GatewayWs);
    let sockets = async || {
        let figures = gateway.get("/metrics").await.text;
        let figure = figures
            .lines()
            .find_map(|line| line.strip_prefix("hansard_sockets "));
        figure.unwrap().to_owned()
    };
    let url = format!("{}/socket.io/?EIO=4&transport=websocket", stack.base_url());
    let url = url.replacen("http", "ws", 1);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let connect = format!("40{}", json!({"token": ada.token}));
    let subscribe = format!("42{}", json!(["subscribe", room]));
    for packet in [connect, subscribe] {
        socket.send(Message::text(packet)).await.unwrap();
    }
    let subscribed = async {
        while let Some(packet) = socket.next().await {
            if packet.unwrap().to_string().contains("subscribed") {
                return;
            }
        }
        panic!("the socket is closed");
    };
    within("the subscription", HEARD, subscribed).await;
    assert_eq!(sockets().await, "1");

    // From now on it takes nothing; its heartbeats would not be missed yet.
    let text = "x".repeat(60_000);
    let mut posted = 0;
    while sockets().await == "1" {
        assert!(
            posted < 1_000,
            "{posted} messages wait for somebody who never reads"
        );
        post(&grace, &room, &text).await;
        posted += 1;
    }
    drop(socket);
}

// --- Several gateways ---

async fn other_users_are_reached_on_other_replicas(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let mallory = stack.person("Mallory").await;
    let room = room_of(&ada, &[&grace]).await;
    let replica = stack.replica(Service::GatewayWs).await;
    let Some(mut here) = Clients::start(stack.base_url()).await else {
        return;
    };
    let mut there = Clients::start(replica.base_url()).await.unwrap();
    let with_token = |person: &Person| json!({"token": person.token});
    let graces = there.make_all("Grace", &with_token(&grace)).await;
    let mallorys = there.make_all("Mallory", &with_token(&mallory)).await;
    here.make("Ada", (4, None), with_token(&ada)).await;
    for other in [&mallory, &grace] {
        here.emit("Ada", json!(["subscribe", room, other.id])).await;
    }
    for name in &graces {
        there.hears(name, "subscribed", |_| true).await;
    }
    let posted = post(&ada, &room, "across").await;
    for name in &graces {
        let frame = there.hears(name, "new message", |_| true).await;
        assert_eq!(frame["message"], posted, "{name}");
    }
    for name in &mallorys {
        there.assert_heard(name, &[]);
    }
}

// --- Browsers ---

async fn web_pages_may_connect(stack: Stack) {
    let page = |client: &TestClient| client.with_header("origin", "https://chat.example");
    let path = "/socket.io/?EIO=4&transport=polling";
    let opened = page(&stack.client()).get(path).await;
    assert_eq!(opened.status, StatusCode::OK);
    // Clients of version 2 send credentials; then browsers want the origin's name and not `*`.
    let origin = opened.header("access-control-allow-origin");
    assert_eq!(origin, "https://chat.example");
    assert_eq!(opened.header("access-control-allow-credentials"), "true");
    let preflight = page(&stack.client())
        .with_header("access-control-request-method", "POST")
        .with_header("access-control-request-headers", "content-type")
        .send(Method::OPTIONS, path, None)
        .await;
    assert_eq!(preflight.status, StatusCode::OK);
    assert_eq!(preflight.header("access-control-allow-methods"), "POST");
    // Nonsense is refused.
    for path in [
        "/socket.io/",
        "/socket.io/?EIO=9&transport=polling",
        "/socket.io/?EIO=4&transport=pigeon",
        "/socket.io/?EIO=4&transport=websocket",
        "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAHs",
    ] {
        let answer = stack.client().get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
    }
}

mod with_tokens {
    use super::*;

    hansard_tests::on_every_stack! {
        Auth::Token;
        members_are_told_and_others_are_not,
        tokens_are_checked,
        absences_are_made_good,
        who_never_reads_is_given_up,
    }

    /// Beside an SQLite log, processes don't hear each other's signals.
    #[test]
    fn other_users_are_reached_on_other_replicas() {
        let (backend, layout) = (Backend::Distributed, Layout::FourProcesses);
        run(
            backend,
            layout,
            Auth::Token,
            super::other_users_are_reached_on_other_replicas,
        );
    }
}

mod without_tokens {
    use super::*;

    hansard_tests::on_every_stack! {
        Auth::Open;
        the_tutorials_clients_talk,
        without_tokens_people_say_who_they_are,
        web_pages_may_connect,
    }
}
