//! Hansard's own verifications, as an operator runs them, and a last look at what runs.

use std::process::Output;
use std::time::Duration;

use hansard_tests::Stack;
use read_models::State;
use tokio::time::{Instant, sleep};

use crate::evidence::Finding;
use crate::faults::Victims;
use crate::leaks::Holdings;

/// How long it may take until everything has come to rest: consumers that are gone are forgotten by the server
/// after a while, and old generations are removed.
const REST: Duration = Duration::from_secs(150);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

fn finding(what: &str, wrong: Option<String>) -> Finding {
    Finding {
        what: what.to_owned(),
        wrong,
    }
}

/// All of them.
pub(crate) async fn verify(victims: &mut Victims, before: &Holdings) -> Vec<Finding> {
    let mut findings: Vec<Finding> = victims
        .ended
        .drain(..)
        .map(|ended| finding("processes", Some(ended)))
        .collect();
    findings.push(finding("rebuilds", victims.rebuilt().err()));
    findings.push(finding(
        "generations",
        at_rest(async || generations(&victims.stack).await).await,
    ));
    let stack = &victims.stack;
    for what in ["read-models", "log"] {
        let output = hansard(stack, &["verify", what]);
        let wrong = (!output.status.success()).then(|| said(&output));
        findings.push(finding(&format!("hansard verify {what}"), wrong));
    }
    let output = hansard(stack, &["dead-letters", "list"]);
    let is_empty = output.status.success() && output.stdout.is_empty();
    let wrong = (!is_empty).then(|| said(&output));
    findings.push(finding("hansard dead-letters list", wrong));
    let stack = &mut victims.stack;
    let end = Instant::now() + REST;
    let leaked = loop {
        let more = Holdings::count(stack).await.more_than(before);
        if more.is_empty() || Instant::now() > end {
            break more;
        }
        sleep(LOOK).await;
    };
    findings.push(finding(
        "what processes hold on to",
        (!leaked.is_empty()).then(|| leaked.join("; ")),
    ));
    findings
}

fn hansard(stack: &Stack, arguments: &[&str]) -> Output {
    tokio::task::block_in_place(|| stack.hansard(arguments))
}

fn said(output: &Output) -> String {
    let [told, errors] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{}: {told}{errors}", output.status)
}

/// Waits until there is nothing to say; what there is to say after a long time.
async fn at_rest(look: impl AsyncFn() -> Option<String>) -> Option<String> {
    let end = Instant::now() + REST;
    loop {
        let said = look().await;
        if said.is_none() || Instant::now() > end {
            return said;
        }
        sleep(LOOK).await;
    }
}

/// Whether a rebuild is still under way, or one was rejected.
async fn generations(stack: &Stack) -> Option<String> {
    let catalogue = stack.open_catalogue().await;
    let generations = match catalogue.generations().await {
        Ok(generations) => generations.all,
        Err(error) => return Some(error.to_string()),
    };
    let unfinished = generations
        .iter()
        .find(|it| matches!(it.state, State::Building | State::Joining | State::Rejected))?;
    let note = unfinished.note.as_deref().unwrap_or_default();
    Some(format!(
        "generation {} is {:?} {note}",
        unfinished.number, unfinished.state
    ))
}
