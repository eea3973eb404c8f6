//! The projector alone: follows the log and writes the read models; beside it the notary, which keeps the
//! Merkle tree over the log. Serves only its health and figures.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use commands::Commands;
use directory::Directory;
use futures::FutureExt;
use projector::{Options, Retention, Status};
use utoipa_axum::router::OpenApiRouter;

#[global_allocator]
static ALLOCATOR: platform::Allocator = platform::Allocator;

/// Follows the event log and writes the read models; serves /health and /metrics
#[derive(Parser)]
#[command(name = "projector", version)]
struct Cli {
    #[command(flatten)]
    args: platform::config::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    platform::run("projector", &cli.args, |context| async move {
        let listener = context.bind().await?;
        let status = Status::default();
        status.report_to(&context.health, context.config.max_lag());
        let record = context.open_record().await?;
        let catalogue = context.open_catalogue().await?;
        let proof = notary::Status::default();
        proof.report_to(&context.health);
        let notary = notary::Options::of(
            &context.config,
            Arc::clone(&record.log),
            catalogue.tree(),
            proof,
            Duration::ZERO,
        )?;
        let retention = Retention::of(&context.config.retention_days, || Commands {
            directory: Directory::start(record.clone(), context.shutdown.clone()),
            record: record.clone(),
        });
        let options = Options {
            record,
            catalogue,
            name: context.name_at(&listener)?,
            only: None,
            progress: None,
            status,
            retention,
            // Another projector, or this one when it is started again, goes on from the checkpoint.
            drain: Duration::ZERO,
            grace: projector::GRACE,
        };
        let projecting = projector::run(options, context.shutdown.clone());
        let serving = context.serve(listener, OpenApiRouter::new(), contract::OPENAPI);
        let notary = notary::keep(notary, context.shutdown.clone());
        tokio::try_join!(projecting, serving, notary.map(Ok))?;
        Ok(())
    })
}
