//! The one binary: every role in one process (`serve`), and the operator's commands.

mod command;
mod dead_letters;
mod existing;
mod export;
mod healthcheck;
mod keys;
mod openapi;
mod progress;
mod rebuild;
mod replay;
mod serve;
mod token;
mod tree;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use platform::config::Args;

pub use openapi::document as openapi_document;

/// A chat backend whose record can be trusted: every command becomes an event in an append-only log, and
/// everything people read is derived from it
#[derive(Debug, Parser)]
#[command(
    name = "hansard",
    version,
    after_help = "Without a command, hansard serves. Settings come from defaults, a TOML file, HANSARD_* \
                  variables and flags; each overrides the ones before it."
)]
pub struct Cli {
    #[command(flatten)]
    args: Args,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve everything from one process: commands, queries, WebSockets, projection
    Serve,
    /// Replay events from the log, as they were recorded
    Replay(audit::ReplayArgs),
    /// Export what happened in a room: one archive with the proof of it, which a stranger can verify
    Export(export::ExportArgs),
    /// Make the read models anew from the log, while the present ones are read, and then read those
    Rebuild(rebuild::RebuildArgs),
    /// Look at the events that could not be projected, and try again
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Verify that what is stored is what the log gives
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Erase somebody for ever
    #[command(subcommand)]
    Erase(command::EraseCommand),
    /// Put something under legal hold
    #[command(subcommand)]
    Hold(command::HoldCommand),
    /// Release something from legal hold
    #[command(subcommand)]
    Release(command::ReleaseCommand),
    /// Look at the keys that personal texts are sealed with, and change the master key
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// The Merkle tree over the log and the keys that its heads are signed with
    #[command(subcommand)]
    Tree(tree::TreeCommand),
    /// Print a token for a user, signed with the configured secret
    Token(token::TokenArgs),
    /// Print the API's description, OpenAPI 3.1 as JSON
    Openapi,
    /// Ask a service whether it is ready; exit with 0 if it is
    Healthcheck(healthcheck::HealthcheckArgs),
}

/// Does what the command line says.
pub fn run(cli: &Cli) -> ExitCode {
    let args = &cli.args;
    match &cli.command {
        None | Some(Command::Serve) => platform::run("hansard", args, serve::serve),
        Some(Command::Replay(replay)) => {
            platform::run("hansard", args, |context| replay::replay(context, replay))
        }
        Some(Command::Export(export)) => {
            platform::run("hansard", args, |context| export::export(context, export))
        }
        Some(Command::Rebuild(rebuild)) => platform::run("hansard", args, |context| {
            rebuild::rebuild(context, rebuild)
        }),
        Some(Command::DeadLetters(command)) => platform::run("hansard", args, |context| {
            dead_letters::dead_letters(context, command)
        }),
        Some(Command::Verify(command)) => verify::verify(args, command),
        Some(Command::Erase(what)) => {
            platform::run("hansard", args, |context| command::erase(context, what))
        }
        Some(Command::Hold(what)) => {
            platform::run("hansard", args, |context| command::hold(context, what))
        }
        Some(Command::Release(what)) => {
            platform::run("hansard", args, |context| command::release(context, what))
        }
        Some(Command::Keys(command)) => {
            platform::run("hansard", args, |context| keys::keys(context, command))
        }
        Some(Command::Tree(command)) => tree::tree(args, command),
        Some(Command::Token(token)) => platform::exit("hansard", token::print(args, token)),
        Some(Command::Openapi) => platform::exit("hansard", openapi::print()),
        Some(Command::Healthcheck(check)) => platform::exit("hansard", healthcheck::check(check)),
    }
}

/// Writes what a command was asked to print, as a line. A reader that has gone away is no error.
fn print_line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("can't write to standard output"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
