//! The shortest history that shows a violation.

use crate::checker::{RULES, Violation};
use crate::evidence::Evidence;

/// Takes away of the evidence all that the violation can be seen without: first what is not about it, then
/// piece by piece. What is left can't lose anything more.
#[must_use]
pub fn shrink(evidence: &Evidence, violation: &Violation) -> Evidence {
    let Some(rule) = RULES.iter().find(|rule| rule.name == violation.rule) else {
        return evidence.clone();
    };
    let shows = |evidence: &Evidence| {
        let violations = rule.check(evidence);
        violations.iter().any(|it| it.message == violation.message)
    };
    let mut shown = evidence.clone();
    for reduced in [
        about(evidence, violation, false),
        about(evidence, violation, true),
    ] {
        if shows(&reduced) {
            shown = reduced;
        }
    }
    let mut length = usize::MAX;
    while size(&shown) < length {
        length = size(&shown);
        reduce(&mut shown, &shows, |it| &mut it.operations);
        reduce(&mut shown, &shows, |it| &mut it.log);
        reduce(&mut shown, &shows, |it| &mut it.findings);
        reduce(&mut shown, &shows, |it| &mut it.streams);
        for stream in 0..shown.streams.len() {
            reduce(&mut shown, &shows, |it| &mut it.streams[stream].told);
            reduce(&mut shown, &shows, |it| &mut it.streams[stream].wrong);
        }
    }
    shown
}

fn size(evidence: &Evidence) -> usize {
    let told: usize = evidence
        .streams
        .iter()
        .map(|it| it.told.len() + it.wrong.len())
        .sum();
    evidence.operations.len() + evidence.log.len() + evidence.findings.len() + told
}

/// What of the evidence is about the violation; `narrowly`: without the rest of its room.
fn about(evidence: &Evidence, violation: &Violation, narrowly: bool) -> Evidence {
    let about = &violation.about;
    let room = about.room.as_deref().filter(|_| !narrowly);
    let mut reduced = evidence.clone();
    reduced.operations.retain(|it| {
        about.operations.contains(&it.number) || (room.is_some() && it.action.room() == room)
    });
    reduced.log.retain(|it| {
        about.positions.contains(&it.position) || (room.is_some() && it.happening.room() == room)
    });
    reduced
        .streams
        .retain(|it| about.follower.as_ref() == Some(&it.follower));
    reduced
}

/// Removes pieces of a list, half of it at a time, then a quarter and so on, as long as the rest still shows it.
fn reduce<T: Clone>(
    evidence: &mut Evidence,
    shows: &impl Fn(&Evidence) -> bool,
    list: impl Fn(&mut Evidence) -> &mut Vec<T>,
) {
    let mut piece = list(evidence).len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        while start < list(evidence).len() {
            let end = (start + piece).min(list(evidence).len());
            let removed: Vec<T> = list(evidence).drain(start..end).collect();
            if !shows(evidence) {
                list(evidence).splice(start..start, removed);
                start = end;
            }
        }
        piece /= 2;
    }
}
