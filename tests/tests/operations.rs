//! What those see who run Hansard: health, figures, log lines, ports and help.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use hansard_tests::{
    Auditor, Auth, Backend, Layout, Options, PROGRAMS, Service, Stack, TestClient, WsClient,
    eventually, room_of, service_command,
};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;
use xtask::port::Port;
use xtask::process::Supervised;

/// How long a figure or a log line may take to appear on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What must not appear in any log line.
#[derive(Debug)]
struct Secrets(Vec<String>);

impl Secrets {
    /// A text that nothing else contains.
    fn word(&mut self, what: &str) -> String {
        let word = format!("{what}-{}", Uuid::new_v4().simple());
        self.0.push(word.clone());
        word
    }

    /// A token's signature is enough to find it by, whole or in part.
    fn token(&mut self, token: &str) {
        let (_, signature) = token.rsplit_once('.').unwrap();
        self.0.push(signature.to_owned());
    }

    fn assert_absent(&self, text: &str, from: &str) {
        for line in text.lines() {
            for secret in &self.0 {
                assert!(!line.contains(secret), "{from} tells {secret}: {line}");
            }
        }
    }
}

/// Hansard's own processes; one for each, even where they are all the same.
fn own(stack: &Stack) -> Vec<Service> {
    let services = stack.services().into_iter();
    let own = services.filter(|it| !matches!(it, Service::Nats | Service::Mongod | Service::Edge));
    own.collect()
}

async fn operators_see_what_goes_on(stack: Stack) {
    let mut secrets = Secrets(Vec::new());
    let (first, last) = (secrets.word("First"), secrets.word("Last"));
    let created = stack
        .operator()
        .create_user(&first, &last, "consumer")
        .await;
    let ada = created.ok()["user"]["_id"].as_str().unwrap().to_owned();
    let token = stack.token(&ada, "consumer");
    secrets.token(&token);
    let client = stack.client().with_token(&token);
    let grace = stack.person("Grace").await;
    secrets.token(&grace.token);
    let room = client
        .initiate(&[&grace.id], "consumer-to-consumer")
        .await
        .ok();
    let room = room["chatRoom"]["chatRoomId"].as_str().unwrap().to_owned();

    let mut sockets = vec![stack.socket(&grace).await, stack.socket_with(&token).await];
    for socket in &mut sockets {
        socket.subscribe(&room, None).await;
    }
    let mut messages = Vec::new();
    for number in 0..10 {
        let text = secrets.word(&format!("text{number}"));
        let key = format!("key-{number}");
        let posted = client
            .with_header("idempotency-key", &key)
            .post(&room, &text)
            .await
            .ok();
        messages.push(posted["post"]["postId"].as_str().unwrap().to_owned());
    }
    for socket in &mut sockets {
        for _ in 0..10 {
            socket.next_of_type("new message").await;
        }
    }
    let _ = client.conversation(&room, "limit=5").await.ok();
    let _ = client.conversations("").await.ok();
    let _ = grace.client.mark_read_up_to(&room, &messages[3]).await.ok();
    let _ = client.delete_message(&messages[0]).await.ok();

    requests_are_named(&stack, &client, &room).await;
    requests_that_fail(&stack, &client, &room, &mut secrets).await;
    sockets_that_fail(&stack, &token, &mut secrets).await;
    assert!(Auditor::new(&stack).await.events("").await.len() > 10);

    health_is_reported(&stack).await;
    figures_are_there(&stack, [&ada, &room], &secrets).await;
    drop(sockets);
    let gateway = stack.direct(Service::GatewayWs);
    eventually("no socket is left", SOON, || async {
        (figure(&metrics(&gateway).await, "hansard_sockets", &[]) == Some(0.0)).then_some(())
    })
    .await;

    for service in stack.services() {
        let name = format!("{service:?}");
        secrets.assert_absent(&stack.output(service), &name);
    }
    for service in own(&stack) {
        lines_are_structured(&stack.output(service));
    }
}

// --- Log lines ---

