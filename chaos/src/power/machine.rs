//! A machine that has power or has none: a stack and the disk that all of it is on.

use std::time::Duration;

use anyhow::Context;
use forgetful_disk::{Loss, Mounted, Names};
use hansard_tests::{Service, Stack};
use nix::sys::signal::Signal;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};
use xtask::process::POLL;

/// How long everything may take to be ready after a power loss.
const READY: Duration = Duration::from_secs(90);
/// How much of the output of a process that ended is shown.
const SHOWN_LINES: usize = 5;

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    // Before the disk, which is unmounted once nothing uses it.
    pub(crate) stack: Stack,
    pub(crate) disk: Mounted,
}

/// An empty disk.
pub(crate) fn disk(names: Names) -> anyhow::Result<Mounted> {
    Mounted::new(names)
        .context("no disk can be mounted that forgets; that takes root and /dev/fuse")
}

impl Machine {
    /// Starts every process, without waiting for Hansard to be ready.
    pub(crate) async fn begin(&mut self) {
        for service in self.stack.services() {
            self.stack.spawn(service).await;
        }
    }

    /// Waits until all are ready; says which are not, or have ended, and what they said last.
    pub(crate) async fn ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + READY;
        for service in self.stack.services() {
            while !self.stack.is_ready(service).await {
                if !self.stack.runs(service) {
                    let said = self.last_lines(service);
                    return Err(format!("{service:?} ended by itself:\n{said}"));
                }
                if Instant::now() > end {
                    let said = self.last_lines(service);
                    let waited = READY.as_secs();
                    return Err(format!(
                        "{service:?} is not ready {waited} s after the power came back:\n{said}"
                    ));
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Cuts the power of everything at once, and gives it back: what was durable is there then, and nothing
    /// runs.
    pub(crate) fn cut_power(&mut self, loss: &mut Loss) -> anyhow::Result<()> {
        let services = self.stack.services();
        let (stack, disk) = (&mut self.stack, &mut self.disk);
        block_in_place(|| {
            disk.cut_power(loss, || {
                for service in &services {
                    stack.signal(*service, Signal::SIGKILL);
                }
            });
            for service in services {
                stack.kill(service);
            }
            disk.mount_again()
        })
        .context("what the power loss left can't be mounted")
    }

    fn last_lines(&self, service: Service) -> String {
        let output = self.stack.output(service);
        let lines: Vec<&str> = output.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        format!("    {}", shown.join("\n    "))
    }
}
