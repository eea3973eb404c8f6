//! What the page shows of posts.

use std::fmt::Write as _;

use crate::chart::{Chart, Line, Scale};
use crate::figure::Figure;
use crate::posts::cells::{Measured, Work};
use crate::posts::open::{Latencies, PERCENTILES};
use crate::posts::stack::Kind;
use crate::posts::{FEW, MANY, Outcome};
use crate::report::{cell, ratio, spread, thousands};

/// Hansard's stacks.
const STACKS: [Kind; 3] = [Kind::Embedded, Kind::Distributed, Kind::DistributedSync];

impl Outcome {
    /// What the page shows of it.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub fn section(&self) -> anyhow::Result<String> {
        let mut page = String::new();
        let runs = self.closed.first().map_or(0, |it| it.per_second.runs.len());
        writeln!(
            page,
            "Medians of {runs} runs (least to most), each of {} s. Texts of {} bytes, which are events of {} bytes in the log. Latencies in milliseconds.\n",
            self.seconds, self.text_bytes, self.event_bytes
        )?;
        self.beside(&mut page)?;
        self.engines(&mut page)?;
        self.closed_loop(&mut page)?;
        self.open_loop(&mut page)?;
        self.pushes(&mut page)?;
        Ok(page)
    }

    /// How many times as much as the other server, and how long by comparison.
    fn beside(&self, page: &mut String) -> anyhow::Result<()> {
        let theirs = |work| self.find(Kind::Against, work, FEW);
        if theirs(Work::Posts).is_none() {
            writeln!(page, "No other server was measured beside (`--against`).\n")?;
            return Ok(());
        }
        writeln!(
            page,
            "| times the server of `--against`, {FEW} at once | posts/s | goal | p99 of posts | goal | GET /room, pages/s | GET /room/:id, pages/s | goal |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|---|")?;
        for kind in STACKS {
            let by = |work, of: fn(&Measured) -> &Figure| {
                let ours = self.find(kind, work, FEW);
                let pair = ours.zip(theirs(work));
                pair.map_or_else(dash, |(ours, theirs)| ratio(&of(ours).over(of(theirs))))
            };
            let goal = match kind {
                Kind::Embedded => ">= 60",
                _ => ">= 30",
            };
            writeln!(
                page,
                "| {} | {} | {goal} | {} | <= 0.05 | {} | {} | >= 20 |",
                kind.name(),
                by(Work::Posts, |it| &it.per_second),
                by(Work::Posts, |it| &it.p99),
                by(Work::Rooms, |it| &it.per_second),
                by(Work::Messages, |it| &it.per_second),
            )?;
        }
        writeln!(page)?;
        Ok(())
    }

    /// What is left of the engine's own speed.
    fn engines(&self, page: &mut String) -> anyhow::Result<()> {
        writeln!(
            page,
            "| the log's engine beneath | at once | its own acknowledged writes/s | posts/s over HTTP, readable | ratio | posts/s, `Prefer: respond-async` | ratio | goal |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|---|")?;
        for kind in STACKS {
            for at_once in [FEW, MANY] {
                let rate = |work| Some(&self.find(kind, work, at_once)?.per_second);
                let Some(bare) = rate(Work::Bare) else {
                    continue;
                };
                let over = |work| match rate(work) {
                    Some(posts) => format!("{} | {}", cell(posts), ratio(&posts.over(bare))),
                    None => "- | -".to_owned(),
                };
                let goal = match (kind, at_once) {
                    (Kind::DistributedSync, FEW) => ">= 0.9",
                    (Kind::DistributedSync, _) => ">= 2",
                    _ => ">= 0.7",
                };
                writeln!(
                    page,
                    "| {} | {at_once} | {} | {} | {} | {goal} |",
                    kind.name(),
                    cell(bare),
                    over(Work::Posts),
                    over(Work::AsyncPosts),
                )?;
            }
        }
        writeln!(page)?;
        Ok(())
    }

    /// Everything that was asked over HTTP, with what it cost.
    fn closed_loop(&self, page: &mut String) -> anyhow::Result<()> {
        writeln!(
            page,
            "| closed loop | durability | at once | a second | p50 | p99 | processor time for each, µs: Hansard | engines | generator |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
        let works = [
            (Work::Posts, "posts, readable"),
            (Work::AsyncPosts, "posts, `Prefer: respond-async`"),
            (Work::Rooms, "GET /room"),
            (Work::Messages, "GET /room/:id"),
        ];
        for (work, name) in works {
            let is_read = matches!(work, Work::Rooms | Work::Messages);
            for it in self.closed.iter().filter(|it| it.work == work) {
                let processor = |figure: &Option<Figure>| figure.as_ref().map_or_else(dash, cell);
                writeln!(
                    page,
                    "| {name}: {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                    it.kind.name(),
                    if is_read { "-" } else { it.durability },
                    it.at_once,
                    cell(&it.per_second),
                    milliseconds(&it.p50),
                    milliseconds(&it.p99),
                    processor(&it.hansard_processor),
                    processor(&it.engines_processor),
                    cell(&it.generator_processor),
                )?;
            }
        }
        writeln!(page)?;
        Ok(())
    }

    fn open_loop(&self, page: &mut String) -> anyhow::Result<()> {
        writeln!(
            page,
            "| open loop: posts, readable | load | posts/s offered | p50 | p90 | p99 | p99.9 |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|")?;
        for it in STACKS.into_iter().flat_map(|kind| self.open_on(kind)) {
            let [p50, p90, p99, p999] = it.latencies.each_ref().map(milliseconds);
            writeln!(
                page,
                "| {} | {} % | {} | {p50} | {p90} | {p99} | {p999} |",
                it.kind.name(),
                it.percent,
                thousands(it.per_second),
            )?;
        }
        Ok(())
    }

    /// Latency by load, one chart for each stack; with its name as a file.
    pub fn charts(&self) -> Vec<(&'static str, Chart)> {
        let chart = |kind: Kind| Chart {
            title: format!("Posts, {}", kind.name()),
            across: ("posts/s offered", Scale::Linear),
            upwards: "latency, ms",
            lines: PERCENTILES
                .iter()
                .enumerate()
                .map(|(which, percentile)| Line {
                    name: format!("p{percentile}"),
                    points: self
                        .open_on(kind)
                        .map(|it| (it.per_second, it.latencies[which].median / 1e3))
                        .collect(),
                })
                .collect(),
        };
        vec![
            ("posts-embedded", chart(Kind::Embedded)),
            ("posts-distributed", chart(Kind::Distributed)),
            ("posts-distributed-sync", chart(Kind::DistributedSync)),
        ]
    }

    fn pushes(&self, page: &mut String) -> anyhow::Result<()> {
        if self.pushed.is_empty() {
            return Ok(());
        }
        writeln!(
            page,
            "\n| open loop, {FEW} clients | posts due a second | 99 % acknowledged within | acknowledged and pushed within | ratio | goal |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|")?;
        for it in &self.pushed {
            writeln!(
                page,
                "| {} | {} | {} | {} | {} | <= 2 |",
                it.kind.name(),
                thousands(it.per_second),
                milliseconds(&it.acknowledged),
                milliseconds(&it.pushed),
                ratio(&it.pushed.over(&it.acknowledged)),
            )?;
        }
        Ok(())
    }

    fn find(&self, kind: Kind, work: Work, at_once: usize) -> Option<&Measured> {
        let is_it = |it: &&Measured| it.kind == kind && it.work == work && it.at_once == at_once;
        self.closed.iter().find(is_it)
    }

    /// The loads on this stack, lightest first.
    fn open_on(&self, kind: Kind) -> impl Iterator<Item = &Latencies> {
        self.open.iter().filter(move |it| it.kind == kind)
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// Of a figure in microseconds.
fn milliseconds(figure: &Figure) -> String {
    spread(figure, |microseconds| format!("{:.2}", microseconds / 1e3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn measured(kind: Kind, work: Work, at_once: usize, per_second: f64, p99: f64) -> Measured {
        Measured {
            kind,
            durability: kind.durability(),
            work,
            at_once,
            per_second: Figure::of(vec![per_second]),
            p50: Figure::of(vec![p99 / 2.0]),
            p99: Figure::of(vec![p99]),
            hansard_processor: None,
            engines_processor: None,
            generator_processor: Figure::of(vec![9.0]),
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            seconds: 10,
            messages: 20_000,
            rooms: 64,
            text_bytes: 80,
            event_bytes: 400,
            closed: vec![
                measured(Kind::Embedded, Work::Posts, FEW, 9_000.0, 5_000.0),
                measured(Kind::Embedded, Work::Bare, FEW, 18_000.0, 2_500.0),
            ],
            pushed: Vec::new(),
            open: vec![Latencies {
                kind: Kind::Embedded,
                percent: 10,
                per_second: 900.0,
                latencies: [1_000.0, 2_000.0, 3_000.0, 4_500.0].map(|it| Figure::of(vec![it])),
            }],
        }
    }

    fn lines(outcome: &Outcome) -> Vec<String> {
        let section = outcome.section().unwrap();
        section.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_row_of_the_engines_shows_what_is_left_of_their_speed() {
        let expected = "| embedded (SQLite) | 64 | 18,000 (18,000 to 18,000) | 9,000 (9,000 to 9,000) | 0.50 (0.50 to 0.50) | - | - | >= 0.7 |";
        assert!(lines(&outcome()).iter().any(|line| line == expected));
    }

    #[test]
    fn another_server_is_compared_where_there_is_one() {
        let mut outcome = outcome();
        let is_beside = |line: &String| line.contains("| <= 0.05 |");
        assert!(!lines(&outcome).iter().any(is_beside));

        let theirs = measured(Kind::Against, Work::Posts, FEW, 100.0, 500_000.0);
        outcome.closed.push(theirs);

        let expected = "| embedded (SQLite) | 90.00 (90.00 to 90.00) | >= 60 | 0.01 (0.01 to 0.01) | <= 0.05 | - | - | >= 20 |";
        let found = lines(&outcome).into_iter().find(|line| is_beside(line));
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn latencies_are_shown_in_milliseconds_and_drawn() {
        let expected = "| embedded (SQLite) | 10 % | 900 | 1.00 (1.00 to 1.00) | 2.00 (2.00 to 2.00) | 3.00 (3.00 to 3.00) | 4.50 (4.50 to 4.50) |";
        let outcome = outcome();
        assert!(lines(&outcome).iter().any(|line| line == expected));
        let (_, chart) = &outcome.charts()[0];
        assert_eq!(chart.lines[3].name, "p99.9");
        assert_eq!(chart.lines[3].points, [(900.0, 4.5)]);
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells() {
        let section = outcome().section().unwrap();
        for table in section.split("\n\n").filter(|it| it.starts_with('|')) {
            let mut widths = table.lines().map(|line| line.matches('|').count());
            let first = widths.next();
            assert!(widths.all(|width| Some(width) == first), "{table}");
        }
    }
}
