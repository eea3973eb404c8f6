//! The connection to the servers: it comes back by itself, and no request hangs for ever.

use std::fmt::Display;
use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{Credentials, LogError, NatsAddress};

/// How long opening waits for a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the server is pinged. After two pings without an answer the connection counts as lost, so a
/// half-open one is noticed within three intervals.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// How long a request waits for a lost connection to return: it has not been sent yet, so there is
/// nothing to find out by waiting longer.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long one request waits for its answer before it is sent again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause before a request is sent again, and between attempts to reconnect.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Whether there is a connection, and which.
#[derive(Debug, Clone, Copy)]
struct Link {
    up: bool,
    /// How many times the connection has been lost: what was under way on an earlier one is lost.
    losses: u64,
    /// How many messages were dropped on this side because they were not read in time.
    drops: u64,
}

impl Link {
    /// Changes with everything by which messages may have been missed.
    fn misses(self) -> (u64, u64) {
        (self.losses, self.drops)
    }
}

/// A connection to NATS servers. Clones share it.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    context: jetstream::Context,
    link: watch::Receiver<Link>,
    hosts: String,
}

/// Notices when the connection is lost, however short the loss.
pub(super) struct LossWatch {
    link: watch::Receiver<Link>,
    losses: u64,
}

impl LossWatch {
    /// Returns when the connection that was there when the watch began is lost.
    pub(super) async fn lost(&mut self) {
        let losses = self.losses;
        // An error means that the client has been closed.
        let _ = self.link.wait_for(|link| link.losses != losses).await;
    }
}

/// Notices that messages may have been missed.
pub(super) struct MissWatch {
    link: watch::Receiver<Link>,
    misses: (u64, u64),
}

