//! Carries commands out: gathers the state they touch from the log, decides, and appends. Whoever commands, a
//! client over HTTP, an operator at the command line, or Hansard itself when texts expire, does it here.

mod gather;

use directory::Directory;
use event_log::{LogError, Position};
use events::{
    Caller, Command, Decision, DecodeError, Envelope, Event, Expect, IdempotencyKey, KeyId,
    Refusal, State, Subject, decide,
};
use keys::{AppendError, Record, SealError};

/// How often a command is decided again because its subject changed in between. Every time somebody else's
/// command succeeded, so more than a few mean something is wrong.
const ATTEMPTS: usize = 8;

/// What carries commands out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands {
    /// What is appended to.
    pub record: Record,
    /// Users and rooms as the record knows them.
    pub directory: Directory,
}

/// What a command came to.
#[derive(Debug)]
pub enum CarriedOut {
    /// It led to this event, now or when it was first sent.
    Event(Position, Box<Envelope>),
    /// What it asks for was already so, which the history of this subject says; `None` where nothing is known
    /// of what is asked for.
    Nothing(Option<Subject>),
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The domain refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new one for each request")]
    OtherRequest,
    /// Others changed the same thing again and again.
    #[error("too many others are changing the same thing; try again")]
    Contended,
    /// The log recognised the request, but does not have its event.
    #[error("the log does not have the event it recognised; try again")]
    Missing,
    /// The log recognised the request, but its event can't be read.
    #[error(transparent)]
    Unreadable(DecodeError),
    /// A key that it takes has been destroyed meanwhile.
    #[error("{}", destroyed(.0))]
    Destroyed(KeyId),
    /// The log, or its keys, could not be reached or used.
    #[error(transparent)]
    Log(#[from] LogError),
}

fn destroyed(key: &KeyId) -> &'static str {
    match key {
        KeyId::Person(_) => "the user who calls has been erased",
        KeyId::Period { .. } => "what was said in this room in this month has expired",
    }
}

impl From<AppendError> for CommandError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Seal(SealError::Destroyed(key)) => Self::Destroyed(key),
            AppendError::Seal(SealError::Keys(error)) => Self::Log(error.into()),
            AppendError::Log(error) => Self::Log(error),
        }
    }
}

impl Commands {
    /// Carries `command` out for `caller`. A repetition with the same `key` has no further effect for as long
    /// as the log recognises it.
    ///
    /// # Errors
    /// [`CommandError`]. Nothing was appended, except perhaps with [`CommandError::Log`]: then repeat it.
    pub async fn carry_out(
        &self,
        caller: Caller,
        key: Option<&IdempotencyKey>,
        command: &Command,
    ) -> Result<CarriedOut, CommandError> {
        let carried_out = self.decide_and_append(caller, key, command).await?;
        self.complete(command).await?;
        Ok(carried_out)
    }

    async fn decide_and_append(
        &self,
        caller: Caller,
        key: Option<&IdempotencyKey>,
        command: &Command,
    ) -> Result<CarriedOut, CommandError> {
        for _ in 0..ATTEMPTS {
            let state = self.gather(caller, command).await?;
            let no_event = match decide(&state, caller, command) {
                Ok(Decision::Append(event, expect)) => {
                    match self.append(caller, key, command, event, expect).await? {
                        Some(carried_out) => return Ok(carried_out),
                        None => continue,
                    }
                }
                Ok(Decision::Nothing) => Ok(()),
                Err(refusal) => Err(refusal),
            };
            let subject = lifecycle_subject(&state, caller, command);
            let own = self.own_last_event(subject, caller, key, command);
            return match (own.await?, no_event) {
                (Some(own), _) => Ok(own),
                (None, Ok(())) => Ok(CarriedOut::Nothing(subject)),
                (None, Err(refusal)) => Err(refusal.into()),
            };
        }
        Err(CommandError::Contended)
    }

