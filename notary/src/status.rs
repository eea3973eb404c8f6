//! How the notary is doing, for readiness and figures.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use platform::health::{Health, Outcome};

use crate::Tampering;

/// How the notary is doing. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    size: u64,
    /// The size of the newest tree head, and when it was signed or found.
    head: Option<(u64, Instant)>,
    /// Positions that the log no longer had when they were to be hashed.
    missing: u64,
    /// Why the newest tree head is not in the file.
    file: Option<String>,
    /// Why it has not got to the webhook.
    webhook: Option<String>,
}

/// What the notary is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Keeping,
    StandingBy,
    Stopped(Tampering),
}

impl Status {
    /// Adds to the health checks, as `tree`, whether the log is what was hashed and signed. What keeps a
    /// tree head from a copy is told and makes nothing unready.
    pub fn report_to(&self, health: &Health) {
        let status = self.clone();
        health.add_with_note("tree", move || std::future::ready(status.check()));
    }

    /// As [`report_to`](Self::report_to) tells.
    ///
    /// # Errors
    /// What is wrong with the log or the stored tree, in words.
    pub fn check(&self) -> Outcome {
        let state = self.lock();
        if let Phase::Stopped(tampering) = &state.phase {
            return Err(tampering.to_string());
        }
        let mut notes = Vec::new();
        if state.missing > 0 {
            let missing = state.missing;
            notes.push(format!(
                "{missing} positions had no event any more when they were hashed"
            ));
        }
        notes.extend(state.file.clone());
        notes.extend(state.webhook.clone());
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// What is wrong with the log or the stored tree.
    pub fn tampering(&self) -> Option<Tampering> {
        match &self.lock().phase {
            Phase::Stopped(tampering) => Some(tampering.clone()),
            _ => None,
        }
    }

    /// How many events the tree has, as far as this notary knows.
    pub fn size(&self) -> u64 {
        self.lock().size
    }

    /// The size of the newest tree head, as far as this notary knows.
    pub fn signed(&self) -> Option<u64> {
        self.lock().head.map(|(size, _)| size)
    }

    /// Whether another notary is ahead and this one stands by.
    pub fn is_standing_by(&self) -> bool {
        self.lock().phase == Phase::StandingBy
    }

    pub(crate) fn keeping(&self, size: u64, signed: Option<u64>) {
        let mut state = self.lock();
        state.phase = Phase::Keeping;
        state.size = size;
        if state.head.map(|(size, _)| size) != signed {
            state.head = signed.map(|size| (size, Instant::now()));
        }
        metrics::gauge!("hansard_tree_size").set(size as f64);
        metrics::gauge!("hansard_tree_tampering").set(0.0);
    }

    pub(crate) fn standing_by(&self) {
        self.lock().phase = Phase::StandingBy;
    }

    pub(crate) fn stopped(&self, tampering: &Tampering) {
        self.lock().phase = Phase::Stopped(tampering.clone());
        metrics::gauge!("hansard_tree_tampering").set(1.0);
    }

    pub(crate) fn grown(&self, size: u64) {
        self.lock().size = size;
        metrics::gauge!("hansard_tree_size").set(size as f64);
    }

    pub(crate) fn missing(&self, count: u64) {
        self.lock().missing += count;
        metrics::counter!("hansard_tree_missing_total").increment(count);
    }

    pub(crate) fn signed_at(&self, size: u64) {
        self.lock().head = Some((size, Instant::now()));
        self.show_age();
    }

    /// Shows how old the newest tree head is; 0 while nothing has been appended since.
    pub(crate) fn show_age(&self) {
        let state = self.lock();
        let age = match state.head {
            Some((size, _)) if size == state.size => 0.0,
            Some((_, at)) => at.elapsed().as_secs_f64(),
            None => 0.0,
        };
        metrics::gauge!("hansard_tree_head_age_seconds").set(age);
    }

    pub(crate) fn file(&self, problem: Option<String>) {
        if problem.is_some() {
            metrics::counter!("hansard_tree_failures_total", "what" => "file").increment(1);
        }
        self.lock().file = problem;
    }

    pub(crate) fn webhook(&self, problem: Option<String>) {
        if problem.is_some() {
            metrics::counter!("hansard_tree_failures_total", "what" => "webhook").increment(1);
        }
        self.lock().webhook = problem;
    }

    /// No change can panic, so that a panic elsewhere can't leave half of one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
