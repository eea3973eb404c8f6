//! Hansard in a web page: the example client, in a real browser, through what happens to servers and
//! tokens.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hansard_tests::{
    Auth, Backend, Browser, Layout, Options, Said, Service, Stack, Writer, assert_kept, read_all,
    room_of, run_with, with_stack, within,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// How long the page may take to connect again.
const CONNECTION: Duration = Duration::from_secs(30);

/// Whether the page was told of a frame of this type.
fn frame(frame_type: &str) -> impl Fn(&Value) -> bool {
    move |said| said["frame"]["type"] == frame_type
}

/// The list that the page shows, once the message `until` or a later one is at its end.
async fn shown(browser: &mut Browser, until: &str) -> Vec<Said> {
    browser.tell(json!({"until": until}));
    let said = browser
        .says("its list", |it| it["messages"].is_array())
        .await;
    let messages = said["messages"].as_array().unwrap().iter();
    messages
        .map(|message| Said {
            id: message["id"].as_str().unwrap().to_owned(),
            text: message["text"].as_str().unwrap().to_owned(),
        })
        .collect()
}

// --- A page that stays open ---

async fn a_page_misses_nothing(mut stack: Stack) {
    let Some(mut browser) = Browser::prepare().await else {
        return;
    };
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let mut before = Vec::new();
    for number in 0..3 {
        let text = format!("before {number}");
        let answer = ada.client.post(&room, &text).await.ok();
        let id = answer["post"]["postId"].as_str().unwrap().to_owned();
        before.push(Said { id, text });
    }
    let settings = json!({
        "api": stack.base_url(), "ws": stack.ws_url(), "token": grace.token, "room": room,
    });
    browser.open("chat.mjs", &settings);
    // It has nothing to resume from, so it reads what is there.
    let started = browser
        .says("its start", |it| it.get("startedOver").is_some())
        .await;
    assert_eq!(started, json!({"startedOver": null}));
    assert_eq!(shown(&mut browser, "").await, before);

    let writer = Writer::start(&ada.client, &room, "Ada");
    writer.go_on(20).await;
    for _ in 0..3 {
        stack.kill(Service::GatewayWs);
        if stack.options().layout == Layout::FourProcesses {
            // Others write on meanwhile.
            writer.go_on(20).await;
        }
        stack.restart(Service::GatewayWs).await;
        let resumed = browser.says("its return", frame("subscribed")).await;
        assert_eq!(resumed["frame"]["recovered"], true, "{resumed}");
        browser.says("that it is live", frame("replayed")).await;
        writer.go_on(20).await;
    }
    let written = writer.stop().await;

    let last = &written.last().unwrap().id;
    let there = shown(&mut browser, last).await;
    assert_eq!(there, read_all(&ada.client, &room).await);
    assert_kept(&there[before.len()..], &[written]);
    let starts = browser.said();
    let starts = starts.iter().filter(|it| it.get("startedOver").is_some());
    assert_eq!(starts.count(), 1, "it had everything to resume from");
}

#[test]
fn a_page_misses_nothing_embedded_one_process() {
    let options = Options::new(Backend::Embedded, Layout::OneProcess, Auth::Token);
    run_with(options, a_page_misses_nothing);
}

#[test]
fn a_page_misses_nothing_distributed_four_processes() {
    let options = Options::new(Backend::Distributed, Layout::FourProcesses, Auth::Token);
    run_with(options, a_page_misses_nothing);
}

// --- Pages that are refused ---

async fn refusals_are_final(stack: Stack) {
    let Some(mut browser) = Browser::prepare().await else {
        return;
    };
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    browser.open("client.mjs", &json!({"ws": stack.ws_url()}));
    let refused = |it: &Value| it["refused"].is_number();

    // The same token would be refused again.
    browser.tell(json!({"tokens": "no token", "rooms": [room]}));
    let refusal = browser.says("its refusal", refused).await;
    assert_eq!(refusal["refused"], 4001);
    assert_eq!(refusal["connections"], 1);
    assert!(!refusal["reason"].as_str().unwrap().is_empty(), "{refusal}");

    // Another one may do, if there is one.
    browser.tell(json!({"tokens": ["old", "older", "older"], "rooms": [room]}));
    let refusal = browser.says("its refusal", refused).await;
    let reason = refusal["reason"].clone();
    let expected = json!({"refused": 4001, "reason": reason, "connections": 2, "asked": 3});
    assert_eq!(refusal, expected);
    browser.tell(json!({"tokens": ["old", grace.token], "rooms": [room]}));
    browser.says("that it is in", frame("subscribed")).await;

    let _ = stack.operator().delete_user(&grace.id).await.ok();
    let refusal = browser.says("its refusal", refused).await;
    assert_eq!(refusal["refused"], 4003);
    assert_eq!(refusal["connections"], 2, "{refusal}");
}

