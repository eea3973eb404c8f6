//! What is believed of a server of a cluster that may have been overtaken: a nats-server without JetStream, and a
//! client that answers in its place.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::time::Duration;

use event_log::testing::nats_server_program;
use event_log::{LogError, LogUrl, NatsConnection};
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use xtask::port::Port;
use xtask::process::Supervised;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A nats-server, and a connection to it on which a cluster is asked.
struct Setting {
    asking: NatsConnection,
    answering: async_nats::Client,
    /// All that is asked. One subscription for as long as the setting lives: what is sent to one that was just
    /// given up is answered by nobody.
    requests: async_nats::Subscriber,
    _server: Supervised,
    _directory: TempDir,
    _port: Port,
}

impl Setting {
    /// `None` when tests that need servers are switched off.
    async fn new() -> Option<Self> {
        let program = nats_server_program()?;
        let directory = tempfile::tempdir().unwrap();
        let port = Port::reserve().unwrap();
        let mut command = Command::new(program);
        command.args(["--addr", "127.0.0.1", "--port"]);
        command.arg(port.number().to_string());
        let server = Supervised::start(command, &directory.path().join("output")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let answering = loop {
            match async_nats::connect(port.address()).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}: {}", server.output()),
            }
            sleep(Duration::from_millis(10)).await;
        };
        let url: LogUrl = format!("nats://{}/FAR", port.address()).parse().unwrap();
        let LogUrl::Nats(address) = url else {
            panic!("{url} is NATS's");
        };
        let requests = answering.subscribe("$JS.API.>").await.unwrap();
        answering.flush().await.unwrap();
        Some(Self {
            requests,
            asking: NatsConnection::open(&address).await.unwrap(),
            answering,
            _server: server,
            _directory: directory,
            _port: port,
        })
    }

    /// What comes, in so long, of a message get that is answered so, in turn; the last answer again and again.
    async fn get(
        &mut self,
        answers: &[(&str, Value)],
        patience: Duration,
    ) -> Result<Option<u64>, LogError> {
        let (answering, requests) = (&self.answering, &mut self.requests);
        let answer = async {
            let mut left = answers.iter();
            let mut next = left.next().unwrap();
            while let Some(request) = requests.next().await {
                assert_eq!(request.subject.as_str(), format!("$JS.API.{}.FAR", next.0));
                let reply = request.reply.unwrap();
                let payload = next.1.to_string().into();
                answering.publish(reply, payload).await.unwrap();
                next = left.next().unwrap_or(next);
            }
            panic!("the server went away");
        };
        let query = json!({ "last_by_subj": "chat.far" });
        let deadline = Instant::now() + patience;
        tokio::select! {
            found = self.asking.message("FAR", true, &query, deadline) => {
                found.map(|found| found.map(|message| message.sequence))
            }
            () = answer => unreachable!(),
        }
    }
}

fn nothing() -> (&'static str, Value) {
    let error = json!({ "code": 404, "err_code": 10_037, "description": "no message found" });
    ("STREAM.MSG.GET", json!({ "error": error }))
}

fn message(sequence: u64) -> (&'static str, Value) {
    let message = json!({
        "subject": "chat.far", "seq": sequence, "data": "aGVsbG8=", "time": "2026-11-29T12:00:00Z",
    });
    ("STREAM.MSG.GET", json!({ "message": message }))
}

/// A leader that has heard the others so many seconds ago.
fn leader(seconds: u64) -> (&'static str, Value) {
    let heard =
        |name| json!({ "name": name, "current": true, "active": seconds * 1_000_000_000 + 1 });
    let cluster = json!({ "leader": "a", "replicas": [heard("b"), heard("c")] });
    ("STREAM.INFO", json!({ "cluster": cluster }))
}

#[tokio::test]
async fn that_there_is_no_message_is_believed_of_a_certain_leader_only() {
    let Some(mut setting) = Setting::new().await else {
        return;
    };
    // What there is, is there, whoever says so.
    let found = setting.get(&[message(7)], PATIENCE).await;
    assert_eq!(found.unwrap(), Some(7));
    // A server that is cut off knows nothing of what the others have acknowledged meanwhile.
    let overtaken = [nothing(), leader(14), leader(14), leader(0), message(8)];
    let found = setting.get(&overtaken, PATIENCE).await;
    assert_eq!(found.unwrap(), Some(8));
    let certain = [nothing(), leader(0), nothing()];
    let found = setting.get(&certain, PATIENCE).await;
    assert_eq!(found.unwrap(), None);
    let cut_off = [nothing(), leader(14)];
    let error = setting.get(&cut_off, Duration::from_secs(1)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, LogError::Unavailable(_)), "{error}");
}
