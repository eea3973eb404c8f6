//! Gathers what a decision is made from: the users, rooms, messages and holds that a command touches.

use event_log::{Filter, LogError, Position, Recorded};
use events::{Caller, Command, MessageId, PostedMessage, RoomId, State, Subject};
use futures::TryStreamExt;

use crate::Commands;

impl Commands {
    /// What `command` touches, as the log knows it.
    pub(crate) async fn gather(
        &self,
        caller: Caller,
        command: &Command,
    ) -> Result<State, LogError> {
        let mut state = State::default();
        match command {
            Command::CreateUser { .. } => {}
            Command::DeleteUser { user } => state.insert_user(self.directory.user(*user).await?),
            Command::EraseUser { user } => {
                state.insert_user(self.directory.user(*user).await?);
                self.gather_holds(&mut state).await?;
            }
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
            Command::MarkRead { room, up_to } => {
                state.insert_room(self.directory.room(*room).await?);
                if let Some(message) = up_to {
                    state.insert_message(self.message(*message).await?);
                }
            }
            Command::EditMessage { room, message, .. } => {
                state.insert_room(self.directory.room(*room).await?);
                state.insert_message(self.message(*message).await?);
            }
            Command::DeleteMessage { message } => {
                if let Some(message) = self.message(*message).await? {
                    state.insert_room(self.directory.room(message.room).await?);
                    state.insert_message(message);
                }
            }
            Command::DeleteRoom { room }
            | Command::HoldRoom { room, .. }
            | Command::ReleaseRoom { room }
            | Command::ExpireMessages { room, .. } => {
                state.insert_room(self.directory.room(*room).await?);
                self.gather_hold(&mut state, *room).await?;
                if let Command::ExpireMessages { .. } = command {
                    self.gather_expiry(&mut state, *room).await?;
                }
            }
        }
        Ok(state)
    }

    /// The message as it was posted; `None` when there is none with this id.
    async fn message(&self, id: MessageId) -> Result<Option<PostedMessage>, LogError> {
        let Some(recorded) = self.record.log.get(id.position()).await? else {
            return Ok(None);
        };
        let envelope = self.record.decode(&recorded).await?;
        Ok(envelope
            .ok()
            .and_then(|envelope| PostedMessage::after(recorded.position, &envelope)))
    }

    /// Whether the room is under legal hold.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn is_held(&self, room: RoomId) -> Result<bool, LogError> {
        let mut state = State::default();
        self.gather_hold(&mut state, room).await?;
        Ok(state.is_held(room))
    }

    /// The room's legal holds.
    async fn gather_hold(&self, state: &mut State, room: RoomId) -> Result<(), LogError> {
        match self.record.log.last_of(Subject::RoomHold(room)).await? {
            Some(last) => self.apply_hold(state, &last).await,
            None => Ok(()),
        }
    }

    /// Up to where the room's texts have expired.
    async fn gather_expiry(&self, state: &mut State, room: RoomId) -> Result<(), LogError> {
        if let Some(last) = self
            .record
            .log
            .last_of(Subject::RoomRetention(room))
            .await?
            && let Ok(envelope) = self.record.decode(&last).await?
        {
            state.apply_expiry(&envelope.event);
        }
        Ok(())
    }

    /// Which rooms are under legal hold: few ever are.
    async fn gather_holds(&self, state: &mut State) -> Result<(), LogError> {
        let mut holds = self.record.log.read(Filter::Holds, Position::ZERO).await?;
        while let Some(recorded) = holds.try_next().await? {
            self.apply_hold(state, &recorded).await?;
        }
        drop(holds);
        for room in state.held_rooms() {
            state.insert_room(self.directory.room(room).await?);
        }
        Ok(())
    }

    async fn apply_hold(&self, state: &mut State, recorded: &Recorded) -> Result<(), LogError> {
        if let Ok(envelope) = self.record.decode(recorded).await? {
            state.apply_hold(recorded.position, &envelope.event);
        }
        Ok(())
    }
}