    /// What `command` came to when it was first sent: its event stands at `position`.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn repeated(
        &self,
        command: &Command,
        position: Position,
    ) -> Result<CarriedOut, CommandError> {
        let carried_out = self.first_event(command, position).await?;
        self.complete(command).await?;
        Ok(carried_out)
    }

    async fn first_event(
        &self,
        command: &Command,
        position: Position,
    ) -> Result<CarriedOut, CommandError> {
        let recorded = self.record.log.get(position).await?;
        let recorded = recorded.ok_or(CommandError::Missing)?;
        let envelope = self.record.decode(&recorded).await?;
        let envelope = envelope.map_err(CommandError::Unreadable)?;
        self.directory.observe(position, &envelope);
        same_request(command, position, envelope)
    }

    /// What is to be done once the event is in the log. An erasure is the event and then the destruction of the
    /// key: whatever stops in between, to repeat the command completes it, as does whoever projects the event.
    /// Somebody who was erased long ago loses the key again, should an older copy of the keys have brought it
    /// back.
    async fn complete(&self, command: &Command) -> Result<(), CommandError> {
        if let Command::EraseUser { user } = command {
            let destroyed = self.record.keyring.destroy(KeyId::Person(*user)).await;
            destroyed.map_err(LogError::from)?;
        }
        Ok(())
    }

    /// Appends what was decided; `None` when the subject has changed since, so that it must be decided
    /// again.
    async fn append(
        &self,
        caller: Caller,
        key: Option<&IdempotencyKey>,
        command: &Command,
        event: Event,
        expect: Expect,
    ) -> Result<Option<CarriedOut>, CommandError> {
        let subject = event.subject();
        let envelope = Envelope::new(event, caller.user, key.cloned());
        match self.record.append(&envelope, expect).await {
            Ok(appended) if appended.duplicate => {
                self.first_event(command, appended.position).await.map(Some)
            }
            Ok(appended) => {
                self.directory.observe(appended.position, &envelope);
                let envelope = Box::new(envelope);
                Ok(Some(CarriedOut::Event(appended.position, envelope)))
            }
            Err(AppendError::Log(LogError::Conflict(_))) => {
                self.refresh(subject).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where deciding leads to no event: the last event of the command's lifecycle subject, if this very
    /// request led to it earlier. So a repeated deletion answers what the first one did.
    async fn own_last_event(
        &self,
        subject: Option<Subject>,
        caller: Caller,
        key: Option<&IdempotencyKey>,
        command: &Command,
    ) -> Result<Option<CarriedOut>, CommandError> {
        let (Some(key), Some(subject)) = (key, subject) else {
            return Ok(None);
        };
        let Some(last) = self.record.log.last_of(subject).await? else {
            return Ok(None);
        };
        let Ok(envelope) = self.record.decode(&last).await? else {
            return Ok(None);
        };
        let own = envelope.actor == caller.user && envelope.key.as_ref() == Some(key);
        match own {
            true => same_request(command, last.position, envelope).map(Some),
            false => Ok(None),
        }
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
}

/// The subject whose last event tells whether `command` was carried out; `None` for commands on timelines,
/// whose repetition the log recognises.
fn lifecycle_subject(state: &State, caller: Caller, command: &Command) -> Option<Subject> {
    match command {
        Command::DeleteUser { user } | Command::EraseUser { user } => Some(Subject::User(*user)),
        Command::DeleteRoom { room } => Some(Subject::RoomLifecycle(*room)),
        Command::InitiateRoom { users, room_type } => {
            let members = Command::room_members(users, caller.user?);
            let (id, _) = state.room_of(*room_type, &members);
            Some(Subject::RoomLifecycle(id))
        }
        Command::HoldRoom { room, .. } | Command::ReleaseRoom { room } => {
            Some(Subject::RoomHold(*room))
        }
        Command::CreateUser { .. }
        | Command::PostMessage { .. }
        | Command::MarkRead { .. }
        | Command::EditMessage { .. }
        | Command::DeleteMessage { .. }
        | Command::ExpireMessages { .. } => None,
    }
}

fn same_request(
    command: &Command,
    position: Position,
    envelope: Envelope,
) -> Result<CarriedOut, CommandError> {
    match command.leads_to(&envelope.event) {
        true => Ok(CarriedOut::Event(position, Box::new(envelope))),
        false => Err(CommandError::OtherRequest),
    }
}
