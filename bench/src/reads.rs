//! Whether reads cost the same at any history: the same requests to a short and to a long one, in
//! alternation.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use events::MessageId;
use read_models::{Catalogue, ReadModelsUrl};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chart::{Chart, Line, Scale};
use crate::figure::Figure;
use crate::history::{History, Size, TEXT_BYTES};
use crate::plans::{self, Planned, Profile, Profiled};
use crate::project::project;
use crate::record;
use crate::report::{ratio, thousands};
use crate::server::{Request, Server, Setup, token};

/// What is asked; each of the short history and of the long one.
const ROUTES: [Route; 7] = [
    Route {
        name: "GET /room, first page",
        flat: true,
        ask: Ask::Recent,
    },
    Route {
        name: "GET /room?before=, second page",
        flat: true,
        ask: Ask::RecentBefore,
    },
    Route {
        name: "GET /room/:id of the large room, first page",
        flat: true,
        ask: Ask::Conversation,
    },
    Route {
        name: "GET /room/:id?before= anywhere in the large room",
        flat: true,
        ask: Ask::ConversationBefore,
    },
    Route {
        name: "GET /room?limit=1: the unread count of the large room, never read",
        flat: false,
        ask: Ask::NeverRead,
    },
    Route {
        name: "GET /room/:id?page= at the large room's beginning",
        flat: false,
        ask: Ask::DeepPage,
    },
    // Last, because it adds to the histories.
    Route {
        name: "PUT /room/:id/mark-read in the large room, one new message",
        flat: true,
        ask: Ask::MarkRead,
    },
];

/// A kind of request.
#[derive(Debug, Clone, Copy)]
struct Route {
    name: &'static str,
    /// Whether it has to cost the same at any history.
    flat: bool,
    ask: Ask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Recent,
    RecentBefore,
    Conversation,
    ConversationBefore,
    MarkRead,
    NeverRead,
    DeepPage,
}

/// Items in a page, unless a request says otherwise.
const PAGE: usize = 10;
/// How much more than of the short history a read of the long one may take.
const GOAL: f64 = 1.1;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The short history.
    pub short: Size,
    /// The long one.
    pub long: Size,
    /// The size of the messages' text, in bytes.
    pub text_bytes: usize,
    /// How often each request was measured in a run.
    pub samples: usize,
    /// The read models in SQLite.
    pub sqlite: Vec<Measured>,
    /// The read models in MongoDB.
    pub mongodb: Vec<Measured>,
    /// SQLite's plans, on the long history.
    pub sqlite_plans: Vec<Planned>,
    /// What MongoDB did for one request of each kind, on the long history.
    pub mongodb_plans: Vec<Profiled>,
}

/// The figures of a route; times in microseconds.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub route: &'static str,
    /// Whether it has to cost the same at any history.
    pub flat: bool,
    /// The median.
    pub p50: Pair,
    /// What 99 of 100 stay below.
    pub p99: Pair,
}

/// A figure of the short history and of the long one, and how many times that it is, run by run.
#[derive(Debug, Serialize)]
pub struct Pair {
    /// Of the short history.
    pub short: Figure,
    /// Of the long one.
    pub long: Figure,
    /// The long one's by the short one's.
    pub ratio: Figure,
}

/// A history with where it is.
struct Prepared {
    history: History,
    data_dir: PathBuf,
}

