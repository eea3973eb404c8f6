//! The gateway as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use directory::Directory;
use gateway_ws::{Limits, Options};
use tokio_util::task::TaskTracker;

#[global_allocator]
static ALLOCATOR: platform::Allocator = platform::Allocator;

/// Pushes what happens in rooms to WebSockets.
#[derive(Parser)]
#[command(name = "gateway-ws", version)]
struct Cli {
    #[command(flatten)]
    args: platform::config::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    platform::run("gateway-ws", &cli.args, |context| async move {
        let listener = context.bind().await?;
        let auth = context.auth()?;
        let record = context.open_record().await?;
        let sockets = TaskTracker::new();
        let routes = gateway_ws::routes(Options {
            directory: Directory::start(record.clone(), context.shutdown.clone()),
            record,
            auth,
            limits: Limits::default(),
            allowed_origins: context.config.allowed_origins.clone(),
            shutdown: context.shutdown.clone(),
            sockets: sockets.clone(),
        });
        context.serve(listener, routes, contract::OPENAPI).await?;
        gateway_ws::all_closed(&sockets, &Limits::default()).await;
        Ok(())
    })
}
