//! What Hansard's own verifications, and a look at its processes, came to.

use crate::checker::About;
use crate::evidence::Evidence;

pub(super) fn findings(evidence: &Evidence) -> Vec<(String, About)> {
    let wrong = evidence.findings.iter().filter_map(|finding| {
        let wrong = finding.wrong.as_ref()?;
        Some((format!("{}: {wrong}", finding.what), About::default()))
    });
    wrong.collect()
}
