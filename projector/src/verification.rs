//! Verifying a generation beside everything else that runs.

use keys::Record;
use read_models::{Catalogue, ReadModelError};
use tokio_util::sync::CancellationToken;
use verify::{Options, Report, VerifyError};

use crate::settle::settled_snapshot;
use crate::{Interrupted, ProjectorError};

/// Why a generation could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    /// There is no such generation.
    #[error("there is no generation {0} of the read models")]
    NoSuchGeneration(u32),
    /// Nothing has ever been projected.
    #[error("there are no read models yet")]
    NothingLive,
    /// It can't be brought to the end of the log.
    #[error(transparent)]
    Unsettled(#[from] ProjectorError),
    /// It was told to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// It can't be compared.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl From<ReadModelError> for VerificationError {
    fn from(error: ReadModelError) -> Self {
        Self::Verify(error.into())
    }
}

/// Compares a generation, the one that is read if none is named, with the log. `name` names whoever does
/// it, to those who project it otherwise: they stand still for a moment.
///
/// # Errors
/// It could not be done.
pub async fn verify_generation(
    record: &Record,
    catalogue: &dyn Catalogue,
    number: Option<u32>,
    name: &str,
    options: &Options<'_>,
    stop: &CancellationToken,
) -> Result<Report, VerificationError> {
    let generations = catalogue.generations().await?;
    let number = match number {
        Some(number) => {
            let named = generations.of(catalogue.schema());
            let mut named = named.filter(|it| it.number == number);
            named
                .next()
                .ok_or(VerificationError::NoSuchGeneration(number))?
        }
        None => generations
            .live(catalogue.schema())
            .ok_or(VerificationError::NothingLive)?,
    }
    .number;
    let projection = catalogue.open(number).await?;
    let settled = settled_snapshot(record, number, projection, name, stop).await?;
    let mut settled = settled.ok_or(Interrupted)?;
    let verifying = verify::snapshot(record, settled.snapshot.as_mut(), options);
    tokio::select! {
        report = verifying => Ok(report?),
        () = stop.cancelled() => Err(Interrupted.into()),
    }
}
