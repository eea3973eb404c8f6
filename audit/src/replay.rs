//! The operator's command: replays events to standard output or a file.

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use event_log::Position;
use events::{RoomId, UserId};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keys::Record;

use crate::document::{Document, Moved};
use crate::output::Output;
use crate::pace::{Pace, Speed};
use crate::reading::{before, record_reading};
use crate::{Bound, EventType, Format, ReplayFilter, Told};

/// From which pause on the log is let go of meanwhile.
const WORTH_RESTING: Duration = Duration::from_millis(200);

/// What to replay, and how.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReplayArgs {
    /// Only events of this room
    #[arg(long, value_name = "ROOM")]
    pub room: Option<RoomId>,

    /// Only events that this user caused or that are about this user
    #[arg(long, value_name = "USER")]
    pub user: Option<UserId>,

    /// Only events of this type, for example message.posted; may be given more than once
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<EventType>,

    /// Only events from here on: a time as in 2026-11-22T17:16:12Z (compared with the time at which the
    /// log stored the event), or a position as 16 hex digits or a decimal number
    #[arg(long, value_name = "TIME|POSITION")]
    pub from: Option<Bound>,

    /// Only events up to and with here: a time or a position
    #[arg(long, value_name = "TIME|POSITION")]
    pub to: Option<Bound>,

    /// How to write the events
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Show each event after the time that passed before it was stored, at this multiple of real time; no pause
    /// is longer than five seconds. For a terminal
    #[arg(long, value_name = "FACTOR")]
    pub speed: Option<Speed>,

    /// Write to this file, which appears when it is complete, instead of standard output; - is standard output,
    /// whatever it is
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Show no progress bar, not even on a terminal
    #[arg(long)]
    pub no_progress: bool,

    /// Read a copy of a log without recording in it that it was read: for a SQLite file that nobody may write to
    #[arg(long)]
    pub unrecorded: bool,
}

impl ReplayArgs {
    /// Which events the arguments ask for.
    pub fn filter(&self) -> ReplayFilter {
        ReplayFilter {
            room: self.room,
            user: self.user,
            types: self.types.clone(),
            from: self.from,
            to: self.to,
        }
    }

    fn writes_to_standard_output(&self) -> bool {
        let output = self.output.as_deref();
        output.is_none_or(|output| output == Path::new("-"))
    }

    /// Whether what is asked for can be watched.
    fn check_speed(&self) -> anyhow::Result<()> {
        if self.speed.is_none() {
            return Ok(());
        }
        let is_watched = match &self.output {
            None => std::io::stdout().is_terminal(),
            Some(_) => self.writes_to_standard_output(),
        };
        anyhow::ensure!(
            is_watched,
            "--speed is for a terminal; to write at that speed to what is none, add --output -"
        );
        anyhow::ensure!(
            self.format != Format::Html,
            "--speed is for lines: use --format text, jsonl or transcript"
        );
        Ok(())
    }
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How much was written.
    pub told: Told,
    /// The position of the last event that was read.
    pub position: Position,
    /// Whether all was written; `false` when the reader of the output went away.
    pub complete: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "read up to position {}: replayed {}",
            self.position, self.told
        )?;
        if !self.complete {
            formatter.write_str("; the output was closed before the end")?;
        }
        Ok(())
    }
}

/// Replays the events that `args` select, up to the end of the log at the time of the call. First it is
/// recorded that the operator does so, unless `args` say otherwise.
///
/// # Errors
/// A range that ends before it begins, a log that can't be written or read, an output that can't be written. Of
/// an output file nothing is left then.
pub async fn replay(args: &ReplayArgs, record: Record) -> anyhow::Result<Summary> {
    let filter = args.filter();
    filter.check()?;
    args.check_speed()?;
    let mut output = Output::open(args.output.as_deref()).await?;
    let up_to = match args.unrecorded {
        true => record.log.tail().await?.last,
        false => {
            let recorded = record_reading(&record, None, "hansard replay", filter.conditions());
            before(recorded.await.context(
                "that the record is read can't be recorded, so it is not read; a copy that nobody may write to \
                 can be read with --unrecorded",
            )?)
        }
    };
    let mut document = Document::start(record, filter, up_to, args.format).await?;
    let mut progress = Progress::new(args);
    let mut pace = args.speed.map(Pace::new);
    let mut complete = true;
    loop {
        let mut piece = Vec::new();
        let moved = document.step(&mut piece).await.with_context(|| {
            format!(
                "the replay ended after position {} before it was complete",
                document.position()
            )
        })?;
        if let (Some(pace), Moved::Told(stored_at)) = (&mut pace, moved) {
            let pause = pace.pause(stored_at);
            if pause >= WORTH_RESTING {
                document.rest();
            }
            tokio::time::sleep(pause).await;
        }
        output.buffer().append(&mut piece);
        let is_read = match pace {
            Some(_) => output.flush().await?,
            None => output.pass_on().await?,
        };
        if !is_read {
            complete = false;
            break;
        }
        progress.show(&document);
        if moved == Moved::End {
            break;
        }
    }
    if complete {
        complete = output.complete().await?;
    }
    progress.finish(&document);
    Ok(Summary {
        told: document.told(),
        position: document.position(),
        complete,
    })
}

/// The progress bar: how far the replay has moved through the log, how many events it found, and how fast.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
    shown: Instant,
}

impl Progress {
    fn new(args: &ReplayArgs) -> Self {
        // Lines on the same terminal would tear the bar apart.
        let among_lines = args.writes_to_standard_output() && std::io::stdout().is_terminal();
        let target = if args.no_progress || among_lines || args.speed.is_some() {
            ProgressDrawTarget::hidden()
        } else {
            // Draws nothing where standard error is no terminal.
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}%  {msg}  ETA {eta}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            begun: now,
            shown: now,
        }
    }

    fn show(&mut self, document: &Document) {
        if self.shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.shown = Instant::now();
        let (done, total) = document.progress();
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(self.figures(document));
    }

    fn finish(&self, document: &Document) {
        self.bar.finish_with_message(self.figures(document));
    }

    fn figures(&self, document: &Document) -> String {
        let events = document.told().events;
        let rate = events as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        format!("{events} events, {rate:.0}/s")
    }
}