/// Measures.
///
/// # Errors
/// A server fails, or answers other than expected.
pub async fn run(setup: &Setup, long: Size, runs: u32, samples: usize) -> anyhow::Result<Outcome> {
    let (mongod, port) = setup.start_mongod()?;
    let url = |name: &str| format!("mongodb://{}/{name}?replicaSet=rs0", port.address());
    let short = prepare(setup, "short", Size::SHORT, &url("short")).await?;
    let long = prepare(setup, "long", long, &url("long")).await?;
    let sqlite_plans = plans::of_sqlite(&long.data_dir.join("read.g1.db")).await?;

    let servers = [
        setup.start_hansard(&short.data_dir).await?,
        setup.start_hansard(&long.data_dir).await?,
    ];
    let histories = [&short.history, &long.history];
    let sqlite = measure(&servers, histories, runs, samples).await?;
    // One after the other, because both use the same logs.
    drop(servers);
    let servers = [
        setup
            .start_hansard_on(&short.data_dir, &url("short"))
            .await?,
        setup.start_hansard_on(&long.data_dir, &url("long")).await?,
    ];
    let mongodb = measure(&servers, histories, runs, samples).await?;
    let profile = Profile::of(&url("long")).await?;
    let mongodb_plans = profiled(&servers[1], &long.history, &profile).await?;
    drop(mongod);
    Ok(Outcome {
        short: short.history.size,
        long: long.history.size,
        text_bytes: TEXT_BYTES,
        samples,
        sqlite,
        mongodb,
        sqlite_plans,
        mongodb_plans,
    })
}

/// Writes a history and projects it, into SQLite beside its log and into the MongoDB database at `url`.
async fn prepare(setup: &Setup, name: &str, size: Size, url: &str) -> anyhow::Result<Prepared> {
    let data_dir = setup.directory.join(name);
    std::fs::create_dir(&data_dir)?;
    let begun = Instant::now();
    let history = History::create(size, &data_dir).await?;
    eprintln!("{name}: {} events in {:?}", history.events, begun.elapsed());
    let record = record::open(&data_dir).await?;
    for url in ["sqlite:read.db", url] {
        let catalogue = open(url, &data_dir).await?;
        let taken = project(record.clone(), catalogue).await?;
        eprintln!("{name}: projected into {url} in {taken:?}");
    }
    Ok(Prepared { history, data_dir })
}

async fn open(url: &str, data_dir: &Path) -> anyhow::Result<Arc<dyn Catalogue>> {
    let url: ReadModelsUrl = url.parse()?;
    Ok(read_models::open(&url, data_dir).await?)
}

async fn measure(
    servers: &[Server; 2],
    histories: [&History; 2],
    runs: u32,
    samples: usize,
) -> anyhow::Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for route in ROUTES {
        let mut p50: [Vec<f64>; 2] = Default::default();
        let mut p99: [Vec<f64>; 2] = Default::default();
        for run in 0..runs as usize {
            let mut taken: [Vec<f64>; 2] = Default::default();
            // It adds a message each time, and the short history must stay short.
            let samples = match route.ask {
                Ask::MarkRead => samples.div_ceil(5),
                _ => samples,
            };
            // A tenth comes before and is not counted.
            let warm_up = samples.div_ceil(10);
            for number in 0..warm_up + samples {
                // Neither is always the first.
                for which in [number % 2, (number + 1) % 2] {
                    let number = run * (warm_up + samples) + number;
                    let time = timed(route.ask, &servers[which], histories[which], number);
                    let time = time.await.with_context(|| route.name)?;
                    taken[which].push(time);
                }
            }
            for which in 0..2 {
                let mut sorted = taken[which].split_off(warm_up);
                sorted.sort_by(f64::total_cmp);
                p50[which].push(percentile(&sorted, 50));
                p99[which].push(percentile(&sorted, 99));
            }
        }
        eprintln!("{}: {p50:.0?} {p99:.0?}", route.name);
        measured.push(Measured {
            route: route.name,
            flat: route.flat,
            p50: p50.into(),
            p99: p99.into(),
        });
    }
    Ok(measured)
}

/// How long one request takes, in microseconds, from its sending to the end of its answer.
async fn timed(ask: Ask, server: &Server, history: &History, number: usize) -> anyhow::Result<f64> {
    let request = request(ask, server, history, number).await?;
    let token = token(request.caller)?;
    let begun = Instant::now();
    let answer = server.ask(&request, &token).await?;
    let taken = begun.elapsed();
    check(ask, &serde_json::from_slice(&answer)?)?;
    Ok(taken.as_secs_f64() * 1e6)
}

