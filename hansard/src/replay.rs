//! `hansard replay`: events from the log, as they were recorded.

use audit::ReplayArgs;
use event_log::LogUrl;
use platform::Context;

pub(crate) async fn replay(context: Context, args: &ReplayArgs) -> anyhow::Result<()> {
    let config = &context.config;
    if let LogUrl::Sqlite(path) = &config.log {
        // Opening would make an empty log: the last thing that somebody who asks for the record wants.
        let file = config.data_dir.join(path);
        anyhow::ensure!(
            file.exists(),
            "there is no log at {}; say where it is with --data-dir or --log",
            file.display()
        );
    }
    let log = context.open_log().await?;
    tokio::select! {
        summary = audit::replay(args, log) => {
            tracing::info!("{}", summary?);
            Ok(())
        }
        () = context.shutdown.cancelled() => anyhow::bail!("stopped before the replay was complete"),
    }
}
