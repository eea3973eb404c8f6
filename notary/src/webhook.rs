//! Hands each signed tree head to a webhook: `POST`, with the signed note as `text/plain`. Nothing waits for
//! it. While it can't be reached the newest tree head is tried again and again; it says all that older ones
//! said.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use crate::Status;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The pauses between attempts: from this, twice as long each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// How long the last tree head is tried after the notary has stopped.
const LAST: Duration = Duration::from_secs(5);

/// The webhook can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// No client can be made.
    #[error("there can be no requests to the webhook: {0}")]
    Client(#[from] reqwest::Error),
}

/// Where tree heads are posted to.
#[derive(Debug, Clone)]
pub struct Webhook {
    url: Url,
    client: reqwest::Client,
}

impl Webhook {
    /// The webhook at `url`, http or https with the system's certificates.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn new(url: Url) -> Result<Self, WebhookError> {
        Self::with(url, |client| client)
    }

    /// As [`new`](Self::new), with a client that has further settings.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn with(
        url: Url,
        configure: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, WebhookError> {
        // Somebody else in the process may have chosen before; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(ATTEMPT);
        Ok(Self {
            url,
            client: configure(client).build()?,
        })
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
        let request = self.client.post(self.url.clone()).body(note);
        let sent = request
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .send();
        // The URL may carry a secret.
        let answer = sent.await.map_err(|error| in_full(&error.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answers {status}")),
        }
    }
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