impl MissWatch {
    /// Returns when messages may have been missed since the last time, and there is a connection.
    pub(super) async fn missed(&mut self) {
        let known = self.misses;
        let news = |link: &Link| link.up && link.misses() != known;
        let misses = self.link.wait_for(news).await.map(|link| link.misses());
        match misses {
            Ok(misses) => self.misses = misses,
            // The client has been closed, and the messages end too.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Connection {
    /// Connects to one of the servers.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when no server answers within a few seconds; [`LogError::Unusable`] when the
    /// login is refused.
    pub async fn open(address: &NatsAddress) -> Result<Self, LogError> {
        let (report, link) = watch::channel(Link {
            up: true,
            losses: 0,
            drops: 0,
        });
        let hosts = address.hosts();
        let options = ConnectOptions::new()
            .name("hansard")
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback({
                let hosts = hosts.clone();
                move |event| {
                    notice(&report, &hosts, &event);
                    std::future::ready(())
                }
            });
        let options = match &address.credentials {
            None => options,
            Some(Credentials::UserPassword(user, password)) => {
                options.user_and_password(user.clone(), password.clone())
            }
            Some(Credentials::Token(token)) => options.token(token.clone()),
        };
        let connecting = options.connect(address.servers.clone());
        let client = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                        LogError::Unusable(format!("the NATS server at {hosts} refuses the login"))
                    }
                    _ => {
                        LogError::Unavailable(format!("no NATS server answers at {hosts}: {error}"))
                    }
                });
            }
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                return Err(LogError::Unavailable(format!(
                    "no NATS server answers at {hosts} within {seconds} s"
                )));
            }
        };
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIMEOUT)
            .build(client.clone());
        Ok(Self {
            client,
            context,
            link,
            hosts,
        })
    }

    pub(super) fn context(&self) -> &jetstream::Context {
        &self.context
    }

    /// The id of the server that is connected.
    pub(super) fn server_id(&self) -> String {
        self.client.server_info().server_id
    }

    /// Waits for a connection, a while.
    pub(super) async fn ready(&self) -> Result<LossWatch, LogError> {
        self.ready_until(Instant::now() + RECONNECT_PATIENCE).await
    }

    async fn ready_until(&self, deadline: Instant) -> Result<LossWatch, LogError> {
        let mut link = self.link.clone();
        let losses = match timeout_at(deadline, link.wait_for(|link| link.up)).await {
            Ok(Ok(link)) => link.losses,
            Ok(Err(_)) | Err(_) => return Err(self.unavailable("there is no connection")),
        };
        Ok(LossWatch { link, losses })
    }

    /// Sends a request until there is an answer or the deadline has passed. The request must bear
    /// repetition.
    ///
    /// # Errors
    /// [`LogError::TooLarge`], [`LogError::Unavailable`].
    pub async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, LogError> {
        let size = payload.len();
        let mut pause = Duration::from_millis(20);
        loop {
            let patience = deadline.min(Instant::now() + RECONNECT_PATIENCE);
            let mut watch = self.ready_until(patience).await?;
            let mut request = Request::new().payload(payload.clone()).timeout(None);
            if let Some(headers) = &headers {
                request = request.headers(headers.clone());
            }
            let answer_by = deadline.min(Instant::now() + ANSWER_TIMEOUT);
            let sending = self.client.send_request(subject.to_owned(), request);
            let reason = tokio::select! {
                answer = timeout_at(answer_by, sending) => match answer {
                    Ok(Ok(message)) => return Ok(message),
                    Ok(Err(error)) => match error.kind() {
                        RequestErrorKind::MaxPayloadExceeded => {
                            return Err(LogError::TooLarge { size });
                        }
                        RequestErrorKind::NoResponders => {
                            "JetStream or the stream is not there (yet)".to_owned()
                        }
                        _ => error.to_string(),
                    },
                    Err(_) => "no answer in time".to_owned(),
                },
                () = watch.lost() => "the connection was lost".to_owned(),
            };
            if Instant::now() + pause >= deadline {
                return Err(self.unavailable(&reason));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends a message that nobody answers, if it can be sent within `patience`.
    pub(super) async fn publish(
        &self,
        subject: &str,
        payload: Bytes,
        patience: Duration,
    ) -> Result<(), LogError> {
        // The client would keep it until there is a connection again, and send it out of date.
        if !self.link.borrow().up {
            return Err(self.unavailable("there is no connection"));
        }
        match timeout(patience, self.client.publish(subject.to_owned(), payload)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.unavailable(&error.to_string())),
            Err(_) => Err(self.unavailable("the queue to the server is full")),
        }
    }

    /// Subscribes to a subject. The subscription outlives lost connections.
    pub(super) async fn subscribe(
        &self,
        subject: &str,
    ) -> Result<(Subscriber, MissWatch), LogError> {
        let mut link = self.ready().await?.link;
        let misses = link.borrow_and_update().misses();
        let subscribing = self.client.subscribe(subject.to_owned());
        match timeout(ANSWER_TIMEOUT, subscribing).await {
            Ok(Ok(messages)) => Ok((messages, MissWatch { link, misses })),
            Ok(Err(error)) => Err(self.unavailable(&error.to_string())),
            Err(_) => Err(self.unavailable("the queue to the server is full")),
        }
    }

    pub(super) fn unavailable(&self, reason: &(impl Display + ?Sized)) -> LogError {
        LogError::Unavailable(format!("{}: {reason}", self.hosts))
    }
}

/// Grows to a limit; half of it is random, so that the clients of a restarted server don't come all at
/// once.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(6);
    let longest = (Duration::from_millis(10) * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::random_range(0.5..1.0))
}

/// Keeps the link's state and tells the operator.
fn notice(report: &watch::Sender<Link>, hosts: &str, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!(%hosts, "connected to NATS");
            report.send_modify(|link| link.up = true);
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!(%hosts, "the connection to NATS is lost");
            report.send_modify(|link| {
                link.up = false;
                link.losses += 1;
            });
        }
        Event::LameDuckMode | Event::Draining => {
            tracing::info!(%hosts, "the NATS server is about to stop");
        }
        Event::SlowConsumer(_) => {
            // One for each message: whom it concerns tells the operator, once.
            tracing::debug!(%hosts, "a NATS message was dropped");
            report.send_modify(|link| link.drops += 1);
        }
        Event::ServerError(error) => {
            tracing::warn!(%hosts, %error, "the NATS server reports an error")
        }
        Event::ClientError(error) => {
            tracing::warn!(%hosts, %error, "the NATS client reports an error")
        }
    }
}