/// The request with this number, after what has to come before it.
async fn request(
    ask: Ask,
    server: &Server,
    history: &History,
    number: usize,
) -> anyhow::Result<Request> {
    // All over the history, and the same every time.
    let scattered = number.wrapping_mul(7_919);
    let caller = history.callers[scattered % history.callers.len()];
    let [reader, author, .., sleeper] = history.crowd;
    let room = history.large_room;
    let get = |caller, path| Request {
        caller,
        method: Method::GET,
        path,
        body: None,
    };
    Ok(match ask {
        Ask::Recent => get(caller, "/room".to_owned()),
        Ask::RecentBefore => {
            let first = get(caller, "/room".to_owned());
            let page = server.ask(&first, &token(caller)?).await?;
            let page: Value = serde_json::from_slice(&page)?;
            let last = page["conversation"][PAGE - 1]["messageId"].as_str();
            let last = last.context("a page is too short")?;
            get(caller, format!("/room?before={last}"))
        }
        Ask::Conversation => get(reader, format!("/room/{room}")),
        Ask::ConversationBefore => {
            let rest = &history.messages[PAGE..];
            let before: MessageId = rest[scattered % rest.len()];
            get(reader, format!("/room/{room}?before={before}"))
        }
        Ask::MarkRead => {
            let post = Request {
                caller: author,
                method: Method::POST,
                path: format!("/room/{room}/message"),
                body: Some(json!({"messageText": "x".repeat(TEXT_BYTES)})),
            };
            server.ask(&post, &token(author)?).await?;
            Request {
                method: Method::PUT,
                ..get(reader, format!("/room/{room}/mark-read"))
            }
        }
        Ask::NeverRead => get(sleeper, "/room?limit=1".to_owned()),
        Ask::DeepPage => {
            let page = history.messages.len() / PAGE - 1;
            get(reader, format!("/room/{room}?page={page}"))
        }
    })
}

/// That the answer is the work that was meant to be measured.
fn check(ask: Ask, answer: &Value) -> anyhow::Result<()> {
    let items = answer["conversation"].as_array().map(Vec::len);
    let expected = match ask {
        Ask::MarkRead => {
            ensure!(
                answer["data"]["n"].as_u64() >= Some(1),
                "nothing was marked as read: {answer}"
            );
            return Ok(());
        }
        Ask::NeverRead => 1,
        _ => PAGE,
    };
    ensure!(
        items == Some(expected),
        "{items:?} items instead of {expected}"
    );
    Ok(())
}

async fn profiled(
    server: &Server,
    history: &History,
    profile: &Profile,
) -> anyhow::Result<Vec<Profiled>> {
    let mut all = Vec::new();
    for route in ROUTES {
        let request = request(route.ask, server, history, 0).await?;
        let token = token(request.caller)?;
        let asking = server.ask(&request, &token);
        all.extend(profile.of_request(route.name, asking).await?);
    }
    Ok(all)
}

/// What so many of 100 do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let found = sorted.get(rank.saturating_sub(1));
    found.copied().unwrap_or(f64::NAN)
}

