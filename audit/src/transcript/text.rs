//! A transcript as text. What people gave can't be taken for anything else: it is indented, and marks that are
//! not seen are written out.

use std::io::Write;

use super::{Part, Phrase, Said, Style, Word, is_harmful};

/// As text.
pub(crate) struct Text;

impl Style for Text {
    fn write(&self, part: &Part, buffer: &mut Vec<u8>) {
        // Writing to a vector can't fail.
        let _ = write(part, buffer);
    }
}

fn write(part: &Part, out: &mut Vec<u8>) -> std::io::Result<()> {
    match part {
        Part::Beginning { conditions, up_to } => {
            writeln!(out, "TRANSCRIPT OF THE RECORD")?;
            writeln!(out, "up to and with position {up_to}")?;
            for (name, value) in conditions {
                writeln!(out, "only {name} {}", line(value))?;
            }
            writeln!(out, "times in UTC, as each command was decided")
        }
        Part::OutsideOfRooms => writeln!(out, "\n\nOUTSIDE OF ROOMS"),
        Part::Room { id, about } => {
            writeln!(out, "\n\nROOM {id}")?;
            about
                .iter()
                .try_for_each(|it| writeln!(out, "{}", phrase(it)))
        }
        Part::Day(day) => writeln!(out, "\n{day}"),
        Part::Entry(entry) => {
            let what = phrase(&entry.what);
            write!(out, "{}  {}  {what}", entry.time, entry.position)?;
            if let Some(remark) = entry.remark {
                write!(out, " ({remark})")?;
            }
            writeln!(out)?;
            match &entry.text {
                None => Ok(()),
                Some(Said::Erased) => writeln!(out, "    [erased]"),
                Some(Said::Expired) => writeln!(out, "    [expired]"),
                Some(Said::Text(text)) => text
                    .split('\n')
                    .try_for_each(|it| writeln!(out, "    | {}", line(it))),
            }
        }
        Part::Ending(summary) => writeln!(out, "\n\n{summary}"),
        Part::BrokenOff(reason) => writeln!(out, "\n\nINCOMPLETE: {reason}"),
    }
}

fn phrase(phrase: &Phrase) -> String {
    let words = phrase.0.iter().map(|word| match word {
        Word::Own(words) => words.clone(),
        Word::Given(words) => line(words),
    });
    words.collect()
}

/// As one line. What is written out begins with a backslash, so a backslash is written twice.
fn line(given: &str) -> String {
    let mut line = String::with_capacity(given.len());
    for character in given.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\r' => line.push_str("\\r"),
            '\n' => line.push_str("\\n"),
            _ if is_harmful(character) => line.extend(character.escape_unicode()),
            _ => line.push(character),
        }
    }
    line
}
