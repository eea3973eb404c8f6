//! `hansard replay`: events from the log, as they were recorded.

use audit::ReplayArgs;
use platform::Context;

use crate::existing::open_existing_record;

pub(crate) async fn replay(context: Context, args: &ReplayArgs) -> anyhow::Result<()> {
    let record = open_existing_record(&context).await?;
    tokio::select! {
        summary = audit::replay(args, record) => {
            tracing::info!("{}", summary?);
            Ok(())
        }
        () = context.shutdown.cancelled() => anyhow::bail!("stopped before the replay was complete"),
    }
}