async fn requests_are_named(stack: &Stack, client: &TestClient, room: &str) {
    let id = format!("trace:{}/1+2=3@x.y_z-", Uuid::new_v4());
    let named = client.with_header("x-request-id", &id);
    let command = named.post(room, "named").await;
    assert_eq!(command.header("x-request-id"), id);
    let query = named.get("/room").await;
    assert_eq!(query.header("x-request-id"), id);
    let nowhere = named.get("/nowhere").await;
    assert_eq!(nowhere.header("x-request-id"), id);
    assert_eq!(nowhere.status, 404);
    for (service, route) in [
        (Service::CommandApi, "/room/{roomId}/message"),
        (Service::QueryApi, "/room"),
        (Service::QueryApi, "unmatched"),
    ] {
        eventually("the request's log line", SOON, || {
            let output = stack.output(service);
            let mut lines = output
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let found = lines.find(|line: &Value| {
                line["message"] == "answered"
                    && line["span"]["id"] == id.as_str()
                    && line["span"]["route"] == route
            });
            std::future::ready(found.map(|line| {
                assert!(line["status"].is_u64(), "{line}");
                assert!(line["ms"].is_number(), "{line}");
                assert!(line["span"]["method"].is_string(), "{line}");
            }))
        })
        .await;
    }
    // Others get one, each its own. What is not fit for a log line is not taken.
    let too_long = "x".repeat(200);
    let mut ids = BTreeSet::new();
    for odd in [
        None,
        None,
        Some("two words"),
        Some("a\"b"),
        Some(&too_long),
        Some("{}"),
    ] {
        let client = match odd {
            Some(odd) => stack
                .direct(Service::QueryApi)
                .with_header("x-request-id", odd),
            None => stack.client(),
        };
        let answer = client.get("/health/live").await;
        let id = answer.header("x-request-id").to_owned();
        assert!(!id.is_empty() && Some(id.as_str()) != odd);
        assert!(ids.insert(id));
    }
}

fn lines_are_structured(output: &str) {
    let mut lines = 0;
    for line in output.lines() {
        // For whoever started it by hand; see Context::announce.
        if line.contains(" listens on http://") && !line.starts_with('{') {
            continue;
        }
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        lines += 1;
    }
    assert!(lines > 0);
}

async fn requests_that_fail(stack: &Stack, client: &TestClient, room: &str, secrets: &mut Secrets) {
    let path = format!("/room/{room}/message");
    let key = client.with_header("idempotency-key", "key-1");
    let _ = key.post(room, &secrets.word("another")).await.expect(422);
    let long = format!("{}{}", secrets.word("long"), "x".repeat(70_000));
    let _ = client.post(room, &long).await.expect(400);
    let huge = format!(
        "{{\"messageText\":\"{}{}\"}}",
        secrets.word("huge"),
        "x".repeat(3 << 20)
    );
    let _ = client
        .send_bytes(Method::POST, &path, "application/json", huge)
        .await
        .expect(413);
    for content_type in [
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ] {
        let broken = format!("{{\"messageText\":\"{}", secrets.word("broken"));
        let answer = client
            .send_bytes(Method::POST, &path, content_type, broken)
            .await;
        assert!(answer.status.is_client_error(), "{}", answer.text);
    }
    let wrong = json!({"firstName": {"x": secrets.word("wrong")}, "type": secrets.word("type")});
    let _ = stack
        .operator()
        .send(Method::POST, "/users", Some(wrong))
        .await
        .expect(400);
    let unknown = secrets.word("unknown");
    let _ = client
        .initiate(&[&unknown], "consumer-to-consumer")
        .await
        .expect(400);
    let foreign = stack.person(&secrets.word("Hedy")).await;
    secrets.token(&foreign.token);
    let _ = foreign
        .client
        .post(room, &secrets.word("foreign"))
        .await
        .expect(403);
    let bad = format!("{}{}", foreign.token, secrets.word("signature"));
    let _ = client.with_token(&bad).get("/room").await.expect(401);
    let _ = stack
        .client()
        .with_token(&secrets.word("token"))
        .get("/room")
        .await
        .expect(401);
    let query = format!("/room?token={0}&page={0}", secrets.word("query"));
    assert_eq!(
        stack.direct(Service::QueryApi).get(&query).await.status,
        401
    );
    let _ = stack.operator().delete_user(&foreign.id).await.ok();
    let _ = foreign
        .client
        .post(room, &secrets.word("deleted"))
        .await
        .expect(401);
}

async fn sockets_that_fail(stack: &Stack, token: &str, secrets: &mut Secrets) {
    let mut socket = stack.socket_with(token).await;
    for text in [
        secrets.word("no json"),
        json!({"type": secrets.word("type")}).to_string(),
        json!({"type": "subscribe", "room": secrets.word("room")}).to_string(),
        json!({"type": "auth", "text": secrets.word("text")}).to_string(),
    ] {
        socket.send_raw(Message::text(text)).await;
        assert_eq!(socket.next().await["type"], "error");
    }
    socket
        .send_raw(Message::binary(secrets.word("binary").into_bytes()))
        .await;
    assert_eq!(socket.next().await["type"], "error");
    let mut bad = WsClient::connect(&stack.ws_url(), None).await;
    bad.send(json!({"type": "auth", "token": secrets.word("token")}))
        .await;
    assert_eq!(bad.closed().await, Some(4001));
}

