//! `hansard verify`: whether what is stored is what the log gives.

use std::cell::Cell;
use std::process::ExitCode;

use clap::Subcommand;
use platform::Context;
use platform::config::Args;

use crate::existing::{name_of_process, open_existing};
use crate::progress::progress_bar;

/// The exit code where there are differences.
const EXIT_DIFFERENT: u8 = 1;

/// The exit code where nothing can be said.
const EXIT_NOT_DONE: u8 = 2;

/// What to verify.
#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Fold the log afresh and compare every user, room, message, read mark, list and unread count with
    /// what is stored; exit with 0 if they are the same, 1 if not, 2 if it could not be done
    ReadModels(ReadModelsArgs),
}

/// How to verify read models.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadModelsArgs {
    /// Verify this generation instead of the one that is read
    #[arg(long, value_name = "N")]
    generation: Option<u32>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Hold about this many events in memory at a time; the log is read as often as that takes
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    at_once: u64,
}

pub(crate) fn verify(args: &Args, command: &VerifyCommand) -> ExitCode {
    let VerifyCommand::ReadModels(how) = command;
    let equal = Cell::new(None);
    // An error is told in there, and what comes here is that nothing was found out.
    platform::run("hansard", args, async |context| {
        equal.set(Some(read_models(context, how).await?));
        Ok(())
    });
    match equal.get() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(EXIT_DIFFERENT),
        None => ExitCode::from(EXIT_NOT_DONE),
    }
}

/// Prints the report; says whether it found no difference.
async fn read_models(context: Context, args: &ReadModelsArgs) -> anyhow::Result<bool> {
    let (record, catalogue) = open_existing(&context).await?;
    let bar = progress_bar();
    let show = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let options = verify::Options {
        at_once: args.at_once,
        progress: &show,
        ..verify::Options::default()
    };
    let name = name_of_process(&context);
    let report = projector::verify_generation(
        &record,
        catalogue.as_ref(),
        args.generation,
        &name,
        &options,
        &context.shutdown,
    );
    let report = report.await?;
    bar.finish_and_clear();
    match args.json {
        true => crate::print_line(&serde_json::to_string(&report)?)?,
        false => crate::print_line(&report.to_string())?,
    }
    Ok(report.is_equal())
}
