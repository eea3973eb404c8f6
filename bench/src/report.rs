//! Writes what was measured: JSON for programs, a page for people.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::chart::Chart;
use crate::conditions::Conditions;
use crate::figure::Figure;
use crate::sockets::{Figures, Outcome};

/// Where results go.
#[derive(Debug)]
pub struct Place<'a> {
    directory: &'a Path,
    conditions: &'a Conditions,
}

impl<'a> Place<'a> {
    /// The results in this directory, measured under these conditions.
    pub fn new(directory: &'a Path, conditions: &'a Conditions) -> Self {
        Self {
            directory,
            conditions,
        }
    }

    /// Writes `results/NAME.json`, and the part of `RESULTS.md` between the lines that name the bench; the
    /// rest of the page is written by hand.
    ///
    /// # Errors
    /// A file can't be written, or RESULTS.md has lost the place.
    pub fn write(&self, name: &str, outcome: &impl Serialize, section: &str) -> anyhow::Result<()> {
        let all = json!({"conditions": self.conditions, name: outcome});
        let path = self.results()?.join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")
            .with_context(|| format!("{} can't be written", path.display()))?;

        let path = self.directory.join("RESULTS.md");
        let page = std::fs::read_to_string(&path)
            .with_context(|| format!("{} can't be read", path.display()))?;
        let begin = format!("<!-- begin: cargo xtask bench {name} -->");
        let end = format!("<!-- end: cargo xtask bench {name} -->");
        let (before, rest) = page
            .split_once(&begin)
            .with_context(|| format!("RESULTS.md has no place for {name}"))?;
        let (_, after) = rest
            .split_once(&end)
            .context("the place in RESULTS.md has no end")?;
        let section = format!("{section}\n{}", self.conditions());
        print!("{section}");
        std::fs::write(&path, format!("{before}{begin}\n{section}{end}{after}"))?;
        Ok(())
    }

    /// Draws `results/NAME.svg`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn draw(&self, name: &str, chart: &Chart) -> anyhow::Result<()> {
        chart.draw(&self.results()?.join(format!("{name}.svg")))
    }

    /// The directory of raw figures and charts.
    fn results(&self) -> anyhow::Result<PathBuf> {
        let results = self.directory.join("results");
        std::fs::create_dir_all(&results)
            .with_context(|| format!("{} can't be made", results.display()))?;
        Ok(results)
    }

    fn conditions(&self) -> String {
        let conditions = self.conditions;
        let pinned = match conditions.pinned {
            true => "server and generator pinned to a core each",
            false => "nothing pinned",
        };
        let mut others = String::new();
        for (name, version) in [
            ("Node", &conditions.node),
            ("mongod", &conditions.mongod),
            ("nats-server", &conditions.nats_server),
        ] {
            if let Some(version) = version {
                others += &format!(", {name} {version}");
            }
        }
        format!(
            "Conditions: {} cores ({}), {} MiB of memory, Linux {}; {pinned}; load average before: {}. Commit {}, {}{others}. SQLite's log, synchronous=FULL: a post is on the disk before it is acknowledged.\n",
            conditions.cores,
            conditions.processor,
            conditions.memory_mib,
            conditions.kernel,
            conditions.load,
            conditions.commit,
            conditions.rustc,
        )
    }
}

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self, conditions: &Conditions) -> anyhow::Result<String> {
        section(conditions, self)
    }
}

fn section(conditions: &Conditions, outcome: &Outcome) -> anyhow::Result<String> {
    let (hansard, socket_io) = (&outcome.hansard, &outcome.socket_io);
    let (connections, rooms) = outcome.subscribed;
    let mut page = String::new();
    let runs = hansard.idle_connection.runs.len();
    writeln!(
        page,
        "| median of {runs} runs (least to most) | Hansard | socket.io {} | ratio | goal |",
        conditions.socket_io.as_deref().unwrap_or_default()
    )?;
    writeln!(page, "|---|---|---|---|---|")?;
    let mut row = |what: String, figure: &dyn Fn(&Figures) -> Option<&Figure>, goal: &str| {
        let (ours, theirs) = (figure(hansard), figure(socket_io));
        let ratio = ours
            .zip(theirs)
            .map(|(ours, theirs)| ours.median / theirs.median);
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        writeln!(
            page,
            "| {what} | {} | {} | {ratio} | {goal} |",
            ours.map_or("-".to_owned(), cell),
            theirs.map_or("-".to_owned(), cell)
        )
    };
    row(
        format!(
            "an idle connection, bytes ({} of them)",
            outcome.idle_connections
        ),
        &|it| Some(&it.idle_connection),
        "<= 8,192",
    )?;
    row(
        format!("a subscription, bytes ({connections} connections to the same {rooms} rooms)"),
        &|it| Some(&it.group_subscription),
        "<= 200",
    )?;
    row(
        format!("a subscription, bytes ({connections} connections to {rooms} rooms of two each)"),
        &|it| Some(&it.pair_subscription),
        "<= 200",
    )?;
    row(
        "the same, by second connections of the same users: the same rooms".to_owned(),
        &|it| Some(&it.group_subscription_again),
        "<= 200",
    )?;
    row(
        "the same, by second connections of the same users: rooms of two".to_owned(),
        &|it| Some(&it.pair_subscription_again),
        "<= 200",
    )?;
    row(
        format!("a room of a personal subscription, bytes (the same {rooms} rooms)"),
        &|it| it.group_of_personal.as_ref(),
        "<= 200",
    )?;
    row(
        format!("a room of a personal subscription, bytes ({rooms} rooms of two each)"),
        &|it| it.pair_of_personal.as_ref(),
        "<= 200",
    )?;
    writeln!(
        page,
        "\n| fan-out, deliveries/s, one message at a time: {} bytes of text in frames of {} | Hansard | socket.io | ratio | goal | a bare axum loop | ratio |",
        outcome.text_bytes, outcome.frame_bytes
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    for (which, subscribers) in outcome.subscribers.into_iter().enumerate() {
        let ours = &hansard.deliveries_per_second[which];
        let theirs = &socket_io.deliveries_per_second[which];
        let bare = &outcome.broadcast[which];
        writeln!(
            page,
            "| {subscribers} subscribers of a room | {} | {} | {:.2} | >= 1.3 | {} | {:.2} |",
            cell(ours),
            cell(theirs),
            ours.median / theirs.median,
            cell(bare),
            ours.median / bare.median,
        )?;
    }
    Ok(page)
}

/// The median of a figure with its spread, as whole numbers.
pub fn cell(figure: &Figure) -> String {
    spread(figure, thousands)
}

/// The same of a ratio, with two digits after the point.
pub fn ratio(figure: &Figure) -> String {
    spread(figure, |ratio| format!("{ratio:.2}"))
}

/// The median of a figure with its spread, each written like this.
pub fn spread(figure: &Figure, format: fn(f64) -> String) -> String {
    let [median, least, most] = [figure.median, figure.least, figure.most].map(format);
    format!("{median} ({least} to {most})")
}

/// A whole number with a comma between thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(1234.0), "1,234");
        assert_eq!(thousands(123_456.0), "123,456");
        assert_eq!(thousands(-1_234_567.0), "-1,234,567");
    }
}
