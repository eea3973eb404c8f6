//! Hands each signed tree head to a webhook: `POST`, with the signed note as `text/plain`. Nothing waits for
//! it. While it can't be reached the newest tree head is tried again and again; it says all that older ones
//! said.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use crate::Status;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The pauses between attempts: from this, twice as long each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// How long the last tree head is tried after the notary has stopped.
const LAST: Duration = Duration::from_secs(5);

/// Where tree heads are posted to.
#[derive(Debug, Clone)]
pub struct Webhook {
    url: Url,
    agent: Agent,
}

impl Webhook {
    /// The webhook at `url`, http or https. A server must show a certificate that the system trusts.
    pub fn new(url: Url) -> Self {
        Self::trusting(url, RootCerts::PlatformVerifier)
    }

    /// As [`new`](Self::new), trusting others than the system does.
    pub fn trusting(url: Url, roots: RootCerts) -> Self {
        let tls = TlsConfig::builder().root_certs(roots).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(ATTEMPT))
            .max_redirects(0)
            .http_status_as_error(false);
        Self {
            url,
            agent: config.build().into(),
        }
    }

    /// Begins to hand over what is [told](Telling::tell).
    pub(crate) fn start(self, status: Status) -> Telling {
        let (sender, mut notes) = watch::channel(String::new());
        let task = tokio::spawn(async move {
            // Until the sender is gone and what it sent last has been handed over.
            while notes.changed().await.is_ok() {
                let mut pause = FIRST;
                loop {
                    let note = notes.borrow_and_update().clone();
                    let Err(problem) = self.post(note).await else {
                        status.webhook(None);
                        break;
                    };
                    tracing::warn!("the tree head was not handed to the webhook: {problem}");
                    status.webhook(Some(format!(
                        "the webhook does not take tree heads: {problem}"
                    )));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        });
        Telling { sender, task }
    }

    async fn post(&self, note: String) -> Result<(), String> {
        let request = self
            .agent
            .post(self.url.as_str())
            .content_type("text/plain; charset=utf-8");
        let sent = tokio::task::spawn_blocking(move || request.send(note));
        match sent.await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answers {}", answer.status())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The way to a webhook.
pub(crate) struct Telling {
    sender: watch::Sender<String>,
    task: JoinHandle<()>,
}

impl Telling {
    /// Hands over this tree head, in place of one that has not got there yet.
    pub(crate) fn tell(&self, note: &str) {
        self.sender.send_replace(note.to_owned());
    }

    /// Waits a little until the last one has got there.
    pub(crate) async fn finish(self) {
        drop(self.sender);
        let mut task = self.task;
        if tokio::time::timeout(LAST, &mut task).await.is_err() {
            task.abort();
        }
    }
}
