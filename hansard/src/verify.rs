//! `hansard verify`: whether what is stored is what the log gives.

use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use event_log::LogUrl;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use platform::Context;
use platform::config::Args;
use read_models::ReadModelsUrl;

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
    let config = &context.config;
    // Opening would make empty ones, which are equal.
    for (what, flag, path) in [
        ("log", "--log", sqlite_path_of_log(&config.log)),
        (
            "file of read models",
            "--read-models",
            sqlite_path_of_read_models(&config.read_models),
        ),
    ] {
        if let Some(path) = path {
            let file = config.data_dir.join(path);
            anyhow::ensure!(
                file.exists(),
                "there is no {what} at {}; say where it is with --data-dir or {flag}",
                file.display()
            );
        }
    }
    let log = context.open_log().await?;
    let read_models = context.open_read_models().await?;
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
    let verification = verify::read_models(log.as_ref(), read_models.as_ref(), &options);
    let report = tokio::select! {
        report = verification => report?,
        () = context.shutdown.cancelled() => {
            anyhow::bail!("stopped before the verification was complete")
        }
    };
    bar.finish_and_clear();
    match args.json {
        true => crate::print_line(&serde_json::to_string(&report)?)?,
        false => crate::print_line(&report.to_string())?,
    }
    Ok(report.is_equal())
}

fn sqlite_path_of_log(url: &LogUrl) -> Option<&std::path::Path> {
    match url {
        LogUrl::Sqlite(path) => Some(path),
        LogUrl::Nats(_) => None,
    }
}

fn sqlite_path_of_read_models(url: &ReadModelsUrl) -> Option<&std::path::Path> {
    match url {
        ReadModelsUrl::Sqlite(path) => Some(path),
        ReadModelsUrl::MongoDb(_) => None,
    }
}

/// Draws nothing where standard error is no terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "{wide_bar} {percent}%  {pos} of {len} events, {per_sec}  ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
