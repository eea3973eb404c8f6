//! The write side as a service of its own.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use command_api::Options;
use commands::Commands;
use directory::Directory;
use read_models::{Live, Progress, ReadModels};

#[global_allocator]
static ALLOCATOR: platform::Allocator = platform::Allocator;

/// Takes commands over HTTP (POST, PUT, DELETE) and appends their events to the log
#[derive(Parser)]
#[command(name = "command-api", version)]
struct Cli {
    #[command(flatten)]
    args: platform::config::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    platform::run("command-api", &cli.args, |context| async move {
        let listener = context.bind().await?;
        let auth = context.auth()?;
        // Commands work without the read models: they are neither waited for nor a reason to be unready.
        let catalogue = platform::startup::open_catalogue_unprepared(&context.config).await?;
        let read_models: Arc<dyn ReadModels> = Arc::new(Live::new(catalogue));
        let record = context.open_record().await?;
        let routes = command_api::routes(Options {
            commands: Commands {
                directory: Directory::start(record.clone(), context.shutdown.clone()),
                record,
            },
            progress: Progress::start(read_models.clone(), context.shutdown.clone()),
            read_models,
            auth,
            limits: context.config.limits(),
            max_requests: context.config.max_requests,
        });
        context.serve(listener, routes, contract::OPENAPI).await
    })
}
