//! `hansard keys`: the keys that personal texts are sealed with, and the master key that they are wrapped with.

use ::keys::{census, rotate};
use clap::Subcommand;
use platform::Context;
use platform::startup::open_keys;

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
    let (store, masters) = open_keys(&context.config, &context.shutdown).await?;
    if let KeysCommand::Rotate { new } = command {
        if *new {
            let added = masters.add().await?;
            tracing::info!("master key {added} is now the first");
        }
        let rewrapped = rotate(store.as_ref(), &masters).await?;
        crate::print_line(&format!("wrapped {rewrapped} keys anew"))?;
    }
    let census = census(store.as_ref()).await?;
    let first = masters.ids().await?.first().copied();
    for (master, count) in &census.wrapped {
        let role = match Some(*master) == first {
            true => "the first of the file",
            false => "to be replaced by `hansard keys rotate`",
        };
        crate::print_line(&format!("master key {master}: {count} keys ({role})"))?;
    }
    crate::print_line(&format!("destroyed: {} keys", census.destroyed))?;
    let others: Vec<String> = masters
        .ids()
        .await?
        .iter()
        .filter(|id| Some(**id) != first && !census.wrapped.contains_key(id))
        .map(ToString::to_string)
        .collect();
    if !others.is_empty() {
        crate::print_line(&format!(
            "no key is wrapped with {} any more: remove it from the file once no older copy of the keys is \
             needed",
            others.join(", ")
        ))?;
    }
    Ok(())
}
