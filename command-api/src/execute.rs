//! Carries a command out: gathers the state it touches, decides, appends, and waits for the projection.

use std::time::Duration;

use contract::texts;
use event_log::{Filter, LogError, Recorded};
use events::{
    Caller, Command, Decision, Envelope, Event, Expect, IdempotencyKey, MessageId, Position,
    PostedMessage, Refusal, RoomId, State, Subject, decide,
};
use futures::TryStreamExt;
use keys::{AppendError, SealError};
use platform::error::ApiError;

use crate::caller::Handling;
use crate::{Options, PROJECTION_WAIT};

/// How often a command is decided again because its subject changed in between. Every time somebody else's
/// command succeeded, so more than a few mean something is wrong.
const ATTEMPTS: usize = 8;

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

/// What the first steps of carrying out a command came to.
enum Appended {
    Event(Position, Envelope),
    Nothing(Option<Subject>),
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
            Refusal::UnknownMessage(_) => Self::not_found("No message exists for this id"),
            Refusal::NotAMember => Self::forbidden(texts::NOT_A_MEMBER),
            Refusal::NotAllowed(_) => Self::forbidden(refusal.to_string()),
            Refusal::UnderHold(_) => Self::conflict(refusal.to_string()),
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

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            // Erased a moment ago, so that the decision did not know it yet.
            AppendError::Seal(SealError::Destroyed(_)) => Self::Refused(Refusal::NotAllowed(
                "the user who calls has been deleted, or the room's texts of this month have expired",
            )),
            AppendError::Seal(SealError::Keys(error)) => Self::Api(LogError::from(error).into()),
            AppendError::Log(error) => error.into(),
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
        let found = match &handling.key {
            Some(key) => self.find_repetition(caller, key, command).await?,
            None => None,
        };
        let appended = match found {
            Some((position, envelope)) => Appended::Event(position, envelope),
            None => self.decide_and_append(caller, handling, command).await?,
        };
        let (position, envelope) = match appended {
            Appended::Event(position, envelope) => (position, envelope),
            Appended::Nothing(subject) => {
                let position = self.last_event(subject).await?;
                if let Some(position) = position {
                    self.wait_for_projection(position, handling).await;
                }
                return Ok(Outcome::Nothing(Unchanged { subject, position }));
            }
        };
        self.directory.observe(position, &envelope);
        let projected = self.wait_for_projection(position, handling).await;
        Ok(Outcome::Done(Box::new(Done {
            position,
            envelope,
            projected,
        })))
    }

    async fn decide_and_append(
        &self,
        caller: Caller,
        handling: &Handling,
        command: &Command,
    ) -> Result<Appended, Failure> {
        for _ in 0..ATTEMPTS {
            let state = self.gather(caller, command).await?;
            let no_event = match decide(&state, caller, command) {
                Ok(Decision::Append(event, expect)) => {
                    match self
                        .append(caller, handling, command, event, expect)
                        .await?
                    {
                        Some(appended) => return Ok(appended),
                        None => continue,
                    }
                }
                Ok(Decision::Nothing) => Ok(()),
                Err(refusal) => Err(refusal),
            };
            let subject = lifecycle_subject(&state, caller, command);
            let own = self.own_last_event(subject, caller, handling, command);
            return match (own.await?, no_event) {
                (Some((position, envelope)), _) => Ok(Appended::Event(position, envelope)),
                (None, Ok(())) => Ok(Appended::Nothing(subject)),
                (None, Err(refusal)) => Err(Failure::Refused(refusal)),
            };
        }
        Err(Failure::Api(ApiError::unavailable(
            "too many others are changing the same thing; try again",
            1,
        )))
    }

    /// Appends what was decided; `None` when the subject has changed since, so that it must be decided
    /// again.
    async fn append(
        &self,
        caller: Caller,
        handling: &Handling,
        command: &Command,
        event: Event,
        expect: Expect,
    ) -> Result<Option<Appended>, Failure> {
        let subject = event.subject();
        let envelope = Envelope::new(event, caller.user, handling.key.clone());
        match self.record.append(&envelope, expect).await {
            Ok(appended) if appended.duplicate => {
                let first = self.recorded(appended.position).await?;
                let (position, envelope) = same_request(command, first)?;
                Ok(Some(Appended::Event(position, envelope)))
            }
            Ok(appended) => Ok(Some(Appended::Event(appended.position, envelope))),
            Err(AppendError::Log(LogError::Conflict(_))) => {
                self.refresh(subject).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The event that the same actor's request with the same key led to earlier, from the read models: the
    /// log itself recognises a repetition for a limited time only. When they can't be asked, the log's own
    /// recognition has to do.
    async fn find_repetition(
        &self,
        caller: Caller,
        key: &IdempotencyKey,
        command: &Command,
    ) -> Result<Option<(Position, Envelope)>, Failure> {
        let id = Envelope::deduplication_id_for(caller.user, key);
        let lookup = self.read_models.position_of_key(id);
        let timeout = match self.progress.read_models_are_down() {
            true => KEY_LOOKUP_TIMEOUT_WHILE_DOWN,
            false => KEY_LOOKUP_TIMEOUT,
        };
        let position = match tokio::time::timeout(timeout, lookup).await {
            Ok(Ok(Some(position))) => position,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => {
                tracing::warn!(%error, "can't look an idempotency key up");
                return Ok(None);
            }
            Err(_) => {
                tracing::warn!("looking an idempotency key up takes too long");
                return Ok(None);
            }
        };
        let first = self.recorded(position).await?;
        same_request(command, first).map(Some)
    }

    /// Where deciding leads to no event: the last event of the command's lifecycle subject, if this very
    /// request led to it earlier. So a repeated deletion answers what the first one did.
    async fn own_last_event(
        &self,
        subject: Option<Subject>,
        caller: Caller,
        handling: &Handling,
        command: &Command,
    ) -> Result<Option<(Position, Envelope)>, Failure> {
        let (Some(key), Some(subject)) = (&handling.key, subject) else {
            return Ok(None);
        };
        let Some(last) = self.record.log.last_of(subject).await? else {
            return Ok(None);
        };
        let Ok(envelope) = self.record.decode(&last).await? else {
            return Ok(None);
        };
        let own = envelope.actor == caller.user && envelope.key.as_ref() == Some(key);
        if !own {
            return Ok(None);
        }
        same_request(command, (last.position, envelope)).map(Some)
    }

    /// The users, rooms and messages that `command` touches, as the log knows them.
    async fn gather(&self, caller: Caller, command: &Command) -> Result<State, Failure> {
        let mut state = State::default();
        match command {
            Command::CreateUser { .. } => {}
            Command::DeleteUser { user } => state.insert_user(self.directory.user(*user).await?),
            Command::InitiateRoom { users, room_type } => {
                let Some(initiator) = caller.user else {
                    return Ok(state);
                };
                let members = Command::room_members(users, initiator);
                for user in self.directory.users(&members).await? {
                    state.insert_user(user);
                }
                // Each deletion of the room started a new generation: follow them to the newest.
                loop {
                    let (id, _) = state.room_of(*room_type, &members);
                    match self.directory.room(id).await? {
                        Some(room) if room.deleted => state.insert_room(room),
                        live_or_none => {
                            state.insert_room(live_or_none);
                            break;
                        }
                    }
                }
            }
            Command::PostMessage { room, .. } => {
                state.insert_room(self.directory.room(*room).await?);
            }
            Command::DeleteRoom { room } => {
                state.insert_room(self.directory.room(*room).await?);
                self.gather_hold(&mut state, *room).await?;
            }
            Command::MarkRead { room, up_to } => {
                state.insert_room(self.directory.room(*room).await?);
                if let Some(message) = up_to {
                    state.insert_message(self.message(*message).await?);
                }
            }
            Command::DeleteMessage { message } => {
                if let Some(message) = self.message(*message).await? {
                    state.insert_room(self.directory.room(message.room).await?);
                    state.insert_message(message);
                }
            }
            Command::EditMessage { room, message, .. } => {
                state.insert_room(self.directory.room(*room).await?);
                state.insert_message(self.message(*message).await?);
            }
            Command::EraseUser { user } => {
                state.insert_user(self.directory.user(*user).await?);
                self.gather_holds(&mut state).await?;
                for room in state.held_rooms() {
                    state.insert_room(self.directory.room(room).await?);
                }
            }
            Command::HoldRoom { room, .. }
            | Command::ReleaseRoom { room }
            | Command::ExpireMessages { room, .. } => {
                state.insert_room(self.directory.room(*room).await?);
                self.gather_hold(&mut state, *room).await?;
            }
        }
        Ok(state)
    }

    /// Whether the room is under legal hold.
    async fn gather_hold(&self, state: &mut State, room: RoomId) -> Result<(), LogError> {
        match self.record.log.last_of(Subject::RoomHold(room)).await? {
            Some(last) => self.apply_hold(state, &last).await,
            None => Ok(()),
        }
    }

    /// Which rooms are under legal hold: few ever are.
    async fn gather_holds(&self, state: &mut State) -> Result<(), LogError> {
        let mut holds = self.record.log.read(Filter::Holds, Position::ZERO).await?;
        while let Some(recorded) = holds.try_next().await? {
            self.apply_hold(state, &recorded).await?;
        }
        Ok(())
    }

    async fn apply_hold(&self, state: &mut State, recorded: &Recorded) -> Result<(), LogError> {
        if let Ok(envelope) = self.record.decode(recorded).await? {
            state.apply_hold(&envelope.event);
        }
        Ok(())
    }

    async fn message(&self, id: MessageId) -> Result<Option<PostedMessage>, LogError> {
        let Some(recorded) = self.record.log.get(id.position()).await? else {
            return Ok(None);
        };
        let envelope = self.record.decode(&recorded).await?;
        Ok(envelope
            .ok()
            .and_then(|envelope| PostedMessage::after(recorded.position, &envelope)))
    }

    async fn recorded(&self, position: Position) -> Result<(Position, Envelope), Failure> {
        let recorded = self.record.log.get(position).await?.ok_or_else(|| {
            Failure::Api(ApiError::unavailable(
                "the log does not have the event it recognised; try again",
                1,
            ))
        })?;
        let envelope = self.record.decode(&recorded).await?;
        let envelope = envelope.map_err(|error| Failure::Api(ApiError::internal(&error.into())))?;
        Ok((position, envelope))
    }

    /// Where the last event of a lifecycle stands, if there is any.
    async fn last_event(&self, subject: Option<Subject>) -> Result<Option<Position>, LogError> {
        Ok(match subject {
            Some(Subject::User(user)) => self.directory.user(user).await?.map(|it| it.position),
            Some(Subject::RoomLifecycle(room)) => {
                self.directory.room(room).await?.map(|it| it.position)
            }
            Some(subject @ Subject::RoomHold(_)) => self
                .record
                .log
                .last_of(subject)
                .await?
                .map(|last| last.position),
            Some(Subject::RoomTimeline(_) | Subject::Audit) | None => None,
        })
    }

    /// Reads the end of a subject that turned out to have changed.
    async fn refresh(&self, subject: Subject) -> Result<(), LogError> {
        if let Some(last) = self.record.log.last_of(subject).await?
            && let Ok(envelope) = self.record.decode(&last).await?
        {
            self.directory.observe(last.position, &envelope);
        }
        Ok(())
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

/// The lifecycle subject whose last event tells whether `command` was carried out; `None` for commands on
/// timelines, whose repetition the log recognises.
fn lifecycle_subject(state: &State, caller: Caller, command: &Command) -> Option<Subject> {
    match command {
        Command::DeleteUser { user } | Command::EraseUser { user } => Some(Subject::User(*user)),
        Command::HoldRoom { room, .. } | Command::ReleaseRoom { room } => {
            Some(Subject::RoomHold(*room))
        }
        Command::DeleteRoom { room } => Some(Subject::RoomLifecycle(*room)),
        Command::InitiateRoom { users, room_type } => {
            let members = Command::room_members(users, caller.user?);
            let (id, _) = state.room_of(*room_type, &members);
            Some(Subject::RoomLifecycle(id))
        }
        Command::CreateUser { .. }
        | Command::PostMessage { .. }
        | Command::MarkRead { .. }
        | Command::DeleteMessage { .. }
        | Command::EditMessage { .. }
        | Command::ExpireMessages { .. } => None,
    }
}

fn same_request(
    command: &Command,
    first: (Position, Envelope),
) -> Result<(Position, Envelope), Failure> {
    if command.leads_to(&first.1.event) {
        Ok(first)
    } else {
        Err(Failure::Api(ApiError::unprocessable(
            "this Idempotency-Key was used for another request; use a new one for each request",
        )))
    }
}

/// The event of `done`, where a command can only have led to one type of event.
pub(crate) fn unexpected(event: &Event) -> ApiError {
    ApiError::internal(&anyhow::anyhow!(
        "a command led to an event of type {}",
        event.type_name()
    ))
}
