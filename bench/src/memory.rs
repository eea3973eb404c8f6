//! How much memory a process really has.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

/// A process whose memory still changes after this time is measured as it is.
const SETTLE: Duration = Duration::from_secs(5);
/// How long it must have stayed the same.
const STILL: Duration = Duration::from_millis(400);

/// The anonymous memory of a process that is resident, in bytes: heap and stacks, without the program's own
/// pages and files.
///
/// # Errors
/// There is no such process, or it is another user's.
pub fn anonymous(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path} can't be read"))?;
    parse(&text).with_context(|| format!("{path} says nothing of anonymous memory"))
}

/// The same, once it no longer changes.
///
/// # Errors
/// As above.
pub async fn settled(process: u32) -> anyhow::Result<u64> {
    let deadline = Instant::now() + SETTLE;
    let mut last = anonymous(process)?;
    loop {
        sleep(STILL).await;
        let now = anonymous(process)?;
        // A page or two come and go.
        if now.abs_diff(last) <= 16 * 1024 || Instant::now() >= deadline {
            return Ok(now);
        }
        last = now;
    }
}

fn parse(smaps: &str) -> Option<u64> {
    let line = smaps
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let before = anonymous(std::process::id()).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = anonymous(std::process::id()).unwrap();
        assert!(before > 0);
        assert!(after >= before + (60 << 20), "{before} {after}");
        drop(block);
    }
}
