//! What every scenario ends with: what is stored in the read models is what the log gives.

use std::sync::Arc;
use std::time::Duration;

use read_models::{Live, ReadModels};
use tokio_util::sync::CancellationToken;

use crate::stack::{Service, Stack};
use crate::wait::eventually;

/// How long the projection may take to catch up on a busy machine.
const CATCHING_UP: Duration = Duration::from_secs(60);

/// Waits until everything has been projected, and compares.
///
/// # Panics
/// There are differences, or they can't be looked for although the scenario did not say so.
pub(crate) async fn verified(mut stack: Stack) {
    if let Some(reason) = stack.unverified() {
        println!("the read models are not verified: {reason}");
        return;
    }
    for service in [Service::Nats, Service::Mongod, Service::Projector] {
        assert!(
            !stack.has(service) || stack.runs(service),
            "the scenario ended without {service:?}, so the read models can't be verified: restart it, or \
             say why not with Stack::leave_unverified"
        );
    }
    let record = stack.open_record().await;
    let catalogue = stack.open_catalogue().await;
    let read_models = Live::new(Arc::clone(&catalogue));
    eventually("everything has been projected", CATCHING_UP, || async {
        let last = record.log.tail().await.ok()?.last;
        let checkpoint = read_models.checkpoint().await.ok()??;
        (checkpoint.position >= last).then_some(())
    })
    .await;
    let (options, stop) = (verify::Options::default(), CancellationToken::new());
    let report = projector::verify_generation(
        &record,
        catalogue.as_ref(),
        None,
        "the test",
        &options,
        &stop,
    );
    let report = report
        .await
        .unwrap_or_else(|error| panic!("can't verify the read models: {error}"));
    assert!(
        report.is_equal(),
        "the read models are not what the log gives:\n{report}"
    );
}
