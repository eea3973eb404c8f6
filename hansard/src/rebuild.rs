//! `hansard rebuild`: the read models made anew from the log, beside those that are read meanwhile.
//!
//! The work itself is the projector's: this command adds a generation to the catalogue, takes part in
//! building it, and tells how that goes. When it is stopped, a projector goes on.

use std::sync::Arc;
use std::time::Duration;

use ::keys::Record;
use anyhow::Context as _;
use event_log::EventLog;
use indicatif::ProgressBar;
use platform::Context;
use projector::Status;
use read_models::{Catalogue, Generation, State};
use tokio_util::sync::CancellationToken;

use crate::existing::{name_of_process, open_existing_record};
use crate::progress::progress_bar;

/// How often to look how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// How often that is told where there is no terminal.
const TELL: Duration = Duration::from_secs(5);

/// How to rebuild.
#[derive(Debug, clap::Args)]
pub(crate) struct RebuildArgs {
    /// Begin anew where an earlier rebuild has not been finished, instead of going on with it
    #[arg(long)]
    from_scratch: bool,

    /// Give up a rebuild that has not been finished, and do nothing else
    #[arg(long, conflicts_with = "from_scratch")]
    cancel: bool,
}

pub(crate) async fn rebuild(context: Context, args: &RebuildArgs) -> anyhow::Result<()> {
    let catalogue = context.open_catalogue().await?;
    if args.cancel {
        return cancel(catalogue.as_ref()).await;
    }
    let record = open_existing_record(&context).await?;
    make_anew(&context, record, catalogue, args.from_scratch).await
}

/// Rebuilds, and prints what came of it.
pub(crate) async fn make_anew(
    context: &Context,
    record: Record,
    catalogue: Arc<dyn Catalogue>,
    from_scratch: bool,
) -> anyhow::Result<()> {
    let number = begin(catalogue.as_ref(), from_scratch).await?;
    let stop = CancellationToken::new();
    let working = projector::run(
        projector::Options {
            record: record.clone(),
            catalogue: Arc::clone(&catalogue),
            name: name_of_process(context),
            only: Some(number),
            progress: None,
            status: Status::default(),
            // Whoever goes on with the generation sees to that.
            retention: None,
            drain: Duration::ZERO,
            grace: projector::GRACE,
        },
        stop.clone(),
    );
    let mut working = tokio::spawn(working);
    let outcome = tokio::select! {
        outcome = watch(record.log.as_ref(), catalogue.as_ref(), number) => outcome,
        ended = &mut working => {
            ended??;
            anyhow::bail!("the rebuild has ended before it was done")
        }
        () = context.shutdown.cancelled() => Err(anyhow::anyhow!(
            "stopped before generation {number} was complete; a running projector goes on with it, and so \
             does another `hansard rebuild`; `hansard rebuild --cancel` gives it up"
        )),
    };
    stop.cancel();
    if !working.is_finished() {
        working.await??;
    }
    crate::print_line(&outcome?)
}

/// The generation to build: a new one, or the one that is not finished.
async fn begin(catalogue: &dyn Catalogue, from_scratch: bool) -> anyhow::Result<u32> {
    loop {
        let generations = catalogue.generations().await?;
        let unfinished = generations
            .of(catalogue.schema())
            .rfind(|it| matches!(it.state, State::Building | State::Joining));
        match unfinished {
            Some(unfinished) if from_scratch && unfinished.state == State::Building => {
                let note = "it was given up for a rebuild from scratch";
                give_up(catalogue, unfinished, note).await?;
            }
            Some(unfinished) => {
                tracing::info!("going on with generation {}", unfinished.number);
                return Ok(unfinished.number);
            }
            None => {}
        }
        if let Some(added) = catalogue.add(generations.last, State::Building).await? {
            tracing::info!("building generation {} beside what is read", added.number);
            return Ok(added.number);
        }
    }
}

async fn cancel(catalogue: &dyn Catalogue) -> anyhow::Result<()> {
    let generations = catalogue.generations().await?;
    let unfinished = generations
        .of(catalogue.schema())
        .rfind(|it| it.state == State::Building);
    let unfinished = unfinished.context("there is no unfinished rebuild")?;
    let note = "the rebuild was cancelled";
    anyhow::ensure!(
        give_up(catalogue, unfinished, note).await?,
        "generation {} has just been completed",
        unfinished.number
    );
    crate::print_line(&format!(
        "generation {} is given up; a projector removes it in a minute",
        unfinished.number
    ))
}

async fn give_up(
    catalogue: &dyn Catalogue,
    generation: &Generation,
    note: &str,
) -> anyhow::Result<bool> {
    let (from, to) = (generation.state, State::Retired);
    let given_up = catalogue.change(generation.number, from, to, Some(note));
    Ok(given_up.await?)
}

/// Tells how the building goes, until it is done; then what came of it.
async fn watch(
    log: &dyn EventLog,
    catalogue: &dyn Catalogue,
    number: u32,
) -> anyhow::Result<String> {
    let projection = catalogue.open(number).await?;
    let bar = progress_bar();
    let mut told = tokio::time::Instant::now();
    loop {
        let generations = catalogue.generations().await?;
        let own = generations.get(number);
        let own = own.with_context(|| format!("generation {number} has been removed"))?;
        let note = own.note.clone().unwrap_or_default();
        match own.state {
            State::Building | State::Joining => {}
            State::Live => {
                let older = generations.of(catalogue.schema());
                let mut older = older.filter(|it| it.number < number);
                if older.all(|it| it.state != State::Live) {
                    bar.finish_and_clear();
                    return Ok(format!("generation {number} is live: {note}"));
                }
            }
            State::Retired | State::Rejected => {
                bar.finish_and_clear();
                anyhow::bail!("generation {number} is {}: {note}", own.state)
            }
        }
        let checkpoint = projection.checkpoint().await?;
        let position = checkpoint.map_or(0, |checkpoint| checkpoint.position.get());
        let end = log.tail().await?.last.get();
        show(&bar, own.state, position, end);
        if bar.is_hidden() && told.elapsed() >= TELL {
            told = tokio::time::Instant::now();
            tracing::info!(
                "generation {number} is {}: {position} of {end} events",
                own.state
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show(bar: &ProgressBar, state: State, position: u64, end: u64) {
    bar.set_length(end);
    bar.set_position(position);
    bar.set_message(match state {
        State::Building if position < end => "building",
        State::Building => "examining",
        State::Joining => "joining",
        _ => "live",
    });
}