impl From<[Vec<f64>; 2]> for Pair {
    fn from([short, long]: [Vec<f64>; 2]) -> Self {
        let (short, long) = (Figure::of(short), Figure::of(long));
        Self {
            ratio: long.over(&short),
            short,
            long,
        }
    }
}

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self) -> anyhow::Result<String> {
        let mut page = String::new();
        let runs = self.sqlite.first().map_or(0, |it| it.p50.short.runs.len());
        #[allow(clippy::cast_precision_loss)]
        let count = |count: usize| thousands(count as f64);
        writeln!(
            page,
            "The short history has {} messages in {} rooms, one of them with {}; the long one {} in {}, one of them with {}. Times in microseconds, medians of {runs} runs of {} requests to each (a fifth of that for mark-read, before each of which a message is posted).\n",
            count(self.short.messages),
            count(self.short.rooms),
            count(self.short.large_room),
            count(self.long.messages),
            count(self.long.rooms),
            count(self.long.large_room),
            count(self.samples),
        )?;
        for (store, measured) in [("SQLite", &self.sqlite), ("MongoDB", &self.mongodb)] {
            writeln!(
                page,
                "| {store} | p50 short | p50 long | ratio (least to most) | p99 short | p99 long | ratio (least to most) | goal |"
            )?;
            writeln!(page, "|---|---|---|---|---|---|---|---|")?;
            for it in measured {
                let goal = if it.flat {
                    format!("<= {GOAL}")
                } else {
                    "-".to_owned()
                };
                writeln!(
                    page,
                    "| {} | {} | {} | {goal} |",
                    it.route,
                    cells(&it.p50),
                    cells(&it.p99)
                )?;
            }
            writeln!(page)?;
        }
        writeln!(
            page,
            "| SQLite's statement | its plan on the long history |"
        )?;
        writeln!(page, "|---|---|")?;
        for plan in &self.sqlite_plans {
            let statement = plan.statement.replace('|', "\\|");
            writeln!(page, "| `{statement}` | {} |", plan.steps.join("; "))?;
        }
        writeln!(page)?;
        writeln!(
            page,
            "| MongoDB's operations for one request | plan on the long history | keys examined, at most | documents | returned | sorted in memory |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|")?;
        for of_route in self
            .mongodb_plans
            .chunk_by(|one, next| one.route == next.route)
        {
            let route = of_route.first().map_or("", |it| &it.route);
            writeln!(page, "| **{route}** | | | | | |")?;
            // What is done the same way several times is one line, with the most of each.
            let mut alike: Vec<Vec<&Profiled>> = Vec::new();
            for it in of_route {
                let key =
                    |it: &Profiled| (it.operation.clone(), it.collection.clone(), it.plan.clone());
                match alike.iter_mut().find(|group| key(group[0]) == key(it)) {
                    Some(group) => group.push(it),
                    None => alike.push(vec![it]),
                }
            }
            for group in alike {
                let (first, times) = (group[0], group.len());
                let most =
                    |of: fn(&Profiled) -> i64| group.iter().map(|it| of(it)).max().unwrap_or(0);
                writeln!(
                    page,
                    "| {times} x {} {} | {} | {} | {} | {} | {} |",
                    first.operation,
                    first.collection,
                    first.plan,
                    most(|it| it.keys_examined),
                    most(|it| it.documents_examined),
                    most(|it| it.returned),
                    if group.iter().any(|it| it.sorted) {
                        "YES"
                    } else {
                        "no"
                    },
                )?;
            }
        }
        Ok(page)
    }
}

impl Outcome {
    /// Latency by the length of the history, one chart for each kind of read models; with its name as a file.
    pub fn charts(&self) -> [(&'static str, Chart); 2] {
        #[allow(clippy::cast_precision_loss)]
        let [short, long] = [self.short, self.long].map(|history| history.messages as f64);
        let chart = |store: &str, measured: &[Measured]| Chart {
            title: format!("Reads by the length of the history, {store}"),
            across: ("messages in the log", Scale::Logarithmic),
            upwards: "p50, ms",
            lines: measured
                .iter()
                .map(|it| Line {
                    name: it.route.to_owned(),
                    points: vec![
                        (short, it.p50.short.median / 1e3),
                        (long, it.p50.long.median / 1e3),
                    ],
                })
                .collect(),
        };
        [
            ("reads-sqlite", chart("SQLite", &self.sqlite)),
            ("reads-mongodb", chart("MongoDB", &self.mongodb)),
        ]
    }
}

fn cells(pair: &Pair) -> String {
    format!(
        "{} | {} | {}",
        thousands(pair.short.median),
        thousands(pair.long.median),
        ratio(&pair.ratio)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_measured() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 50), 100.0);
        assert_eq!(percentile(&sorted, 99), 198.0);
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }
}
