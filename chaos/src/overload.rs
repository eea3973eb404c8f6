//! Far more is asked of Hansard than it can do. What is let in has to go on at its pace, what is too much has to
//! be told so quickly, memory must stay bounded, and all that was accepted has to be there afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hansard_tests::{Auth, Backend, Layout, Options, Person, Service, Stack, room_of, run_with};
use reqwest::{Client, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use uuid::Uuid;
use xtask::cores::Cores;

use crate::evidence::Logged;
use crate::record;
use crate::sockets::storm;

/// How many clients that wait for each answer find out what can be done, and for how long.
const CLIENTS: usize = 64;
const WARMING_UP: Duration = Duration::from_secs(3);
const MEASURING: Duration = Duration::from_secs(10);
/// How often requests are sent while far too many are.
const TICK: Duration = Duration::from_millis(5);
/// No more requests are under way at a time: this process may not have more sockets.
const MOST_UNDER_WAY: usize = 10_000;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long everything may take to be as before.
const RECOVERY: Duration = Duration::from_secs(30);
/// In how many rooms messages are posted.
const ROOMS: usize = 20;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// On which log and read models.
    pub backend: Backend,
    /// How long too much is asked for.
    pub length: Duration,
    /// How many times as much as can be done.
    pub factor: u32,
    /// How many sockets connect at once.
    pub sockets: usize,
}

/// Runs on one process; gives what was violated, and prints what was measured.
///
/// # Errors
/// The harness can't do its work.
///
/// # Panics
/// As [`run_with`].
pub fn run(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let mut options = Options::new(settings.backend, Layout::OneProcess, Auth::Token);
    options.own_mongod = settings.backend == Backend::Distributed;
    let mut outcome = None;
    // Else those who ask for too much would take the time in which it could be done.
    let cores = Cores::split()?;
    cores.on_server_core(|| {
        run_with(options, async |mut stack: Stack| {
            outcome = Some(match cores.gather_generator() {
                Ok(()) => overload(settings, &mut stack).await,
                Err(error) => Err(error),
            });
        });
        Ok(())
    })?;
    outcome.unwrap_or_else(|| Ok(Vec::new()))
}

async fn overload(settings: &Settings, stack: &mut Stack) -> anyhow::Result<Vec<String>> {
    println!("## {:?}, one process\n", settings.backend);
    let town = Arc::new(Town::found(stack).await?);
    let capacity = closed(&town, WARMING_UP, MEASURING).await?;
    let before = stack.peak_memory(Service::CommandApi).unwrap_or_default();
    println!(
        "With {CLIENTS} clients, each waiting for its answer: {:.0} posts/s; memory so far {} MB",
        capacity.accepted() as f64 / MEASURING.as_secs_f64(),
        before / 1_000_000
    );
    let rate = capacity.accepted() as f64 / MEASURING.as_secs_f64() * f64::from(settings.factor);
    let flood = open(&town, rate, settings.length).await;
    let peak = stack.peak_memory(Service::CommandApi).unwrap_or_default();
    let recovered = Instant::now();
    timeout(RECOVERY, async {
        while post(&town, 0, Uuid::new_v4()).await.end != End::Accepted {
            sleep(TICK).await;
        }
    })
    .await
    .context("nothing is accepted any more")?;
    println!(
        "\nWith {rate:.0} posts/s asked for, {} times as many, for {} s:\n\n{flood}\n\
         Memory at most {} MB; a post was accepted {} ms after the end\n",
        settings.factor,
        settings.length.as_secs(),
        peak / 1_000_000,
        recovered.elapsed().as_millis()
    );

    let mut violations = Vec::new();
    let seconds = settings.length.as_secs_f64();
    let (alone, beside) = (
        capacity.accepted() as f64 / MEASURING.as_secs_f64(),
        flood.accepted() as f64 / seconds,
    );
    if beside < alone / 2.0 {
        violations.push(format!(
            "throughput collapsed from {alone:.0} to {beside:.0} posts/s"
        ));
    }
    let log = record::read(stack).await?;
    violations.extend(compare(&capacity, &log));
    violations.extend(compare(&flood, &log));
    // With it go its idle connections: this process may not have more sockets.
    drop(town);
    violations.extend(storm(stack, settings.sockets).await?);
    for violation in &violations {
        println!("VIOLATION: {violation}");
    }
    Ok(violations)
}

/// Who posts, and where.
struct Town {
    client: Client,
    rooms: Vec<(String, Person)>,
}

impl Town {
    async fn found(stack: &Stack) -> anyhow::Result<Self> {
        let address = stack.address(Service::CommandApi);
        let mut rooms = Vec::new();
        for number in 0..ROOMS {
            let author = stack.person(&format!("Author {number}")).await;
            let reader = stack.person(&format!("Reader {number}")).await;
            let room = room_of(&author, &[&reader]).await;
            rooms.push((format!("http://{address}/room/{room}/message"), author));
        }
        let client = Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .context("no client can be made")?;
        Ok(Self { client, rooms })
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum End {
    Accepted,
    /// 503 or 429 with `Retry-After`: nothing was done.
    TooMuch,
    /// Another answer with this status.
    Other(u16),
    /// No connection, or no answer.
    None,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => formatter.write_str("accepted"),
            Self::TooMuch => formatter.write_str("told to come back"),
            Self::Other(status) => write!(formatter, "answered {status}"),
            Self::None => formatter.write_str("without an answer"),
        }
    }
}

struct Sent {
    key: Uuid,
    end: End,
    took: Duration,
}

