//! `hansard replay`: events from the log, as they were recorded.

use audit::ReplayArgs;
use platform::Context;

use crate::existing::open_existing_log;

pub(crate) async fn replay(context: Context, args: &ReplayArgs) -> anyhow::Result<()> {
    let log = open_existing_log(&context).await?;
    tokio::select! {
        summary = audit::replay(args, log) => {
            tracing::info!("{}", summary?);
            Ok(())
        }
        () = context.shutdown.cancelled() => anyhow::bail!("stopped before the replay was complete"),
    }
}
