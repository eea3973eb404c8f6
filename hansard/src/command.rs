//! `hansard erase`, `hold` and `release`: what an operator commands, beside everything that runs.

use commands::{CarriedOut, CommandError, Commands};
use directory::Directory;
use events::{Authority, Caller, Command, Refusal, RoomId, UserId};
use platform::Context;
use tokio_util::sync::CancellationToken;

use crate::existing::open_existing_record;

/// Whom or what to erase.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum EraseCommand {
    /// Delete a user, and make everything personal of it unreadable for ever: also in every copy of the log
    User {
        /// The user's id
        user: UserId,
    },
}

/// What to put under legal hold, or to release from it.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum HoldCommand {
    /// A room: until it is released, its texts don't expire, it can't be deleted, and none of its members can be
    /// erased
    Room {
        /// The room's id
        room: RoomId,
        /// Why, for the record: the name of a case, for example; nothing personal belongs here
        #[arg(long)]
        reason: String,
    },
}

/// What to release from legal hold.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ReleaseCommand {
    /// A room
    Room {
        /// The room's id
        room: RoomId,
    },
}

pub(crate) async fn erase(context: Context, what: &EraseCommand) -> anyhow::Result<()> {
    let EraseCommand::User { user } = *what;
    let done = match carry_out(context, Command::EraseUser { user }).await? {
        CarriedOut::Event(position, _) => {
            format!("erased at position {position}; the read models follow")
        }
        CarriedOut::Nothing(_) => "had been erased before".to_owned(),
    };
    crate::print_line(&format!("user {user}: {done}"))
}

pub(crate) async fn hold(context: Context, what: &HoldCommand) -> anyhow::Result<()> {
    let HoldCommand::Room { room, reason } = what;
    let command = Command::HoldRoom {
        room: *room,
        reason: reason.clone(),
    };
    let done = match carry_out(context, command).await? {
        CarriedOut::Event(position, _) => format!("under legal hold from position {position} on"),
        CarriedOut::Nothing(_) => "was under legal hold before".to_owned(),
    };
    crate::print_line(&format!("room {room}: {done}"))
}

pub(crate) async fn release(context: Context, what: &ReleaseCommand) -> anyhow::Result<()> {
    let ReleaseCommand::Room { room } = *what;
    let done = match carry_out(context, Command::ReleaseRoom { room }).await? {
        CarriedOut::Event(position, _) => {
            format!("released from legal hold at position {position}")
        }
        CarriedOut::Nothing(_) => "is under no legal hold".to_owned(),
    };
    crate::print_line(&format!("room {room}: {done}"))
}

async fn carry_out(context: Context, command: Command) -> anyhow::Result<CarriedOut> {
    let record = open_existing_record(&context).await?;
    // Without following the log: what it knows is read when it is needed.
    let stopped = CancellationToken::new();
    stopped.cancel();
    let commands = Commands {
        directory: Directory::start(record.clone(), stopped),
        record,
    };
    let operator = Caller {
        user: None,
        authority: Authority::Admin,
    };
    match commands.carry_out(operator, None, &command).await {
        Err(CommandError::Refused(refusal @ Refusal::UnderHold(_))) => {
            anyhow::bail!("{refusal}; release them first with `hansard release room ROOM`")
        }
        outcome => Ok(outcome?),
    }
}
