//! What a run comes to, as Markdown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::checker::{RULES, Violation};
use crate::evidence::Evidence;
use crate::recovery::Worst;
use crate::run::Settings;

/// What a run comes to.
pub(crate) struct Summary<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) took: Duration,
    pub(crate) rounds: usize,
    pub(crate) evidence: &'a Evidence,
    pub(crate) faults: &'a BTreeMap<String, usize>,
    pub(crate) worst: &'a Worst,
    pub(crate) violations: &'a [Violation],
}

/// What became of operations.
const FATES: [&str; 3] = ["acknowledged", "refused", "unknown"];

impl fmt::Display for Summary<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            settings, evidence, ..
        } = self;
        writeln!(
            formatter,
            "\n{:?}, {:?}, seed {}: {:.1} minutes, {} rounds of faults, {} operations, {} events, {} violations\n",
            settings.backend,
            settings.layout,
            settings.seed,
            self.took.as_secs_f64() / 60.0,
            self.rounds,
            evidence.operations.len(),
            evidence.log.len(),
            self.violations.len()
        )?;
        writeln!(
            formatter,
            "| operation | acknowledged | refused | unknown | attempts |"
        )?;
        writeln!(formatter, "|---|---|---|---|---|")?;
        let mut kinds: BTreeMap<&str, ([usize; 3], usize)> = BTreeMap::new();
        for operation in &evidence.operations {
            let (fates, attempts) = kinds.entry(operation.action.kind()).or_default();
            *attempts += operation.attempts.len();
            if let Some(fate) = FATES.iter().position(|it| *it == operation.fate()) {
                fates[fate] += 1;
            }
        }
        for (kind, ([acknowledged, refused, unknown], attempts)) in kinds {
            writeln!(
                formatter,
                "| {kind} | {acknowledged} | {refused} | {unknown} | {attempts} |"
            )?;
        }
        writeln!(formatter, "\n| fault | times |\n|---|---|")?;
        for (fault, times) in self.faults {
            writeln!(formatter, "| {fault} | {times} |")?;
        }
        writeln!(formatter, "\nThe worst recovery:\n\n{}", self.worst)?;
        writeln!(formatter, "| promise | violations |\n|---|---|")?;
        for rule in RULES {
            let violations = self.violations.iter().filter(|it| it.rule == rule.name);
            writeln!(formatter, "| {} | {} |", rule.promise, violations.count())?;
        }
        let told: usize = evidence.streams.iter().map(|it| it.told.len()).sum();
        writeln!(
            formatter,
            "\n{} followers were told {told} events. The history is in {}.",
            evidence.streams.len(),
            settings.directory.display()
        )
    }
}
