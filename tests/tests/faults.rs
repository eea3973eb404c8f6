//! What fails, and what must not be noticed: the table "When things fail" of docs/architecture.md, process
//! by process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use futures::future::join_all;
use hansard_tests::{
    Answer, Auditor, Auth, Backend, Layout, Listener, Options, Person, Said, Service, Stack,
    TestClient, Writer, assert_kept, eventually, read_all, room_of, run_prepared, service_command,
};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use xtask::port::Port;

/// How long recovering from a fault may take on a busy machine.
const RECOVERY: Duration = Duration::from_secs(60);

/// How soon an answer must come while something is down: refusing is no reason to keep anybody waiting.
const PATIENCE: Duration = Duration::from_secs(20);

/// Posts with a key of its own; gives the answer.
async fn post(client: &TestClient, room: &str, text: &str) -> Answer {
    let key = Uuid::new_v4().to_string();
    client
        .with_header("idempotency-key", &key)
        .post(room, text)
        .await
}

async fn said(client: &TestClient, room: &str, text: &str) -> Said {
    let id = post(client, room, text).await.ok()["post"]["postId"].clone();
    Said {
        id: id.as_str().unwrap().to_owned(),
        text: text.to_owned(),
    }
}

/// That a request was refused for now, and not for long.
fn assert_unavailable(answer: Answer) {
    let seconds: u64 = answer
        .header("retry-after")
        .parse()
        .unwrap_or_else(|_| panic!("no Retry-After with {}: {}", answer.status, answer.text));
    assert!((1..=60).contains(&seconds), "{seconds}");
    let body = answer.expect(503);
    assert_eq!(body["success"], false);
    assert!(
        body["message"].as_str().is_some_and(|it| !it.is_empty()),
        "{body}"
    );
}

/// Sends requests all at once: each is refused for now, and soon enough.
async fn all_are_unavailable(requests: Vec<(&TestClient, Method, String, Option<Value>)>) {
    let begun = Instant::now();
    let answers = requests
        .into_iter()
        .map(|(client, method, path, body)| async move { client.send(method, &path, body).await });
    for answer in join_all(answers).await {
        assert_unavailable(answer);
    }
    let taken = begun.elapsed();
    assert!(taken < PATIENCE, "{taken:?}");
}

/// What a service says it is not ready for; empty when it is ready.
async fn unready(stack: &Stack, service: Service) -> Vec<String> {
    let answer = stack.direct(service).get("/health/ready").await;
    let ready = answer.status == 200;
    assert_eq!(answer.json["ready"], ready, "{}", answer.text);
    let checks = answer.json["checks"].as_object().unwrap();
    let failed = checks.iter().filter(|(_, outcome)| outcome["ok"] == false);
    let failed: Vec<String> = failed.map(|(name, _)| name.clone()).collect();
    assert_eq!(failed.is_empty(), ready, "{}", answer.text);
    failed
}

// --- The read models are down ---

async fn commands_and_pushes_need_no_read_models(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let listener = Listener::start(&stack, &grace, &room);
    let mut all = vec![said(&ada.client, &room, "before 0").await];
    listener.heard(1).await;

    // Gone, and there but without a word: a connection refused, and one that hangs.
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        stack.signal(Service::Mongod, signal);
        let queries = [
            "/users".to_owned(),
            "/room".to_owned(),
            format!("/room/{room}"),
        ];
        let queries = queries.map(|path| (&ada.client, Method::GET, path, None));
        all_are_unavailable(queries.into()).await;
        for service in [Service::QueryApi, Service::Projector] {
            eventually("the read models are reported", RECOVERY, || async {
                let failed = unready(&stack, service).await;
                failed.contains(&"readModels".to_owned()).then_some(())
            })
            .await;
        }

        // Everything but the counts works: new users, new rooms, posts, readings, deletions.
        let hedy = stack.person("Hedy").await;
        let new_room = room_of(&hedy, &[&ada]).await;
        let doomed = said(&hedy.client, &new_room, "soon gone").await;
        let _ = hedy.client.delete_message(&doomed.id).await.ok();
        let _ = ada.client.delete_room(&new_room).await.ok();
        let _ = grace.client.mark_read(&room).await.ok();
        let _ = stack.client().delete_user(&hedy.id).await.ok();
        for number in 0..10 {
            all.push(said(&ada.client, &room, &format!("during-{signal:?} {number}")).await);
        }
        assert_eq!(listener.heard(all.len()).await, all);
        // A repetition is recognised by the log itself.
        let key = Uuid::new_v4().to_string();
        let keyed = ada.client.with_header("idempotency-key", &key);
        let text = format!("once-{signal:?} 0");
        let first = keyed.post(&room, &text).await.ok();
        assert_eq!(keyed.post(&room, &text).await.ok(), first);
        let id = first["post"]["postId"].as_str().unwrap().to_owned();
        all.push(Said { id, text });

        match signal {
            Signal::SIGSTOP => stack.signal(Service::Mongod, Signal::SIGCONT),
            _ => stack.restart(Service::Mongod).await,
        }
        caught_up(&stack, &ada, &room, &all).await;
        let users = stack.client().users().await.ok()["users"].clone();
        assert_eq!(users.as_array().unwrap().len(), 2, "{users}");
        let recent = ada.client.conversations("").await.ok();
        assert_eq!(
            recent["conversation"].as_array().unwrap().len(),
            1,
            "{recent}"
        );
    }
    assert_eq!(listener.heard(all.len()).await, all);
    assert_eq!(
        listener.notices(),
        Vec::<String>::new(),
        "the socket was left alone"
    );
    assert_eq!(
        Auditor::new(&stack)
            .await
            .count("message.posted", &format!("room={room}"))
            .await,
        all.len()
    );
}

