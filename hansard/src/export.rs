//! `hansard export`: what happened in a room, in one archive that a stranger can verify; and that verification.

use std::path::PathBuf;

use anyhow::Context as _;
use audit::{Bound, ExportRequest, Sources, verify_export};
use events::RoomId;
use merkle::VerifyingKey;
use platform::Context;
use platform::signing::known_public_keys;

use crate::existing::open_existing;

/// What to export, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The room
    #[arg(long, value_name = "ROOM")]
    room: RoomId,

    /// Only what happened from here on: a time as in 2026-11-22T17:16:12Z (compared with the time at which the
    /// log stored the event), or a position as 16 hex digits or a decimal number
    #[arg(long, value_name = "TIME|POSITION")]
    from: Option<Bound>,

    /// Only what happened up to and with here: a time or a position
    #[arg(long, value_name = "TIME|POSITION")]
    to: Option<Bound>,

    /// The archive, a tar file, which appears when it is complete; - is standard output
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Which export.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyExportArgs {
    /// The archive
    file: PathBuf,

    /// The public key of the log, as `hansard tree key` prints it, from somebody whom you trust; may be given
    /// more than once. Without any, the one in the archive is believed, which proves nothing of who made it
    #[arg(long, value_name = "KEY")]
    key: Vec<VerifyingKey>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn export(context: Context, args: &ExportArgs) -> anyhow::Result<()> {
    let request = ExportRequest {
        room: args.room,
        from: args.from,
        to: args.to,
    };
    request.check()?;
    let (record, catalogue) = open_existing(&context).await?;
    let sources = Sources {
        record,
        tree: catalogue.tree(),
        keys: known_public_keys(&context.config),
    };
    let exporting = audit::export_to(&args.output, &request, &sources);
    let exported = context.shutdown.run_until_cancelled(exporting).await;
    let exported = exported.context("stopped before the export was complete")??;
    tracing::info!(
        "exported {} events with the tree head of {} events",
        exported.events,
        exported.tree_size
    );
    Ok(())
}

/// Prints the report; says whether everything fits.
pub(crate) fn verify(args: &VerifyExportArgs) -> anyhow::Result<bool> {
    let name = args.file.display();
    let archive = std::fs::read(&args.file).with_context(|| format!("can't read {name}"))?;
    let report = verify_export(&archive, &args.key).with_context(|| name.to_string())?;
    match args.json {
        true => crate::print_line(&serde_json::to_string(&report)?)?,
        false => crate::print_line(&report.to_string())?,
    }
    Ok(report.fits())
}
