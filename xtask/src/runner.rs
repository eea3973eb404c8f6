//! Runs one command after the other in the foreground, and stops when told to.

use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use xtask::process::{family, wait_for};

/// How long a command may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// Runs commands. On SIGINT, SIGTERM or SIGHUP it stops the one that runs, with all its descendants, and
/// runs no other; this program then ends the ordinary way, so that what it started is removed.
#[derive(Debug)]
pub struct Runner {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The process that runs now.
    running: Option<u32>,
    /// The signal that said to stop.
    interrupted: Option<i32>,
}

impl Runner {
    /// Takes over the signals.
    pub fn new() -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let again = state.interrupted.replace(signal).is_some();
                let running = state.running;
                drop(state);
                if let Some(id) = running {
                    stop(
                        id,
                        if again {
                            Signal::SIGKILL
                        } else {
                            Signal::SIGTERM
                        },
                    );
                }
            }
        });
        Ok(Self { state })
    }

    /// Runs `command` to its end.
    ///
    /// # Errors
    /// It can't be started, or the developer said to stop.
    pub fn run(&self, command: &mut Command) -> anyhow::Result<ExitStatus> {
        self.check()?;
        let mut child = command
            .spawn()
            .with_context(|| format!("{} can't be run", command.get_program().to_string_lossy()))?;
        self.lock().running = Some(child.id());
        // A signal that came before the line above has stopped nothing.
        if self.check().is_err() {
            stop(child.id(), Signal::SIGTERM);
        }
        let status = child.wait();
        self.lock().running = None;
        self.check()?;
        Ok(status?)
    }

    /// # Errors
    /// The developer said to stop.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(signal) = self.lock().interrupted {
            bail!("stopped by signal {signal}");
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a process and its descendants to stop, and kills those that don't in time.
fn stop(id: u32, signal: Signal) {
    let members: Vec<Pid> = family(id)
        .into_iter()
        .filter_map(|member| i32::try_from(member).ok())
        .map(Pid::from_raw)
        .collect();
    for member in &members {
        kill(*member, signal).ok();
    }
    std::thread::spawn(move || {
        let gone = wait_for(STOP, || {
            members
                .iter()
                .all(|member| kill(*member, None).is_err())
                .then_some(())
        });
        if gone.is_none() {
            for member in &members {
                kill(*member, Signal::SIGKILL).ok();
            }
        }
    });
}
