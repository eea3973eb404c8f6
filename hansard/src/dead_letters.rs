//! `hansard dead-letters`: the events that could not be projected.

use std::fmt::Write;

use anyhow::Context as _;
use clap::Subcommand;
use events::Position;
use platform::Context;
use read_models::{DeadLetter, ReadModels};
use serde_json::json;

use crate::existing::open_existing_record;
use crate::rebuild::make_anew;

/// How many are read at a time.
const PAGE: u32 = 100;

/// What to do with the dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List the events that could not be projected: position, subject, size and reason
    List {
        /// Print each as a line of JSON, with its bytes in hexadecimal
        #[arg(long)]
        json: bool,
    },
    /// Show one of them with its bytes
    Show {
        /// Its position in the log: 16 hexadecimal digits, as it is listed
        position: Position,
    },
    /// Try again to project them, each in its place: makes the read models anew, like `hansard rebuild`
    Retry,
}

pub(crate) async fn dead_letters(
    context: Context,
    command: &DeadLettersCommand,
) -> anyhow::Result<()> {
    let (read_models, catalogue) = context.open_read_models().await?;
    let letters = all(read_models.as_ref()).await?;
    match command {
        DeadLettersCommand::List { json } => {
            for letter in &letters {
                crate::print_line(&match json {
                    true => as_json(letter).to_string(),
                    false => in_a_line(letter),
                })?;
            }
            tracing::info!("{} dead letters", letters.len());
            Ok(())
        }
        DeadLettersCommand::Show { position } => {
            let letter = letters.iter().find(|letter| letter.position == *position);
            let letter = letter.with_context(|| {
                format!(
                    "there is no dead letter at {position}; `hansard dead-letters list` has all"
                )
            })?;
            crate::print_line(&in_full(letter))
        }
        DeadLettersCommand::Retry => {
            if letters.is_empty() {
                return crate::print_line("there are no dead letters");
            }
            let record = open_existing_record(&context).await?;
            // From scratch: one that was begun before may have set them aside already.
            make_anew(&context, record, catalogue, true).await?;
            let left = all(read_models.as_ref()).await?;
            crate::print_line(&format!(
                "{} of {} dead letters are left",
                left.len(),
                letters.len()
            ))
        }
    }
}

async fn all(read_models: &dyn ReadModels) -> anyhow::Result<Vec<DeadLetter>> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let after = letters
            .last()
            .map_or(Position::ZERO, |letter| letter.position);
        let page = read_models.dead_letters(after, PAGE).await?;
        if page.is_empty() {
            return Ok(letters);
        }
        letters.extend(page);
    }
}

fn in_a_line(letter: &DeadLetter) -> String {
    format!(
        "{}  {}  {} bytes  {}",
        letter.position,
        letter.subject,
        letter.payload.len(),
        letter.reason
    )
}

fn as_json(letter: &DeadLetter) -> serde_json::Value {
    json!({
        "position": letter.position.to_string(),
        "subject": letter.subject,
        "reason": letter.reason,
        "payload": in_hexadecimal(&letter.payload),
    })
}

fn in_full(letter: &DeadLetter) -> String {
    let payload = match std::str::from_utf8(&letter.payload) {
        Ok(text)
            if !text
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t') =>
        {
            text.to_owned()
        }
        _ => in_hexadecimal(&letter.payload),
    };
    format!(
        "position  {}\nsubject   {}\nreason    {}\nbytes     {}\n\n{payload}",
        letter.position,
        letter.subject,
        letter.reason,
        letter.payload.len()
    )
}

fn in_hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
