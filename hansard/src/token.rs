//! `hansard token`: a token made by hand. With `auth=token` the first user has no other way to get one.

use std::time::Duration;

use events::{UserId, UserType};
use platform::auth::Auth;
use platform::config::{Args, Config};
use platform::role::Role;

/// Whose token, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// The user's id: 32 lower-case hex digits
    #[arg(long, value_name = "ID")]
    user: UserId,

    /// What kind of user it is: consumer or support
    #[arg(long = "type", value_name = "TYPE")]
    user_type: UserType,

    /// What the holder may do: member, support, auditor or admin [default: support for the type support, else
    /// member]
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,

    /// How long the token is valid, in seconds [default: token_ttl_seconds of the configuration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100 * 366 * 24 * 60 * 60))]
    ttl: Option<u64>,
}

pub(crate) fn print(args: &Args, token: &TokenArgs) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    let auth = Auth::load(&config)?;
    let time_to_live = token.ttl.map_or(config.token_ttl(), Duration::from_secs);
    crate::print_line(&auth.issue_for(token.user, token.user_type, token.role, time_to_live))
}
