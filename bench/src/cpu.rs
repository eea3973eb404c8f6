//! How much processor time processes have used.

use std::time::Duration;

use anyhow::Context;
use nix::unistd::{SysconfVar, sysconf};

/// The processor time that a process has used so far, its own and the system's on its behalf, with the threads
/// that have ended.
///
/// # Errors
/// There is no such process.
pub fn used(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("{path} can't be read"))?;
    let ticks = ticks(&stat).with_context(|| format!("{path} tells no times"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the system's clock has no ticks")?;
    #[allow(clippy::cast_precision_loss)]
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The fields `utime` and `stime` together, see `proc_pid_stat(5)`.
fn ticks(stat: &str) -> Option<u64> {
    // The second field, the program's name in parentheses, may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut from_utime = after_name.split_whitespace().skip(11);
    let mut next = || from_utime.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 90 0 1 0 250 17 3 4 20 0 1 0 42 9 8";
        assert_eq!(ticks(stat), Some(267));
        assert_eq!(ticks("7 (a) S 1 7"), None);
    }

    #[test]
    fn this_process_uses_time() {
        let before = used(std::process::id()).unwrap();
        while used(std::process::id()).unwrap() == before {
            std::hint::spin_loop();
        }
    }
}