#[test]
fn refusals_are_final_embedded_one_process() {
    let options = Options::new(Backend::Embedded, Layout::OneProcess, Auth::Token);
    run_with(options, refusals_are_final);
}

async fn only_pages_of_allowed_origins_connect(layout: Layout, backend: Backend) {
    let (Some(mut own), Some(mut foreign)) = (Browser::prepare().await, Browser::prepare().await)
    else {
        return;
    };
    let mut options = Options::new(backend, layout, Auth::Token);
    options.flags = vec!["--allowed-origins".to_owned(), own.origin().to_owned()];
    with_stack(options, async |mut stack: Stack| {
        stack.start_all().await;
        let ada = stack.person("Ada").await;
        let grace = stack.person("Grace").await;
        let room = room_of(&ada, &[&grace]).await;
        for browser in [&mut own, &mut foreign] {
            browser.open("client.mjs", &json!({"ws": stack.ws_url()}));
            browser.tell(json!({"tokens": grace.token, "rooms": [room]}));
        }
        own.says("that it is in", frame("subscribed")).await;
        // To the page it is as if there were no server, and it tries again.
        let closed = |it: &Value| it["closed"] == 1006 && it["connections"] == 2;
        foreign.says("that it is not let in", closed).await;
        let told = foreign.said();
        assert!(told.iter().all(|it| it.get("frame").is_none()), "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_allowed_origins_connect_embedded_one_process() {
    only_pages_of_allowed_origins_connect(Layout::OneProcess, Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_allowed_origins_connect_distributed_four_processes() {
    only_pages_of_allowed_origins_connect(Layout::FourProcesses, Backend::Distributed).await;
}

// --- Positions, against a server that does as this test says ---

/// A connection that the page has made.
type Accepted = WebSocketStream<TcpStream>;

struct Script {
    listener: TcpListener,
    browser: Browser,
}

impl Script {
    /// A page that subscribes to these rooms; `null` stands for all.
    async fn start(rooms: Value) -> Option<Self> {
        let mut browser = Browser::prepare().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        browser.open("client.mjs", &json!({"ws": url}));
        browser.tell(json!({"tokens": "a token", "rooms": rooms}));
        Some(Self { listener, browser })
    }

    /// Waits for the page's next connection, which must begin with a token and then these frames; answers
    /// them.
    async fn expect(&self, subscriptions: Value, answers: Value) -> Accepted {
        let accepting = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            let auth = json!({"type": "auth", "token": "a token"});
            assert_eq!(received(&mut socket).await, auth);
            for expected in subscriptions.as_array().unwrap() {
                assert_eq!(&received(&mut socket).await, expected);
            }
            for answer in answers.as_array().unwrap() {
                let text = Message::text(answer.to_string());
                socket.send(text).await.unwrap();
            }
            socket
        };
        within("the page's connection", CONNECTION, accepting).await
    }

    /// Waits until the page was given a frame of this type and position, and cuts the line.
    async fn cut_after(&mut self, socket: Accepted, frame_type: &str, position: &str) {
        let given =
            |it: &Value| it["frame"]["type"] == frame_type && it["frame"]["position"] == position;
        self.browser.says(position, given).await;
        drop(socket);
    }
}

async fn received(socket: &mut Accepted) -> Value {
    let message = socket.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn a_replay_that_is_cut_goes_on_where_it_was_cut() {
    let Some(mut script) = Script::start(json!(["r"])).await else {
        return;
    };
    let subscribe = |after: &str| json!([{"type": "subscribe", "room": "r", "after": after}]);
    let frame = |frame_type: &str, position: &str| json!({"type": frame_type, "room": "r", "position": position});
    let mut recovered = frame("subscribed", "p9");
    recovered["recovered"] = json!(true);
    let mut fresh = frame("subscribed", "p1");
    fresh["recovered"] = json!(false);

    let first = json!([{"type": "subscribe", "room": "r"}]);
    let answers = json!([fresh, frame("new message", "p2")]);
    let socket = script.expect(first, answers).await;
    script.cut_after(socket, "new message", "p2").await;

    // `p9` is where the replay would end; it gets no further than `p3`.
    let answers = json!([recovered, frame("new message", "p3")]);
    let socket = script.expect(subscribe("p2"), answers).await;
    script.cut_after(socket, "new message", "p3").await;

    // What the app fails to deal with comes again, and what came after it does not count.
    let mut failing = frame("new message", "p4");
    failing["failure"] = json!({"connection": 3, "after": 4});
    let later = ["p5", "p6"].map(|position| frame("new message", position));
    let answers = json!([recovered, failing, later[0], later[1]]);
    let socket = script.expect(subscribe("p3"), answers).await;
    let answers = json!([recovered, failing]);
    let next = script.expect(subscribe("p3"), answers).await;
    drop(socket);
    script.cut_after(next, "new message", "p4").await;

    // The end of a replay counts, even where the last events were none of the client's business.
    let answers = json!([recovered, frame("replayed", "p9")]);
    let socket = script.expect(subscribe("p4"), answers).await;
    script.cut_after(socket, "replayed", "p9").await;

    // A position that is worth nothing is not used again.
    let mut lost = frame("subscribed", "q1");
    lost["recovered"] = json!(false);
    lost["reason"] = json!("the position belongs to another log");
    let socket = script.expect(subscribe("p9"), json!([lost])).await;
    let started_over = json!({"startedOver": "q1", "reason": lost["reason"]});
    let starts_over = |it: &Value| it == &started_over;
    script
        .browser
        .says("that it starts over", starts_over)
        .await;
    script.cut_after(socket, "subscribed", "q1").await;
    script.expect(subscribe("q1"), json!([])).await;
}

#[tokio::test]
async fn each_room_has_its_own_position() {
    let Some(mut script) = Script::start(json!(["r", "s"])).await else {
        return;
    };
    let first = json!([{"type": "subscribe", "room": "r"}, {"type": "subscribe", "room": "s"}]);
    let answers = json!([
        {"type": "subscribed", "room": "r", "position": "p1", "recovered": false},
        {"type": "subscribed", "room": "s", "position": "p2", "recovered": false},
        {"type": "new message", "room": "s", "position": "p3"},
    ]);
    let socket = script.expect(first, answers).await;
    script.cut_after(socket, "new message", "p3").await;

    // A room that is gone is not asked for again.
    let second = json!([
        {"type": "subscribe", "room": "r", "after": "p1"},
        {"type": "subscribe", "room": "s", "after": "p3"},
    ]);
    let answers = json!([
        {"type": "error", "code": "unknown_room", "message": "there is no such room", "room": "r"},
        {"type": "room deleted", "room": "s", "position": "p4"},
    ]);
    let socket = script.expect(second, answers).await;
    script.cut_after(socket, "room deleted", "p4").await;
    let mut socket = script.expect(json!([]), json!([])).await;
    socket.close(None).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    assert!(answer.is_close(), "{answer}");
}

#[tokio::test]
async fn all_rooms_together_have_one_position() {
    let Some(mut script) = Script::start(json!([null])).await else {
        return;
    };
    let answers = json!([
        {"type": "subscribed", "position": "p1", "recovered": false},
        {"type": "new message", "room": "r", "position": "p2"},
        {"type": "room deleted", "room": "s", "position": "p3"},
    ]);
    let socket = script.expect(json!([{"type": "subscribe"}]), answers).await;
    script.cut_after(socket, "room deleted", "p3").await;

    let second = json!([{"type": "subscribe", "after": "p3"}]);
    let answers = json!([
        {"type": "subscribed", "position": "p9", "recovered": true},
        {"type": "replayed", "position": "p9", "count": 0},
    ]);
    let socket = script.expect(second, answers).await;
    script.cut_after(socket, "replayed", "p9").await;
    let third = json!([{"type": "subscribe", "after": "p9"}]);
    script.expect(third, json!([])).await;
}
