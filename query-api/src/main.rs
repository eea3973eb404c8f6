//! The read side as a service of its own.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use audit::RecordHandle;
use clap::Parser;
use platform::Context;
use query_api::Options;
use read_models::Progress;

#[global_allocator]
static ALLOCATOR: platform::Allocator = platform::Allocator;

/// Answers queries over HTTP (GET) from the read models, and audits and the past from the log
#[derive(Parser)]
#[command(name = "query-api", version)]
struct Cli {
    #[command(flatten)]
    args: platform::config::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    platform::run("query-api", &cli.args, |context| async move {
        let listener = context.bind().await?;
        let auth = context.auth()?;
        let (read_models, catalogue) = context.open_read_models().await?;
        // Queries are answered without the log. Audits and what is asked of the past need it, once it can be
        // reached.
        let record = connect_in_background(context.clone());
        let audit = audit::routes(audit::Options {
            record: record.clone(),
            tree: catalogue.tree(),
            keys: platform::signing::known_public_keys(&context.config),
            auth: auth.clone(),
        });
        let progress = Progress::start(read_models.clone(), context.shutdown.clone());
        context.check_projection(&progress);
        let routes = query_api::routes(Options {
            progress,
            read_models,
            past: record,
            auth,
            max_requests: context.config.max_requests,
        });
        context
            .serve(listener, routes.merge(audit), contract::OPENAPI)
            .await
    })
}

/// A handle on the record that is empty until log and keys could be reached, however long that takes.
fn connect_in_background(context: Context) -> RecordHandle {
    let opened = Arc::new(OnceLock::new());
    let slot = Arc::clone(&opened);
    tokio::spawn(async move {
        while !context.shutdown.is_cancelled() {
            match platform::startup::open_record(&context.config, &context.shutdown).await {
                Ok(record) => {
                    let _ = slot.set(record);
                    return;
                }
                Err(error) => tracing::warn!("audits can't be answered: {error:#}"),
            }
            // Opening gives up only after waiting; what fails at once must not be tried in a tight loop.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    });
    RecordHandle::new(move || opened.get().cloned())
}
