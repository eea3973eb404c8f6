//! What posts and reads cost: how many a second and how long they take, in a closed loop beside other ways to the
//! same end, and in an open loop at several loads.

mod cells;
mod open;
mod page;
mod pushed;
mod stack;

use std::time::Duration;

use serde::Serialize;

use crate::load::Length;
use crate::server::Setup;
use cells::{Cell, Measured, Work};
use open::{Latencies, Offered};
use pushed::{Paired, Times};
use stack::{Kind, Stack};

/// Messages in each server before anything is measured.
const MESSAGES: usize = 20_000;
/// How many clients ask at once.
const FEW: usize = 64;
const MANY: usize = 512;
/// The loads of the open loop, in percent of what the closed one with [`FEW`] clients achieved.
const LOADS: [u32; 5] = [10, 25, 50, 75, 90];
/// The load at which pushing is measured, in percent of the same.
const HALF: f64 = 50.0;
/// Before each measurement, this part of its time is not counted.
const WARM_UP: u32 = 5;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// How long each measurement was, in seconds.
    pub seconds: u64,
    /// How many messages each server had when reading was measured.
    pub messages: usize,
    /// In how many rooms.
    pub rooms: usize,
    /// The size of their text, in bytes.
    pub text_bytes: usize,
    /// The size of such a message in the log, in bytes.
    pub event_bytes: usize,
    /// The closed loop.
    pub closed: Vec<Measured>,
    /// The open one.
    pub open: Vec<Latencies>,
    /// The open one with [`FEW`] clients at half of what the server can take, until messages are pushed.
    pub pushed: Vec<Times>,
}

/// Measures everything `runs` times, each measurement for `seconds`, the servers by turns; `against` is the URL of
/// a server that somebody else has started.
///
/// # Errors
/// A server fails or refuses.
pub async fn run(
    setup: &Setup,
    runs: u32,
    seconds: u64,
    against: Option<&str>,
) -> anyhow::Result<Outcome> {
    let mongod = setup.start_mongod()?;
    // After mongod, so that they end before it.
    let mut stacks = vec![
        Stack::embedded(setup, MESSAGES).await?,
        Stack::distributed(setup, &mongod, false, MESSAGES).await?,
        Stack::distributed(setup, &mongod, true, MESSAGES).await?,
    ];
    if let Some(url) = against {
        stacks.push(Stack::against(url, MESSAGES).await?);
    }
    let measured = Duration::from_secs(seconds);
    let length = Length {
        warm_up: measured / WARM_UP,
        measured,
    };

    let kinds: Vec<Kind> = stacks.iter().map(|stack| stack.kind).collect();
    let mut reads = reads(&kinds);
    let mut posts = posts(&kinds);
    // Reads first, because posts add to the history.
    for cells in [&mut reads, &mut posts] {
        for run in 0..runs as usize {
            // None is always the first.
            let count = cells.len();
            cells.rotate_left(run % count);
            for cell in cells.iter_mut() {
                cell.measure(&stacks, length).await?;
            }
            cells.rotate_right(run % count);
        }
    }
    let closed: Vec<Measured> = reads.iter().chain(&posts).map(Cell::measured).collect();

    let mut offered = Vec::new();
    for percent in LOADS {
        let capacities = closed.iter().filter(|it| is_capacity(it));
        offered.extend(capacities.map(|it| Offered::new(it.kind, percent, it.per_second.median)));
    }
    let capacities = closed.iter().filter(|it| is_capacity(it));
    let half = |it: &Measured| Paired::new(it.kind, it.per_second.median * HALF / 100.0);
    let mut paired: Vec<Paired> = capacities.map(half).collect();
    for _ in 0..runs {
        for load in &mut offered {
            load.measure(&stacks, MANY, length).await?;
        }
        for load in &mut paired {
            load.measure(&stacks, FEW, length).await?;
        }
    }
    Ok(Outcome {
        seconds,
        messages: MESSAGES,
        rooms: stack::ROOMS,
        text_bytes: stack::TEXT_BYTES,
        event_bytes: stacks.iter().map(|it| it.event_bytes).max().unwrap_or(0),
        closed,
        open: offered.iter().map(Offered::latencies).collect(),
        pushed: paired.iter().map(Paired::times).collect(),
    })
}

/// Whether it tells what the loads of the open loop are parts of.
fn is_capacity(measured: &Measured) -> bool {
    measured.kind != Kind::Against && measured.work == Work::Posts && measured.at_once == FEW
}

/// What is read: everywhere.
fn reads(kinds: &[Kind]) -> Vec<Cell> {
    let works = [Work::Rooms, Work::Messages];
    let of = |work| kinds.iter().map(move |kind| Cell::new(*kind, work, FEW));
    works.into_iter().flat_map(of).collect()
}

/// What is posted: to another server in the one way that it knows.
fn posts(kinds: &[Kind]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for at_once in [FEW, MANY] {
        for work in [Work::Posts, Work::AsyncPosts, Work::Bare] {
            let is_common = at_once == FEW && work == Work::Posts;
            let kinds = kinds
                .iter()
                .filter(|kind| **kind != Kind::Against || is_common);
            cells.extend(kinds.map(|kind| Cell::new(*kind, work, at_once)));
        }
    }
    cells
}
