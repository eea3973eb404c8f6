//! Stopping when asked to: SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once, with
/// the exit code that shells give to a process killed by that signal.
///
/// # Errors
/// Signals can't be handled on this system.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        received(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping");
        token.cancel();
        let number = received(&mut terminate, &mut interrupt).await;
        tracing::warn!("stopping at once");
        std::process::exit(128 + number);
    });
    Ok(shutdown)
}

/// Waits for either signal; its number.
async fn received(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
