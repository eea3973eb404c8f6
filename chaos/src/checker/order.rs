//! The log's order against that of the clients.

use crate::checker::About;
use crate::checker::commands::Caused;
use crate::evidence::Evidence;
use crate::history::{Operation, Outcome};

/// When the client had its answer.
fn answered(operation: &Operation) -> Option<u64> {
    let acknowledged = |it: &&_| {
        matches!(
            it,
            &&crate::history::Attempt {
                outcome: Outcome::Acknowledged { .. },
                ..
            }
        )
    };
    operation
        .attempts
        .iter()
        .find(acknowledged)
        .map(|it| it.returned)
}

pub(super) fn order(evidence: &Evidence) -> Vec<(String, About)> {
    let caused = Caused::new(&evidence.log);
    let mut begun: Vec<(&Operation, u64)> = Vec::new();
    for operation in &evidence.operations {
        if let (Some(_), [event]) = (operation.acknowledged(), caused.by(operation)) {
            begun.push((operation, event.position));
        }
    }
    let mut ended: Vec<(u64, &Operation, u64)> = begun
        .iter()
        .filter_map(|(operation, position)| Some((answered(operation)?, *operation, *position)))
        .collect();
    begun.sort_by_key(|(operation, _)| operation.invoked());
    ended.sort_by_key(|(answered, _, _)| *answered);

    let mut broken = Vec::new();
    let mut ended = ended.into_iter().peekable();
    // Of those that had been answered, the one that stands last.
    let mut last: Option<(&Operation, u64)> = None;
    for (operation, position) in begun {
        while let Some((_, earlier, stands)) =
            ended.next_if(|(answered, _, _)| *answered < operation.invoked())
        {
            if last.is_none_or(|(_, furthest)| stands > furthest) {
                last = Some((earlier, stands));
            }
        }
        if let Some((earlier, stands)) = last.filter(|(_, stands)| *stands > position) {
            broken.push((
                format!(
                    "operation {} began after operation {} was answered, and stands at {position}, before it at {stands}",
                    operation.number, earlier.number
                ),
                About::operation(operation.number)
                    .and_operation(earlier.number)
                    .and_positions([position, stands]),
            ));
        }
    }
    broken
}
