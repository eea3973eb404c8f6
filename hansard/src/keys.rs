//! `hansard keys`: the keys that personal texts are sealed with, and the master key that they are wrapped with.

use ::keys::{Census, MasterId, census, rotate};
use clap::Subcommand;
use platform::Context;

use crate::existing::open_existing_keys;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Count the keys by the master key that they are wrapped with, and those that were destroyed
    Status,
    /// Wrap every key with the first master key of the file, while services go on
    Rotate {
        /// First make a new master key and put it at the head of the file
        #[arg(long)]
        new: bool,
    },
}

pub(crate) async fn keys(context: Context, command: &KeysCommand) -> anyhow::Result<()> {
    let (store, masters) = open_existing_keys(&context).await?;
    if let KeysCommand::Rotate { new } = command {
        if *new {
            let added = masters.add().await?;
            crate::print_line(&format!("master key {added} is made, and is the first"))?;
        }
        let rewrapped = rotate(store.as_ref(), &masters).await?;
        crate::print_line(&format!("keys wrapped anew: {rewrapped}"))?;
    }
    let census = census(store.as_ref()).await?;
    for line in report(&masters.ids().await?, &census) {
        crate::print_line(&line)?;
    }
    Ok(())
}

/// What there is, by master key: `ids` are those of the file.
fn report(ids: &[MasterId], census: &Census) -> Vec<String> {
    let in_use = census.wrapped.keys().filter(|id| !ids.contains(id));
    let mut unneeded = Vec::new();
    let mut lines = Vec::new();
    for id in ids.iter().chain(in_use) {
        let count = census.wrapped.get(id).copied().unwrap_or_default();
        let role = if ids.first() == Some(id) {
            "the first of the file"
        } else if !ids.contains(id) {
            "NOT IN THE FILE: put it back, or these keys can't be used"
        } else if count > 0 {
            "`hansard keys rotate` wraps them with the first"
        } else {
            unneeded.push(id.to_string());
            "not needed"
        };
        lines.push(format!("keys wrapped with {id}: {count} ({role})"));
    }
    lines.push(format!("keys destroyed: {}", census.destroyed));
    if !unneeded.is_empty() {
        lines.push(format!(
            "remove {} from the master key file as soon as no older copy of the key store is to be restored",
            unneeded.join(", ")
        ));
    }
    lines
}