/// Waits until the read models have everything, and compares.
async fn caught_up(stack: &Stack, reader: &Person, room: &str, all: &[Said]) {
    let last = &all.last().unwrap().id;
    let client = reader.client.with_header("hansard-position", last);
    eventually("the projection has caught up", RECOVERY, || async {
        let answer = client.conversation(room, "limit=1").await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(read_all(&client, room).await, all);
    for service in [Service::QueryApi, Service::Projector] {
        eventually("everything is ready again", RECOVERY, || async {
            unready(stack, service).await.is_empty().then_some(())
        })
        .await;
    }
}

// --- The projector is down ---

async fn commands_dont_wait_for_a_projector_that_is_down(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let mut all = vec![said(&ada.client, &room, "before 0").await];
    let listener = Listener::start(&stack, &grace, &room);
    stack.kill(Service::Projector);

    // Once that is noticed, nobody waits for it any more: 250 ms would be waiting.
    let deadline = Instant::now() + RECOVERY;
    loop {
        let begun = Instant::now();
        all.push(said(&ada.client, &room, &format!("during {}", all.len())).await);
        if begun.elapsed() < Duration::from_millis(200) {
            break;
        }
        assert!(Instant::now() < deadline, "every answer waits");
    }
    let begun = Instant::now();
    for number in 0..40 {
        all.push(said(&ada.client, &room, &format!("quick {number}")).await);
    }
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(8), "{taken:?} for 40 posts");
    assert_eq!(listener.heard(all.len()).await, all, "pushing goes on");

    // Queries are stale, and say so to those who ask for more.
    let stale = ada.client.conversation(&room, "").await.ok();
    assert_eq!(stale["conversation"].as_array().unwrap().len(), 1);
    let last = all.last().unwrap().id.clone();
    let client = ada.client.with_header("hansard-position", &last);
    assert_unavailable(client.conversation(&room, "").await);

    stack.restart(Service::Projector).await;
    caught_up(&stack, &ada, &room, &all).await;
    all.push(said(&ada.client, &room, "after 0").await);
    caught_up(&stack, &ada, &room, &all).await;
}

// --- The log is down ---

async fn everything_waits_for_the_log(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let auditor = Auditor::new(&stack).await;
    let room = room_of(&ada, &[&grace]).await;
    let mut all = vec![said(&ada.client, &room, "before 0").await];
    let listener = Listener::start(&stack, &grace, &room);
    listener.heard(1).await;
    let events_before = auditor.events("").await.len();
    let mut seen = 0;

    stack.kill(Service::Nats);
    seen = listener.notice("degraded", seen).await;
    let body = json!({"messageText": "never 0"});
    let user = json!({"firstName": "No", "lastName": "Body", "type": "consumer"});
    let group = json!({"userIds": [grace.id, ada.id], "type": "consumer-to-support"});
    let message = &all[0].id;
    let commands = vec![
        (Method::POST, format!("/room/{room}/message"), Some(body)),
        (Method::POST, "/users".to_owned(), Some(user)),
        (Method::POST, "/room/initiate".to_owned(), Some(group)),
        (Method::PUT, format!("/room/{room}/mark-read"), None),
        (Method::DELETE, format!("/delete/message/{message}"), None),
        (Method::DELETE, format!("/delete/room/{room}"), None),
        (Method::DELETE, format!("/users/{}", grace.id), None),
    ];
    let commands = commands.into_iter();
    let commands = commands.map(|(method, path, body)| (&ada.client, method, path, body));
    all_are_unavailable(commands.collect()).await;
    for service in [Service::CommandApi, Service::GatewayWs, Service::Projector] {
        assert_eq!(
            unready(&stack, service).await,
            ["log", "keys"],
            "{service:?}"
        );
    }
    if stack.options().layout == Layout::FourProcesses {
        assert_eq!(
            unready(&stack, Service::QueryApi).await,
            Vec::<String>::new()
        );
    }
    // Queries need no log.
    caught_up_without_log(&ada, &room, &all).await;
    assert_eq!(
        stack.client().users().await.ok()["users"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    stack.restart(Service::Nats).await;
    seen = listener.notice("restored", seen).await;
    // Clients that go on trying are heard by themselves.
    let writer = Writer::start(&ada.client, &room, "after");
    writer.go_on(5).await;
    all.extend(writer.stop().await);
    caught_up(&stack, &ada, &room, &all).await;
    assert_eq!(listener.heard(all.len()).await, all);
    let events = auditor.events("").await;
    assert_eq!(
        events.len() - events_before,
        all.len() - 1,
        "what was refused has been recorded after all: {events:#?}"
    );

    // There, but without a word. Now a refusal can't promise that nothing was recorded; the key can.
    stack.signal(Service::Nats, Signal::SIGSTOP);
    let keys: Vec<String> = (0..5).map(|_| Uuid::new_v4().to_string()).collect();
    let send = async |key: &String, number: usize| {
        let client = ada.client.with_header("idempotency-key", key);
        client.post(&room, &format!("unsure-{number} 0")).await
    };
    let begun = Instant::now();
    let answers = join_all(
        keys.iter()
            .enumerate()
            .map(|(number, key)| send(key, number)),
    )
    .await;
    answers.into_iter().for_each(assert_unavailable);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    caught_up_without_log(&ada, &room, &all).await;
    stack.signal(Service::Nats, Signal::SIGCONT);
    let mut unsure = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let id = eventually("commands work again", RECOVERY, || async {
            let answer = send(key, number).await;
            (answer.status == 200).then(|| answer.json["post"]["postId"].clone())
        })
        .await;
        unsure.push(vec![Said {
            id: id.as_str().unwrap().to_owned(),
            text: format!("unsure-{number} 0"),
        }]);
    }
    // Those that were recorded during the silence come in any order.
    let mut late: Vec<Said> = unsure.iter().flatten().cloned().collect();
    late.sort();
    all.extend(late);
    let heard = listener.heard(all.len()).await;
    assert_eq!(heard, all);
    caught_up(&stack, &ada, &room, &all).await;
    assert!(seen <= listener.notices().len());
    assert!(
        listener
            .notices()
            .iter()
            .all(|notice| !notice.starts_with("closed")),
        "the socket was closed: {:?}",
        listener.notices()
    );
}

async fn caught_up_without_log(reader: &Person, room: &str, all: &[Said]) {
    assert_eq!(read_all(&reader.client, room).await, all);
}

// --- Anything is killed, anything is stopped, at any time ---

async fn nothing_acknowledged_is_lost(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let listener = Listener::start(&stack, &grace, &room);
    let writers: Vec<Writer> = ["one", "two", "three", "four"]
        .iter()
        .map(|name| Writer::start(&ada.client, &room, name))
        .collect();

    let services = stack.services();
    for service in &services {
        join_all(writers.iter().map(|writer| writer.go_on(5))).await;
        stack.kill(*service);
        stack.restart(*service).await;
    }
    // All at once, as when the power fails.
    join_all(writers.iter().map(|writer| writer.go_on(5))).await;
    for service in &services {
        stack.kill(*service);
    }
    for service in &services {
        stack.spawn(*service).await;
    }
    for service in &services {
        stack.ready(*service).await;
    }
    // Politely.
    for service in &services {
        if matches!(service, Service::Nats | Service::Mongod | Service::Edge) {
            continue;
        }
        join_all(writers.iter().map(|writer| writer.go_on(5))).await;
        let closed = listener.notices().len();
        let status = stack.terminate(*service).await;
        assert_eq!(status.code(), Some(0), "{service:?}");
        let has_sockets = *service == Service::GatewayWs || services_are_one(&stack);
        if has_sockets {
            listener.notice("closed 1001", closed).await;
        }
        stack.restart(*service).await;
    }
    join_all(writers.iter().map(|writer| writer.go_on(5))).await;

    let acknowledged = join_all(writers.into_iter().map(Writer::stop)).await;
    let last = acknowledged
        .iter()
        .flatten()
        .map(|said| &said.id)
        .max()
        .unwrap();
    let reader = grace.client.with_header("hansard-position", last);
    eventually("the projection has caught up", RECOVERY, || async {
        let answer = reader.conversation(&room, "limit=1").await;
        (answer.status == 200).then_some(())
    })
    .await;
    let all = read_all(&reader, &room).await;
    assert_kept(&all, &acknowledged);
    assert_eq!(listener.heard(all.len()).await, all);
    let auditor = Auditor::new(&stack).await;
    let recorded = auditor.events(&format!("room={room}")).await;
    let posted = recorded
        .iter()
        .filter(|it| it["event"]["type"] == "message.posted");
    let posted: Vec<&Value> = posted.map(|it| &it["position"]).collect();
    let ids: Vec<&String> = all.iter().map(|said| &said.id).collect();
    assert_eq!(posted, ids);
}

fn services_are_one(stack: &Stack) -> bool {
    stack.options().layout == Layout::OneProcess
}

// --- Starting ---

async fn services_wait_for_what_they_need(mut stack: Stack) {
    let services = stack.services();
    let own = services
        .iter()
        .copied()
        .filter(|it| !matches!(it, Service::Nats | Service::Mongod | Service::Edge));
    let own: Vec<Service> = own.collect();
    for service in &own {
        stack.spawn(*service).await;
    }
    for service in &own {
        let wanted = "waiting for the event log at nats://";
        eventually(
            &format!("{service:?} says what it waits for"),
            RECOVERY,
            || {
                let said = stack.output(*service).contains(wanted);
                std::future::ready(said.then_some(()))
            },
        )
        .await;
        assert!(stack.runs(*service), "{service:?}");
    }
    stack.restart(Service::Nats).await;
    if stack.has(Service::Edge) {
        stack.spawn(Service::Edge).await;
    }
    // Without read models: whoever needs none is at work.
    eventually("commands are taken", RECOVERY, || async {
        let user = json!({"firstName": "Joan", "lastName": "Clarke", "type": "consumer"});
        let answer = stack
            .client()
            .try_send(Method::POST, "/users", Some(user))
            .await;
        answer.ok().filter(|it| it.status == 200)
    })
    .await;
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let listener = Listener::start(&stack, &grace, &room);
    let all = vec![said(&ada.client, &room, "before the read models").await];
    assert_eq!(listener.heard(1).await, all);
    assert_unavailable(ada.client.conversation(&room, "").await);
    eventually("the projector says what it waits for", RECOVERY, || {
        let said = stack
            .output(Service::Projector)
            .contains("waiting for the read models");
        std::future::ready(said.then_some(()))
    })
    .await;

    stack.restart(Service::Mongod).await;
    for service in &own {
        stack.ready(*service).await;
    }
    caught_up(&stack, &ada, &room, &all).await;
    for service in &own {
        assert!(
            stack.output(*service).contains("is there after"),
            "{service:?} says when it is there"
        );
    }
}

/// Runs a program to its end; what it wrote to standard error, if it failed.
fn failure(command: &mut Command) -> String {
    let begun = Instant::now();
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(begun.elapsed() < PATIENCE);
    assert!(!status.success(), "it ended well");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn an_unreachable_server_is_given_up_with_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = Port::reserve().unwrap();
    let listen = Port::reserve().unwrap();
    let log = format!("nats://{}", nowhere.address());
    let read_models = format!("mongodb://{}/hansard", nowhere.address());
    let start = |name: &str, settings: [&str; 2]| {
        let mut command = service_command(name);
        if name == "hansard" {
            command.arg("serve");
        }
        command.arg("--data-dir").arg(directory.path());
        command.args([
            "--listen",
            &listen.address(),
            "--startup-timeout-seconds",
            "1",
        ]);
        failure(command.args(settings))
    };
    // The others work without read models.
    let needed = [
        ("hansard", ["--log", log.as_str()], "the event log"),
        ("command-api", ["--log", &log], "the event log"),
        ("projector", ["--log", &log], "the event log"),
        ("gateway-ws", ["--log", &log], "the event log"),
        (
            "hansard",
            ["--read-models", &read_models],
            "the read models",
        ),
        (
            "projector",
            ["--read-models", &read_models],
            "the read models",
        ),
    ];
    for (name, settings, what) in needed {
        let told = start(name, settings);
        let sentence = told.lines().last().unwrap_or_default();
        let expected = format!("{name}: can't reach {what} at ");
        assert!(
            sentence.starts_with(&expected),
            "{name} {settings:?}: {told}"
        );
        assert!(sentence.contains(&nowhere.address()), "{sentence}");
        assert!(sentence.contains("within 1 s"), "{sentence}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

// --- Another log ---

async fn another_log_is_not_mixed_with_the_first(mut stack: Stack) {
    stack.leave_unverified("in the end the log is another one");
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let first = said(&ada.client, &room, "in both").await;
    caught_up(&stack, &ada, &room, std::slice::from_ref(&first)).await;
    let own: Vec<Service> = stack.services();
    let own: Vec<Service> = own
        .into_iter()
        .filter(|it| !matches!(it, Service::Mongod | Service::Edge))
        .collect();

    // A copy as an operator might keep and restore: made while nothing runs.
    stop(&mut stack, &own).await;
    let log = stack.log_directory();
    let copy = log.with_extension("copy");
    keep(&log, &copy, &stack);
    start(&mut stack, &own).await;
    for number in 0..5 {
        said(&ada.client, &room, &format!("lost {number}")).await;
    }
    let last = said(&ada.client, &room, "lost at last").await;
    let client = ada.client.with_header("hansard-position", &last.id);
    assert_eq!(
        client.conversation(&room, "").await.ok()["conversation"]
            .as_array()
            .unwrap()
            .len(),
        7
    );

    stop(&mut stack, &own).await;
    keep(&copy, &log, &stack);
    assert_projector_stops(&mut stack, &own, "it has lost its tail").await;

    stop(&mut stack, &own).await;
    std::fs::remove_dir_all(&copy).unwrap();
    std::fs::create_dir(&copy).unwrap();
    keep(&copy, &log, &stack);
    assert_projector_stops(
        &mut stack,
        &own,
        "the log is not the one that the read models were projected from",
    )
    .await;

    if stack.has(Service::Edge) {
        // The read models are as they were, for those who ask.
        let kept = eventually("queries are answered", RECOVERY, || async {
            let answer = ada.client.conversation(&room, "").await;
            (answer.status == 200).then_some(answer.json)
        })
        .await;
        assert_eq!(kept["conversation"].as_array().unwrap().len(), 7, "{kept}");
    }
}

async fn stop(stack: &mut Stack, services: &[Service]) {
    for service in services.iter().rev() {
        if stack.runs(*service) {
            let status = stack.terminate(*service).await;
            assert!(
                *service == Service::Nats || status.success(),
                "{service:?}: {status}"
            );
        }
    }
}

async fn start(stack: &mut Stack, services: &[Service]) {
    for service in services {
        stack.spawn(*service).await;
        if *service == Service::Nats {
            stack.ready(*service).await;
        }
    }
    for service in services {
        stack.ready(*service).await;
    }
}

/// Makes the log in `to` the one in `from`.
fn keep(from: &Path, to: &Path, stack: &Stack) {
    std::fs::create_dir_all(to).unwrap();
    if stack.options().backend == Backend::Distributed {
        std::fs::remove_dir_all(to).unwrap();
        let status = Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    // Beside the log are the read models, which stay.
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("log.db{suffix}");
        let _ = std::fs::remove_file(to.join(&name));
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

async fn assert_projector_stops(stack: &mut Stack, services: &[Service], sentence: &str) {
    for service in services {
        stack.spawn(*service).await;
    }
    let status = stack.ended(Service::Projector).await;
    assert!(!status.success(), "{status}");
    let output = stack.output(Service::Projector);
    let told = output.lines().last().unwrap_or_default();
    assert!(told.contains(sentence), "{told}");
    // The others serve all the same. (And a process that has hardly begun can't be told to stop.) Only
    // query-api may call itself unready by now, since nobody projects.
    for service in services {
        if *service != Service::QueryApi && stack.runs(*service) {
            stack.ready(*service).await;
        }
    }
}

/// The log is replaced while everything runs.
async fn a_log_replaced_under_everybodys_feet_is_noticed(mut stack: Stack) {
    stack.leave_unverified("in the end the log is another one");
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    said(&ada.client, &room, "in the first log").await;
    let mut socket = stack.socket(&grace).await;
    socket.subscribe(&room, None).await;
    let position = grace.client.changes("").await.ok()["position"].clone();
    let query = format!("after={}&wait=55", position.as_str().unwrap());
    let client = grace.client.clone();
    let waiting = tokio::spawn(async move { client.changes(&query).await });
    let gateway = stack.direct(Service::GatewayWs);
    eventually("a request that waits", RECOVERY, async || {
        let figures = gateway.get("/metrics").await.text;
        figures
            .contains("\nhansard_waiting_requests 1\n")
            .then_some(())
    })
    .await;

    stack.kill(Service::Nats);
    std::fs::remove_dir_all(stack.log_directory()).unwrap();
    stack.restart(Service::Nats).await;
    // There is none now, and nobody makes a new one who was there before.
    let answer = ada.client.post(&room, "nowhere to go").await;
    assert_unavailable(answer);

    // Whoever starts now does.
    let new_log = stack.open_log().await;
    let status = stack.ended(Service::Projector).await;
    assert!(!status.success(), "{status}");
    let output = stack.output(Service::Projector);
    let told = output.lines().last().unwrap_or_default();
    assert!(
        told.contains("the log is not the one that the read models were projected from"),
        "{told}"
    );
    let code = socket.closed().await;
    // One process ends as a whole.
    assert!(matches!(code, Some(1012 | 1001)), "{code:?}");
    if !services_are_one(&stack) {
        assert_eq!(code, Some(1012));
        let answer = waiting.await.unwrap();
        assert_eq!(answer.expect(409)["code"], "start-over");
        // What is known from the first log decides nothing about the second.
        let answer = ada.client.post(&room, "not here either").await;
        assert_eq!(answer.expect(401)["success"], false);
    }
    assert_eq!(
        new_log.tail().await.unwrap().last.get(),
        0,
        "nothing was mixed into it"
    );
}

/// With a mongod of its own where there is one, so that it can be killed.
fn own_servers(backend: Backend, layout: Layout) -> Options {
    let mut options = Options::new(backend, layout, Auth::Open);
    options.own_mongod = backend == Backend::Distributed;
    options
}

macro_rules! on {
    ($module:ident: $backend:ident $layout:ident; $($scenario:ident),+ $(,)?) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    use hansard_tests::{Backend, Layout, run_with};
                    let options = super::own_servers(Backend::$backend, Layout::$layout);
                    run_with(options, super::$scenario);
                }
            )+
        }
    };
}

on!(
    embedded_one_process: Embedded OneProcess;
    nothing_acknowledged_is_lost,
    another_log_is_not_mixed_with_the_first,
);
on!(
    embedded_four_processes: Embedded FourProcesses;
    nothing_acknowledged_is_lost,
    commands_dont_wait_for_a_projector_that_is_down,
    another_log_is_not_mixed_with_the_first,
);
on!(
    distributed_one_process: Distributed OneProcess;
    nothing_acknowledged_is_lost,
    commands_and_pushes_need_no_read_models,
    everything_waits_for_the_log,
    another_log_is_not_mixed_with_the_first,
    a_log_replaced_under_everybodys_feet_is_noticed,
);
on!(
    distributed_four_processes: Distributed FourProcesses;
    nothing_acknowledged_is_lost,
    commands_and_pushes_need_no_read_models,
    commands_dont_wait_for_a_projector_that_is_down,
    everything_waits_for_the_log,
    another_log_is_not_mixed_with_the_first,
    a_log_replaced_under_everybodys_feet_is_noticed,
);

#[test]
fn one_process_waits_for_what_it_needs() {
    let options = own_servers(Backend::Distributed, Layout::OneProcess);
    run_prepared(options, services_wait_for_what_they_need);
}

#[test]
fn four_processes_wait_for_what_they_need() {
    let options = own_servers(Backend::Distributed, Layout::FourProcesses);
    run_prepared(options, services_wait_for_what_they_need);
}