async fn post(town: &Town, number: usize, key: Uuid) -> Sent {
    let (url, author) = &town.rooms[number % town.rooms.len()];
    let begun = Instant::now();
    let answer = town
        .client
        .post(url)
        .bearer_auth(&author.token)
        .header("idempotency-key", key.to_string())
        .json(
            &json!({"messageText": format!("message {number}, as long as people's messages are")}),
        )
        .send()
        .await;
    let end = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let retry = answer.headers().contains_key(header::RETRY_AFTER);
            let body: Value = answer.json().await.unwrap_or_default();
            match (status, body["code"].as_str()) {
                (200, _) => End::Accepted,
                (503, Some("overloaded")) if retry => End::TooMuch,
                (status, _) => End::Other(status),
            }
        }
        Err(_) => End::None,
    };
    Sent {
        key,
        end,
        took: begun.elapsed(),
    }
}

/// What became of many requests.
#[derive(Default)]
struct Outcome {
    sent: Vec<Sent>,
    /// Requests that this process could not send, since too many were under way.
    unsent: usize,
}

impl Outcome {
    fn accepted(&self) -> usize {
        let accepted = self.sent.iter().filter(|it| it.end == End::Accepted);
        accepted.count()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_end: HashMap<End, Vec<Duration>> = HashMap::new();
        for sent in &self.sent {
            by_end.entry(sent.end).or_default().push(sent.took);
        }
        let mut ends: Vec<_> = by_end.into_iter().collect();
        ends.sort_by_key(|(end, _)| *end);
        writeln!(
            formatter,
            "| requests | how many | half within | 99 % within | all within |"
        )?;
        writeln!(formatter, "|---|---|---|---|---|")?;
        for (end, mut took) in ends {
            took.sort_unstable();
            let at = |percent: usize| {
                let index = (took.len() * percent / 100).min(took.len() - 1);
                took[index].as_millis()
            };
            let count = took.len();
            writeln!(
                formatter,
                "| {end} | {count} | {} ms | {} ms | {} ms |",
                at(50),
                at(99),
                at(100)
            )?;
        }
        match self.unsent {
            0 => Ok(()),
            unsent => writeln!(
                formatter,
                "| not sent: {MOST_UNDER_WAY} were under way | {unsent} | | | |"
            ),
        }
    }
}

/// Clients that wait for each answer; what became of what was sent after the warming up.
async fn closed(
    town: &Arc<Town>,
    warming_up: Duration,
    length: Duration,
) -> anyhow::Result<Outcome> {
    let (stop, next) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (town, stop, next) = (Arc::clone(town), Arc::clone(&stop), Arc::clone(&next));
        clients.spawn(async move {
            let mut sent = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let posted = post(&town, number, Uuid::new_v4()).await;
                if begun.elapsed() > warming_up {
                    sent.push(posted);
                }
            }
            sent
        });
    }
    sleep(warming_up + length).await;
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<Sent> = clients.join_all().await.into_iter().flatten().collect();
    let outcome = Outcome { sent, unsent: 0 };
    ensure!(outcome.accepted() > 0, "nothing is accepted at all");
    Ok(outcome)
}

/// Requests that come at a rate, whatever becomes of those before.
async fn open(town: &Arc<Town>, rate: f64, length: Duration) -> Outcome {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut unsent = 0;
    let mut number = 0;
    let mut ticks = interval(TICK);
    let begun = Instant::now();
    while begun.elapsed() < length {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate) as usize;
        for number in number..due {
            if under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
                unsent += 1;
                continue;
            }
            under_way.fetch_add(1, Ordering::Relaxed);
            let (town, ended, under_way) =
                (Arc::clone(town), ended.clone(), Arc::clone(&under_way));
            tokio::spawn(async move {
                let sent = post(&town, number, Uuid::new_v4()).await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                let _ = ended.send(sent);
            });
        }
        number = number.max(due);
    }
    drop(ended);
    let mut sent = Vec::new();
    while let Some(one) = ends.recv().await {
        sent.push(one);
    }
    Outcome { sent, unsent }
}

/// What the log has too few of, or too many.
fn compare(outcome: &Outcome, log: &[Logged]) -> Vec<String> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for key in log.iter().filter_map(|it| it.key.as_deref()) {
        *times.entry(key).or_default() += 1;
    }
    let mut violations = Vec::new();
    for sent in &outcome.sent {
        let key = sent.key.to_string();
        let found = times.get(key.as_str()).copied().unwrap_or_default();
        let is_right = match sent.end {
            End::Accepted => found == 1,
            End::TooMuch => found == 0,
            End::Other(_) | End::None => found <= 1,
        };
        if !is_right {
            violations.push(format!(
                "{key} was {}, and is in the log {found} times",
                sent.end
            ));
        }
    }
    violations.truncate(10);
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Happening;

    #[test]
    fn what_is_lost_doubled_or_done_after_a_refusal_is_found() {
        let logged = |position, key: Uuid| Logged {
            position,
            actor: None,
            key: Some(key.to_string()),
            happening: Happening::Other {
                what: String::new(),
            },
        };
        let [once, twice, never] = [1, 2, 3].map(Uuid::from_u128);
        let log = [logged(1, once), logged(2, twice), logged(3, twice)];
        for (key, end, is_right) in [
            (once, End::Accepted, true),
            (twice, End::Accepted, false),
            (never, End::Accepted, false),
            (never, End::TooMuch, true),
            (once, End::TooMuch, false),
            (once, End::None, true),
            (never, End::Other(500), true),
            (twice, End::None, false),
        ] {
            let outcome = Outcome {
                sent: vec![Sent {
                    key,
                    end,
                    took: Duration::ZERO,
                }],
                unsent: 0,
            };
            let violations = compare(&outcome, &log);
            assert_eq!(violations.is_empty(), is_right, "{violations:?}");
        }
    }
}
