//! A transcript as a page that stands for itself: no script, nothing from elsewhere, good to print.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{Part, Phrase, Said, Style, Word, is_harmful};

/// As a page.
pub(crate) struct Html;

const STYLE: &str = include_str!("transcript.css");

/// What a browser may do for the page: apply its style, which nothing else can be put in the place of.
pub(crate) fn content_security_policy() -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'")
}

impl Style for Html {
    fn write(&self, part: &Part, buffer: &mut Vec<u8>) {
        let mut page = String::new();
        // Writing to a string can't fail.
        let _ = write(part, &mut page);
        buffer.extend_from_slice(page.as_bytes());
    }
}

fn write(part: &Part, page: &mut String) -> std::fmt::Result {
    match part {
        Part::Beginning { conditions, up_to } => {
            let policy = escaped(&content_security_policy());
            writeln!(
                page,
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
                 <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
                 <meta name=\"viewport\" content=\"width=device-width\">\n\
                 <meta name=\"referrer\" content=\"no-referrer\">\n\
                 <title>Transcript of the record</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
                 <h1>Transcript of the record</h1>\n<ul class=\"about\">\n\
                 <li>up to and with position <code>{up_to}</code></li>"
            )?;
            for (name, value) in conditions {
                let (name, value) = (escaped(name), escaped(value));
                writeln!(page, "<li>only {name} <code>{value}</code></li>")?;
            }
            writeln!(
                page,
                "<li>times in UTC, as each command was decided</li>\n</ul>"
            )
        }
        Part::OutsideOfRooms => writeln!(page, "<h2>Outside of rooms</h2>"),
        Part::Room { id, about } => {
            writeln!(
                page,
                "<h2>Room <code>{id}</code></h2>\n<ul class=\"about\">"
            )?;
            for line in about {
                writeln!(page, "<li>{}</li>", phrase(line))?;
            }
            writeln!(page, "</ul>")
        }
        Part::Day(day) => writeln!(page, "<h3>{}</h3>", escaped(day)),
        Part::Entry(entry) => {
            let class = match (&entry.text, entry.remark) {
                (_, Some(_)) => "void",
                (Some(_), None) => "said",
                (None, None) => "happened",
            };
            let position = entry.position;
            writeln!(page, "<article class=\"{class}\" id=\"p{position}\">")?;
            let (time, what) = (escaped(&entry.time), phrase(&entry.what));
            write!(
                page,
                "<p class=\"what\"><time>{time}</time> <code>{position}</code> {what}"
            )?;
            if let Some(remark) = entry.remark {
                write!(page, " <em>({})</em>", escaped(remark))?;
            }
            writeln!(page, "</p>")?;
            match &entry.text {
                None => {}
                Some(Said::Erased) => writeln!(page, "<p class=\"gone\">[erased]</p>")?,
                Some(Said::Expired) => writeln!(page, "<p class=\"gone\">[expired]</p>")?,
                Some(Said::Text(text)) => {
                    writeln!(
                        page,
                        "<p class=\"text\" dir=\"auto\">{}</p>",
                        given(text, true)
                    )?;
                }
            }
            writeln!(page, "</article>")
        }
        Part::Ending(summary) => {
            let summary = escaped(summary);
            writeln!(page, "<footer>{summary}</footer>\n</body>\n</html>")
        }
        Part::BrokenOff(reason) => {
            let reason = escaped(reason);
            writeln!(
                page,
                "<footer class=\"incomplete\">INCOMPLETE: {reason}</footer>\n</body>\n</html>"
            )
        }
    }
}

fn phrase(phrase: &Phrase) -> String {
    let words = phrase.0.iter().map(|word| match word {
        Word::Own(words) => escaped(words),
        // Isolated: what is written from right to left changes the order of nothing else.
        Word::Given(words) => format!("<bdi class=\"given\">{}</bdi>", given(words, false)),
    });
    words.collect()
}

fn escaped(text: &str) -> String {
    given(text, true)
}

/// What somebody gave: nothing of it is taken for markup, and marks that are not seen are written out, apart
/// from line ends where lines are kept.
fn given(text: &str, keep_lines: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' if keep_lines => escaped.push(character),
            _ if is_harmful(character) => {
                let code = u32::from(character);
                // Writing to a string can't fail.
                let _ = write!(escaped, "<span class=\"mark\">U+{code:04X}</span>");
            }
            _ => escaped.push(character),
        }
    }
    escaped
}