// --- Health and figures ---

async fn health_is_reported(stack: &Stack) {
    for service in own(stack) {
        let client = stack.direct(service);
        assert_eq!(client.get("/health/live").await.ok(), json!({"live": true}));
        let ready = client.get("/health/ready").await.ok();
        assert_eq!(ready["ready"], true);
        let checks = ready["checks"].as_object().unwrap();
        let names: Vec<&str> = checks.keys().map(String::as_str).collect();
        let expected: &[&str] = match (stack.options().layout, service) {
            (Layout::OneProcess, _) | (_, Service::Projector) => &[
                "deadLetters",
                "keys",
                "log",
                "projection",
                "readModels",
                "tree",
            ],
            (_, Service::QueryApi) => &["projection", "readModels"],
            (_, Service::GatewayWs) => &["keys", "log"],
            _ => {
                assert!(names.contains(&"log"), "{names:?}");
                continue;
            }
        };
        let names: BTreeSet<&str> = names.into_iter().collect();
        assert_eq!(names, expected.iter().copied().collect(), "{service:?}");
    }
    // Also through the edge, for whoever has no other way.
    assert_eq!(stack.client().get("/health/live").await.status, 200);
}

async fn metrics(client: &TestClient) -> String {
    let answer = client.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain"));
    assert_eq!(answer.status, 200);
    answer.text
}

/// The sum of a figure's samples that have these labels; `None` when there are none.
fn figure(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    let samples: Vec<f64> = metrics
        .lines()
        .filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && wanted.iter().all(|label| line.contains(label))
        })
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

async fn figures_are_there(stack: &Stack, ids: [&str; 2], secrets: &Secrets) {
    let posts = [
        ("method", "POST"),
        ("route", "/room/{roomId}/message"),
        ("status", "200"),
    ];
    let commands = metrics(&stack.direct(Service::CommandApi)).await;
    assert_eq!(
        figure(&commands, "hansard_http_requests_total", &posts),
        Some(11.0)
    );
    let refused = [("route", "/room/{roomId}/message"), ("status", "422")];
    assert_eq!(
        figure(&commands, "hansard_http_requests_total", &refused),
        Some(1.0)
    );
    let timed = figure(&commands, "hansard_http_request_seconds_count", &posts[..2]).unwrap();
    assert!(timed >= 12.0, "{timed}");
    let appended = figure(&commands, "hansard_append_seconds_count", &[]).unwrap();
    assert!(appended >= 15.0, "{appended}");
    let seconds = figure(&commands, "hansard_append_seconds_sum", &[]).unwrap();
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");

    let queries = metrics(&stack.direct(Service::QueryApi)).await;
    let pages = [
        ("method", "GET"),
        ("route", "/room/{roomId}"),
        ("status", "200"),
    ];
    assert_eq!(
        figure(&queries, "hansard_http_requests_total", &pages),
        Some(1.0)
    );
    let unmatched = [("route", "unmatched"), ("status", "404")];
    assert_eq!(
        figure(&queries, "hansard_http_requests_total", &unmatched),
        Some(1.0)
    );

    let projector = stack.direct(Service::Projector);
    let projection = eventually("the projection's figures", SOON, || async {
        let metrics = metrics(&projector).await;
        let settled = figure(&metrics, "hansard_projection_lag_events", &[]) == Some(0.0);
        settled.then_some(metrics)
    })
    .await;
    assert_eq!(
        figure(&projection, "hansard_projection_lag_seconds", &[]),
        Some(0.0)
    );
    assert!(figure(&projection, "hansard_projection_events_total", &[]).unwrap() >= 15.0);
    let visible = figure(&projection, "hansard_projection_visible_seconds_count", &[]).unwrap();
    assert!(visible >= 15.0, "{visible}");
    for stage in STAGES {
        let labels = [("stage", stage)];
        let batches = figure(
            &projection,
            "hansard_projection_batch_seconds_count",
            &labels,
        );
        assert!(batches.is_some_and(|it| it >= 1.0), "{stage}: {batches:?}");
    }
    assert_eq!(figure(&projection, "hansard_dead_letters", &[]), Some(0.0));

    let gateway = stack.direct(Service::GatewayWs);
    let pushes = eventually("only the two sockets are left", SOON, || async {
        let metrics = metrics(&gateway).await;
        (figure(&metrics, "hansard_sockets", &[]) == Some(2.0)).then_some(metrics)
    })
    .await;
    // Ten messages and what came after them, to each of two.
    assert!(figure(&pushes, "hansard_pushed_messages_total", &[]).unwrap() >= 20.0);

    for (metrics, from) in [
        (commands, "command-api"),
        (queries, "query-api"),
        (projection, "projector"),
        (pushes, "gateway-ws"),
    ] {
        secrets.assert_absent(&metrics, from);
        // A label for each room would cost memory for ever.
        for id in ids {
            assert!(
                !metrics.contains(id),
                "{from} has a figure for one room or user"
            );
        }
        for line in metrics
            .lines()
            .filter(|line| line.starts_with("# TYPE hansard_"))
        {
            let name = line.split(' ').nth(2).unwrap();
            assert!(
                metrics.contains(&format!("# HELP {name} ")),
                "{name} is not explained"
            );
        }
    }
}

