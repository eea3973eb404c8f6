//! The operator's command: replays events to standard output or a file.

use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use event_log::Position;
use events::{RoomId, UserId};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keys::Record;

use crate::output::Output;
use crate::{Bound, Format, ReplayFilter, Selection, Step};

/// What to replay, and how.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReplayArgs {
    /// Only events of this room
    #[arg(long, value_name = "ROOM")]
    pub room: Option<RoomId>,

    /// Only events that this user caused or that are about this user
    #[arg(long, value_name = "USER")]
    pub user: Option<UserId>,

    /// Only events from here on: a time as in 2026-11-22T17:16:12Z (compared with the time at which the
    /// log stored the event), or a position as 16 hex digits or a decimal number
    #[arg(long, value_name = "TIME|POSITION")]
    pub from: Option<Bound>,

    /// Only events up to and with here: a time or a position
    #[arg(long, value_name = "TIME|POSITION")]
    pub to: Option<Bound>,

    /// How to write each event
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Write to this file, which appears when it is complete, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Show no progress bar, not even on a terminal
    #[arg(long)]
    pub no_progress: bool,
}

impl ReplayArgs {
    /// Which events the arguments ask for.
    pub fn filter(&self) -> ReplayFilter {
        ReplayFilter {
            room: self.room,
            user: self.user,
            from: self.from,
            to: self.to,
        }
    }
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many events were written.
    pub events: u64,
    /// How many of them can't be decoded.
    pub undecodable: u64,
    /// How many were left out because they can't be decoded, so that nothing tells whom they concern.
    pub unattributed: u64,
    /// The position of the last event that was read.
    pub position: Position,
    /// Whether all was written; `false` when the reader of the output went away.
    pub complete: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are = |count| if count == 1 { "event" } else { "events" };
        write!(
            formatter,
            "replayed {} {}, read up to position {}",
            self.events,
            are(self.events),
            self.position
        )?;
        if self.undecodable > 0 {
            write!(formatter, "; {} can't be decoded", self.undecodable)?;
        }
        if self.unattributed > 0 {
            write!(
                formatter,
                "; left out {} {} that can't be decoded, since nothing tells whom they concern",
                self.unattributed,
                are(self.unattributed)
            )?;
        }
        if !self.complete {
            formatter.write_str("; the output was closed before the end")?;
        }
        Ok(())
    }
}

/// Replays the events that `args` select, up to the end of the log at the time of the call.
///
/// # Errors
/// A range that ends before it begins, a log that can't be read, an output that can't be written. Of an
/// output file nothing is left then.
pub async fn replay(args: &ReplayArgs, record: Record) -> anyhow::Result<Summary> {
    let filter = args.filter();
    filter.check()?;
    let mut selection = Selection::start(record, filter).await?;
    let mut output = Output::open(args.output.as_deref()).await?;
    let mut progress = Progress::new(args, selection.range());
    let mut summary = Summary {
        events: 0,
        undecodable: 0,
        unattributed: 0,
        position: Position::ZERO,
        complete: true,
    };
    loop {
        let step = selection.step().await.with_context(|| {
            format!(
                "the replay ended after position {} before it was complete",
                selection.position()
            )
        })?;
        let Some(step) = step else { break };
        if let Step::Selected(selected) = step {
            summary.events += 1;
            summary.undecodable += u64::from(selected.decoded.is_err());
            args.format.write(&selected, output.buffer());
            if !output.pass_on().await? {
                summary.complete = false;
                break;
            }
        }
        progress.show(selection.position(), summary.events);
    }
    if summary.complete {
        summary.complete = output.complete().await?;
    }
    progress.finish(summary.events);
    summary.position = selection.position();
    summary.unattributed = selection.unattributed();
    Ok(summary)
}

/// The progress bar: how far the replay has moved through the log, how many events it found, and how fast.
struct Progress {
    bar: ProgressBar,
    before: Position,
    begun: Instant,
    shown: Instant,
}

impl Progress {
    fn new(args: &ReplayArgs, (before, last): (Position, Position)) -> Self {
        // Lines on the same terminal would tear the bar apart.
        let among_lines = args.output.is_none() && std::io::stdout().is_terminal();
        let target = if args.no_progress || among_lines {
            ProgressDrawTarget::hidden()
        } else {
            // Draws nothing where standard error is no terminal.
            ProgressDrawTarget::stderr()
        };
        let length = last.get().saturating_sub(before.get());
        let bar = ProgressBar::with_draw_target(Some(length), target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}%  {msg}  ETA {eta}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            before,
            begun: now,
            shown: now,
        }
    }

    fn show(&mut self, position: Position, events: u64) {
        if self.shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.shown = Instant::now();
        self.bar
            .set_position(position.get().saturating_sub(self.before.get()));
        self.bar.set_message(self.figures(events));
    }

    fn finish(&self, events: u64) {
        self.bar.finish_with_message(self.figures(events));
    }

    fn figures(&self, events: u64) -> String {
        let rate = events as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        format!("{events} events, {rate:.0}/s")
    }
}
