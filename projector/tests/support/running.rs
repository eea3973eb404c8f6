//! A projector in the background.

use projector::{Options, Status};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A projector with a runtime of its own, so that all of it can end at any moment.
pub struct Running {
    pub status: Status,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    runtime: Runtime,
}

impl Running {
    pub fn start(options: Options) -> Self {
        let (runtime, stop) = (Runtime::new().unwrap(), CancellationToken::new());
        Self {
            status: options.status.clone(),
            task: runtime.spawn(projector::run(options, stop.clone())),
            stop,
            runtime,
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.runtime.shutdown_background();
    }

    /// As `kill -9` would.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }
}