// --- Freshness ---

/// What a lag may be due to.
const STAGES: [&str; 3] = ["log", "decode", "write"];

/// Waits until the projector shows a lag for this reason alone.
async fn lag_is_due_to(stack: &Stack, cause: &str) {
    let projector = stack.direct(Service::Projector);
    eventually(&format!("a lag due to {cause}"), SOON, || async {
        let metrics = metrics(&projector).await;
        let lag = |cause: &str| {
            figure(
                &metrics,
                "hansard_projection_lag_seconds",
                &[("cause", cause)],
            )
        };
        let mut stages = STAGES.iter();
        let due = stages.all(|stage| lag(stage).is_some_and(|it| (it > 0.0) == (*stage == cause)));
        due.then_some(())
    })
    .await;
}

async fn no_lag_is_left(stack: &Stack) {
    let projector = stack.direct(Service::Projector);
    eventually("no lag is left", SOON, || async {
        let metrics = metrics(&projector).await;
        let lag = figure(&metrics, "hansard_projection_lag_seconds", &[]);
        (lag == Some(0.0)).then_some(())
    })
    .await;
}

async fn a_lag_names_its_cause(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    no_lag_is_left(&stack).await;

    stack.signal(Service::Mongod, Signal::SIGSTOP);
    let _ = ada
        .client
        .post(&room, "durable, and not to be seen yet")
        .await
        .ok();
    lag_is_due_to(&stack, "write").await;
    stack.signal(Service::Mongod, Signal::SIGCONT);
    no_lag_is_left(&stack).await;

    stack.signal(Service::Nats, Signal::SIGSTOP);
    lag_is_due_to(&stack, "log").await;
    stack.signal(Service::Nats, Signal::SIGCONT);
    no_lag_is_left(&stack).await;
}

async fn query_api_is_ready(stack: &Stack) {
    eventually("query-api is ready", SOON, || async {
        let ready = stack.direct(Service::QueryApi).get("/health/ready").await;
        (ready.status == 200).then_some(())
    })
    .await;
}

async fn queries_past_the_largest_lag_are_served_and_not_ready(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let seen = ada.client.post(&room, "seen").await.ok();
    let reader = grace
        .client
        .with_header("hansard-position", seen["post"]["postId"].as_str().unwrap());
    eventually("the message can be read", SOON, || async {
        (reader.conversation(&room, "").await.status == 200).then_some(())
    })
    .await;
    query_api_is_ready(&stack).await;

    stack.signal(Service::Projector, Signal::SIGSTOP);
    let _ = ada.client.post(&room, "not to be seen yet").await.ok();
    let said = eventually("query-api is not ready any more", SOON, || async {
        let ready = stack.direct(Service::QueryApi).get("/health/ready").await;
        (ready.status == 503).then_some(ready.json)
    })
    .await;
    assert_eq!(said["checks"]["readModels"]["ok"], true, "{said}");
    let reason = said["checks"]["projection"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("no projector is at work, and what is read may be "),
        "{reason}"
    );
    // Stale, and still served, through the edge as well.
    let stale = grace.client.conversation(&room, "").await.ok();
    assert_eq!(
        stale["conversation"].as_array().unwrap().len(),
        1,
        "{stale}"
    );

    stack.signal(Service::Projector, Signal::SIGCONT);
    query_api_is_ready(&stack).await;
    no_lag_is_left(&stack).await;
}

