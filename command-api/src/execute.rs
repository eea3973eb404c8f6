//! Carries a command of a client out: finds late repetitions, and waits for the projection.

use std::time::Duration;

use commands::{CarriedOut, CommandError};
use contract::texts;
use event_log::LogError;
use events::{Caller, Command, Envelope, Event, IdempotencyKey, Position, Refusal, Subject};
use platform::error::ApiError;

use crate::caller::Handling;
use crate::{Options, PROJECTION_WAIT};

/// How long to look for a late repetition in the read models before going on without.
const KEY_LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);

/// The same while they are known to be down: commands go on at nearly their usual pace.
const KEY_LOOKUP_TIMEOUT_WHILE_DOWN: Duration = Duration::from_millis(50);

/// An event that a command led to, now or when it was first sent.
#[derive(Debug)]
pub(crate) struct Done {
    /// Where the event stands.
    pub(crate) position: Position,
    /// The event as it stands in the log.
    pub(crate) envelope: Envelope,
    /// Whether the read models have it.
    pub(crate) projected: bool,
}

/// What became of a command.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It led to an event.
    Done(Box<Done>),
    /// What it asks for was already so.
    Nothing(Unchanged),
}

/// What made an event superfluous.
#[derive(Debug, Default)]
pub(crate) struct Unchanged {
    /// Whose history says that it was already so; `None` where nothing is known of what is asked for.
    pub(crate) subject: Option<Subject>,
    /// The event that made it so: who reads from there on sees what the answer says.
    pub(crate) position: Option<Position>,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The domain refuses it.
    Refused(Refusal),
    /// Anything else, as the client is told.
    Api(ApiError),
}

impl Failure {
    /// Something that the domain's rules exclude.
    pub(crate) fn impossible(what: &'static str) -> ApiError {
        ApiError::internal(&anyhow::anyhow!(what))
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let refusal = match failure {
            Failure::Api(error) => return error,
            Failure::Refused(refusal) => refusal,
        };
        match &refusal {
            Refusal::NoCaller => Self::unauthorized(texts::NO_TOKEN),
            Refusal::UnknownRoom(_) => Self::not_found(texts::UNKNOWN_ROOM),
            Refusal::UnknownUsers(_) => Self::not_found(texts::UNKNOWN_USER),
            Refusal::UnknownMessage(_) => Self::not_found(texts::UNKNOWN_MESSAGE),
            Refusal::NotAMember => Self::forbidden(texts::NOT_A_MEMBER),
            Refusal::NotAllowed(_) => Self::forbidden(refusal.to_string()),
            Refusal::UnderHold(_) => {
                Self::under_hold(format!("{refusal}; it can be done once they are released"))
            }
        }
    }
}

impl Outcome {
    /// Where the command's event stands.
    pub(crate) fn position(&self) -> Option<Position> {
        match self {
            Self::Done(done) => Some(done.position),
            Self::Nothing(unchanged) => unchanged.position,
        }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal) => Self::Refused(refusal),
            CommandError::OtherRequest => Self::Api(ApiError::unprocessable(error.to_string())),
            CommandError::Contended | CommandError::Missing => {
                Self::Api(ApiError::unavailable(error.to_string(), 1))
            }
            CommandError::Destroyed(_) => Self::Api(ApiError::forbidden(error.to_string())),
            CommandError::Unreadable(error) => Self::Api(ApiError::internal(&error.into())),
            CommandError::Log(error) => error.into(),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Api(error.into())
    }
}

impl Options {
    /// Carries `command` out for `caller`.
    pub(crate) async fn execute(
        &self,
        caller: Caller,
        handling: &Handling,
        command: &Command,
    ) -> Result<Outcome, Failure> {
        let key = handling.key.as_ref();
        let repeated = match key {
            Some(key) => self.find_repetition(caller, key).await,
            None => None,
        };
        let carried_out = match repeated {
            Some(position) => self.commands.repeated(command, position).await?,
            None => self.commands.carry_out(caller, key, command).await?,
        };
        let (position, envelope) = match carried_out {
            CarriedOut::Event(position, envelope) => (position, *envelope),
            CarriedOut::Nothing(subject) => {
                let position = self.last_event(subject).await?;
                if let Some(position) = position {
                    self.wait_for_projection(position, handling).await;
                }
                return Ok(Outcome::Nothing(Unchanged { subject, position }));
            }
        };
        let projected = self.wait_for_projection(position, handling).await;
        Ok(Outcome::Done(Box::new(Done {
            position,
            envelope,
            projected,
        })))
    }

    /// Where the event stands that the same actor's request with the same key led to earlier, by the read
    /// models: the log itself recognises a repetition for a limited time only. When they can't be asked, the
    /// log's own recognition has to do.
    async fn find_repetition(&self, caller: Caller, key: &IdempotencyKey) -> Option<Position> {
        let id = Envelope::deduplication_id_for(caller.user, key);
        let lookup = self.read_models.position_of_key(id);
        let timeout = match self.progress.read_models_are_down() {
            true => KEY_LOOKUP_TIMEOUT_WHILE_DOWN,
            false => KEY_LOOKUP_TIMEOUT,
        };
        match tokio::time::timeout(timeout, lookup).await {
            Ok(Ok(position)) => position,
            Ok(Err(error)) => {
                tracing::warn!(%error, "can't look an idempotency key up");
                None
            }
            Err(_) => {
                tracing::warn!("looking an idempotency key up takes too long");
                None
            }
        }
    }

    /// Where the last event of a subject stands, if there is any.
    async fn last_event(&self, subject: Option<Subject>) -> Result<Option<Position>, LogError> {
        let directory = &self.commands.directory;
        Ok(match subject {
            Some(Subject::User(user)) => directory.user(user).await?.map(|it| it.position),
            Some(Subject::RoomLifecycle(room)) => directory.room(room).await?.map(|it| it.position),
            Some(subject @ Subject::RoomHold(_)) => {
                let last = self.commands.record.log.last_of(subject).await?;
                last.map(|last| last.position)
            }
            Some(Subject::RoomTimeline(_) | Subject::RoomRetention(_) | Subject::Audit) | None => {
                None
            }
        })
    }

    async fn wait_for_projection(&self, position: Position, handling: &Handling) -> bool {
        let wait = if handling.respond_async || self.progress.projector_is_down() {
            Duration::ZERO
        } else {
            PROJECTION_WAIT
        };
        self.progress.wait_for(position, wait).await
    }
}

/// The event of `done`, where a command can only have led to one type of event.
pub(crate) fn unexpected(event: &Event) -> ApiError {
    ApiError::internal(&anyhow::anyhow!(
        "a command led to an event of type {}",
        event.type_name()
    ))
}
