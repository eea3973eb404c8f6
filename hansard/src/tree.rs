//! `hansard tree`: the Merkle tree over the log, and the keys that its heads are signed with.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use notary::HeadsFile;
use platform::Context;
use platform::config::{Args, Config};
use platform::signing;

use crate::existing::{open_existing_catalogue, open_existing_log};

/// What to do with the tree.
#[derive(Debug, Subcommand)]
pub(crate) enum TreeCommand {
    /// Print the public keys that tree heads are checked with, the one that signs now first
    Key {
        /// Print the first one in PEM, as openssl reads it
        #[arg(long)]
        pem: bool,
    },
    /// Print a new signing key: a line for signing_key_file, to be kept secret
    NewKey {
        /// The log's name, such as example.com/chat; it must stay the same when the key is changed
        name: String,
    },
    /// Give the present tree up and begin a new one over the log as it is now: after a backup was restored, or
    /// the log was replaced on purpose. The old tree and its heads are kept
    BeginAnew,
}

pub(crate) fn tree(args: &Args, command: &TreeCommand) -> ExitCode {
    match command {
        TreeCommand::Key { pem } => platform::exit("hansard", print_keys(args, *pem)),
        TreeCommand::NewKey { name } => platform::exit("hansard", print_new_key(name)),
        TreeCommand::BeginAnew => platform::run("hansard", args, begin_anew),
    }
}

fn print_keys(args: &Args, pem: bool) -> anyhow::Result<()> {
    let keys = signing::load_existing(&Config::load(args)?)?;
    let public = keys.iter().map(|key| key.public());
    match pem {
        true => {
            let pem = public.take(1).map(|key| key.to_pem()).collect::<String>();
            crate::print_line(pem.trim_end())
        }
        false => {
            let lines: Vec<String> = public.map(ToString::to_string).collect();
            crate::print_line(&lines.join("\n"))
        }
    }
}

fn print_new_key(name: &str) -> anyhow::Result<()> {
    crate::print_line(signing::generate(name)?.expose())
}

async fn begin_anew(context: Context) -> anyhow::Result<()> {
    let log = open_existing_log(&context).await?;
    let store = open_existing_catalogue(&context).await?.tree();
    let last = store.newest().await?.map_or(0, |tree| tree.number);
    let file = HeadsFile::new(context.config.tree_heads_path());
    let aside = notary::set_aside(&file, last)
        .with_context(|| format!("can't move {} aside", file.path().display()))?;
    if let Some(aside) = aside {
        tracing::info!("the old tree heads are in {}", aside.display());
    }
    let begun = store.begin(last, &log.tail().await?.incarnation).await?;
    crate::print_line(&format!(
        "tree {} begins over log {:?}; a projector fills it and signs",
        begun.number, begun.log.0
    ))
}
