//! Hansard in a web page: the example client, in a real browser, through what happens to servers and
//! tokens.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hansard_tests::{
    Auth, Backend, Browser, Layout, Options, Said, Service, Stack, Writer, assert_kept, read_all,
    room_of, run_with,
};
use serde_json::{Value, json};

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
    browser.open("refusals.mjs", &json!({"ws": stack.ws_url(), "room": room}));
    let refused = |it: &Value| it["refused"].is_number();

    // The same token would be refused again.
    browser.tell(json!({"tokens": "no token"}));
    let refusal = browser.says("its refusal", refused).await;
    assert_eq!(refusal["refused"], 4001);
    assert_eq!(refusal["connections"], 1);
    assert!(!refusal["reason"].as_str().unwrap().is_empty(), "{refusal}");

    // Another one may do, if there is one.
    browser.tell(json!({"tokens": ["old", "older", "older"]}));
    let refusal = browser.says("its refusal", refused).await;
    let reason = refusal["reason"].clone();
    let expected = json!({"refused": 4001, "reason": reason, "connections": 2, "asked": 3});
    assert_eq!(refusal, expected);
    browser.tell(json!({"tokens": ["old", grace.token]}));
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
    let stack = Stack::start_with(options).await;
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    for browser in [&mut own, &mut foreign] {
        browser.open("refusals.mjs", &json!({"ws": stack.ws_url(), "room": room}));
        browser.tell(json!({"tokens": grace.token}));
    }
    own.says("that it is in", frame("subscribed")).await;
    // To the page it is as if there were no server, and it tries again.
    let closed = |it: &Value| it["closed"] == 1006 && it["connections"] == 2;
    foreign.says("that it is not let in", closed).await;
    let told = foreign.said();
    assert!(told.iter().all(|it| it.get("frame").is_none()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_allowed_origins_connect_embedded_one_process() {
    only_pages_of_allowed_origins_connect(Layout::OneProcess, Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_allowed_origins_connect_distributed_four_processes() {
    only_pages_of_allowed_origins_connect(Layout::FourProcesses, Backend::Distributed).await;
}