/// A lag that a test can wait for. On a busy machine a projector may be that late by itself.
fn impatient(backend: Backend) -> Options {
    let mut options = Options::new(backend, Layout::FourProcesses, Auth::Open);
    options.flags = ["--max-lag-seconds", "2"].map(str::to_owned).into();
    options
}

#[test]
fn queries_past_the_largest_lag_are_served_and_not_ready_embedded() {
    let scenario = queries_past_the_largest_lag_are_served_and_not_ready;
    hansard_tests::run_with(impatient(Backend::Embedded), scenario);
}

#[test]
fn queries_past_the_largest_lag_are_served_and_not_ready_distributed() {
    let scenario = queries_past_the_largest_lag_are_served_and_not_ready;
    hansard_tests::run_with(impatient(Backend::Distributed), scenario);
}

#[test]
fn a_lag_names_its_cause_in_one_process() {
    let mut options = Options::new(Backend::Distributed, Layout::OneProcess, Auth::Open);
    options.own_mongod = true;
    hansard_tests::run_with(options, a_lag_names_its_cause);
}

#[test]
fn a_lag_names_its_cause_in_four_processes() {
    let mut options = Options::new(Backend::Distributed, Layout::FourProcesses, Auth::Open);
    options.own_mongod = true;
    hansard_tests::run_with(options, a_lag_names_its_cause);
}

/// Tokens are needed, so that there are some to be found; and much is logged.
fn talkative(backend: Backend, layout: Layout) -> Options {
    let mut options = Options::new(backend, layout, Auth::Token);
    let flags = ["--log-format", "json", "--log-level", "debug"];
    options.flags.extend(flags.map(str::to_owned));
    options
}

#[test]
fn operators_see_what_goes_on_in_one_embedded_process() {
    let options = talkative(Backend::Embedded, Layout::OneProcess);
    hansard_tests::run_with(options, operators_see_what_goes_on);
}

#[test]
fn operators_see_what_goes_on_in_four_embedded_processes() {
    let options = talkative(Backend::Embedded, Layout::FourProcesses);
    hansard_tests::run_with(options, operators_see_what_goes_on);
}

#[test]
fn operators_see_what_goes_on_in_one_process() {
    let options = talkative(Backend::Distributed, Layout::OneProcess);
    hansard_tests::run_with(options, operators_see_what_goes_on);
}

#[test]
fn operators_see_what_goes_on_in_four_processes() {
    let options = talkative(Backend::Distributed, Layout::FourProcesses);
    hansard_tests::run_with(options, operators_see_what_goes_on);
}

// --- The command line ---

#[test]
fn every_program_explains_itself() {
    for name in PROGRAMS {
        let output = service_command(name).arg("--help").output().unwrap();
        assert!(output.status.success(), "{name}");
        let help = String::from_utf8(output.stdout).unwrap();
        let first = help.lines().next().unwrap();
        assert!(
            first.len() > 20 && !first.starts_with("Usage"),
            "{name}: {first}"
        );
        for word in [
            "--listen",
            "--log",
            "--read-models",
            "HANSARD_LOG_LEVEL",
            "PORT",
        ] {
            assert!(help.contains(word), "{name} --help says nothing of {word}");
        }
        let output = service_command(name).arg("--version").output().unwrap();
        let version = String::from_utf8(output.stdout).unwrap();
        assert!(version.starts_with(&format!("{name} ")), "{version}");

        let output = service_command(name).arg("--listne").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .contains("--listne"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_port_comes_from_the_environment() {
    for name in PROGRAMS {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::reserve().unwrap();
        let mut command = service_command(name);
        command.env("PORT", port.number().to_string());
        command.arg("--data-dir").arg(directory.path().join("data"));
        let output = directory.path().join("output");
        let mut process = Supervised::start(command, &output).unwrap();
        let client = TestClient::new(&format!("http://{}", port.address()));
        eventually(&format!("{name} listens on PORT"), SOON, || {
            let (ended, output, client) = (process.ended(), process.output(), client.clone());
            async move {
                assert_eq!(ended, None, "{name}: {output}");
                client
                    .try_send(Method::GET, "/health/live", None)
                    .await
                    .ok()
            }
        })
        .await;
        assert!(
            process
                .output()
                .contains(&format!("{name} listens on http://{}", port.address()))
        );
    }
}
