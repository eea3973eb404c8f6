//! `hansard replay`: events from the log, as they were recorded.

use audit::ReplayArgs;
use platform::Context;

use crate::existing::{open_copy_of_record, open_existing_record};

pub(crate) async fn replay(context: Context, args: &ReplayArgs) -> anyhow::Result<()> {
    let record = match args.unrecorded {
        true => open_copy_of_record(&context).await?,
        false => open_existing_record(&context).await?,
    };
    tokio::select! {
        summary = audit::replay(args, record) => {
            tracing::info!("{}", summary?);
            Ok(())
        }
        // Whoever watches stops when it is enough.
        () = context.shutdown.cancelled(), if args.speed.is_some() => Ok(()),
        () = context.shutdown.cancelled() => anyhow::bail!("stopped before the replay was complete"),
    }
}
