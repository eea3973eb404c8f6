//! Every role in one process.

use std::sync::Arc;

use commands::Commands;
use directory::Directory;
use gateway_ws::Limits;
use platform::Context;
use platform::signing::known_public_keys;
use platform::startup::{Interrupted, prepare_catalogue};
use projector::Retention;
use query_api::Options as Queries;
use read_models::Progress;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::openapi;

/// Serves until told to stop.
///
/// The order of stopping loses nothing: first no new requests and sockets are accepted, then the ones
/// there are end, then the projector projects what they have left in the log.
pub(crate) async fn serve(context: Context) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    let listener = context.bind().await?;
    let auth = context.auth()?;
    let (read_models, catalogue) = context.open_read_models().await?;
    let record = context.open_record().await?;

    // Requests under way need these after the signal to stop.
    let requests_done = CancellationToken::new();
    let directory = Directory::start(record.clone(), requests_done.clone());
    let progress = Progress::start(Arc::clone(&read_models), requests_done.clone());
    let commands = Commands {
        record: record.clone(),
        directory: directory.clone(),
    };

    // Commands work without the read models, so that serving does not wait for them. But if they are
    // nowhere to be found, their address is probably wrong, and somebody should be told.
    let preparing = stop_on_error(&context.shutdown, {
        let (config, shutdown) = (Arc::clone(&config), context.shutdown.clone());
        let catalogue = Arc::clone(&catalogue);
        async move {
            match prepare_catalogue(&config, &catalogue, &shutdown).await {
                Err(error) if error.is::<Interrupted>() => Ok(()),
                outcome => outcome,
            }
        }
    });
    let status = projector::Status::default();
    status.report_to(&context.health, config.max_lag());
    let proof = notary::Status::default();
    proof.report_to(&context.health);
    let notary = notary::Options::of(
        &config,
        Arc::clone(&record.log),
        catalogue.tree(),
        proof,
        projector::DRAIN,
    )?;
    let tree = catalogue.tree();
    let projecting = stop_on_error(
        &context.shutdown,
        projector::run(
            projector::Options {
                record: record.clone(),
                catalogue,
                name: context.name_at(&listener)?,
                only: None,
                progress: Some(progress.clone()),
                status,
                retention: Retention::of(&config.retention_days, || commands.clone()),
                drain: projector::DRAIN,
                grace: projector::GRACE,
            },
            requests_done.clone(),
        ),
    );

    let keeping = tokio::spawn(notary::keep(notary, requests_done.clone()));

    let sockets = TaskTracker::new();
    let routes = openapi::merged(
        command_api::Options {
            commands,
            read_models: Arc::clone(&read_models),
            progress: progress.clone(),
            auth: auth.clone(),
            limits: config.limits(),
            max_requests: config.max_requests,
        },
        Queries {
            read_models,
            progress,
            past: record.clone().into(),
            auth: auth.clone(),
            max_requests: config.max_requests,
        },
        gateway_ws::Options {
            record: record.clone(),
            directory,
            auth: auth.clone(),
            limits: Limits::default(),
            allowed_origins: config.allowed_origins.clone(),
            shutdown: context.shutdown.clone(),
            sockets: sockets.clone(),
        },
        audit::Options {
            record: record.into(),
            tree,
            keys: known_public_keys(&config),
            auth,
        },
    );
    let served = context.serve(listener, routes, contract::OPENAPI).await;
    // Also when serving itself failed.
    context.shutdown.cancel();
    gateway_ws::all_closed(&sockets, &Limits::default()).await;
    requests_done.cancel();
    let prepared = preparing.await?;
    let projected = projecting.await?;
    keeping.await?;
    served.and(prepared).and(projected)
}

/// Runs a task beside the serving, whose failure ends the process.
fn stop_on_error(
    shutdown: &CancellationToken,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> tokio::task::JoinHandle<anyhow::Result<()>> {
    // Dropped by a panic as well.
    let stop = shutdown.clone().drop_guard();
    tokio::spawn(async move {
        let outcome = task.await;
        if outcome.is_ok() {
            stop.disarm();
        }
        outcome
    })
}
