//! Child processes that are stopped, with all that they started, whenever whoever started them ends:
//! returns, panics, is interrupted or is killed.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// How often a condition outside this process is looked at.
pub const POLL: Duration = Duration::from_millis(10);

/// How long a process may take to stop running when it is told to, on a busy machine.
const STOP: Duration = Duration::from_secs(10);

/// A running server, in a process group of its own, with its output in a file.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    /// Waits for this process to end, however it does, and then kills the group: what [`Drop`] can't do
    /// when this process is killed.
    watchdog: Child,
    output: PathBuf,
    ended: Option<ExitStatus>,
}

impl Supervised {
    /// Starts `command`; standard output and error are appended to the file `output`.
    ///
    /// # Errors
    /// The program can't be started or the file can't be written.
    pub fn start(mut command: Command, output: &Path) -> anyhow::Result<Self> {
        let file = append_to(output)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!(
                    "{} can't be started",
                    command.get_program().to_string_lossy()
                )
            })?;
        // The pipe's other end is closed by the kernel when this process ends.
        let watchdog = Command::new("/bin/sh")
            .args(["-c", r#"read -r _; kill -s KILL -- "-$0""#])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self {
                child,
                watchdog,
                output: output.to_owned(),
                ended: None,
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error).context("/bin/sh can't be started")
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the process itself; nothing when it has ended. After `SIGSTOP`, waits until none
    /// of its threads runs any more.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        kill(self.pid(), signal).ok();
        if signal == Signal::SIGSTOP {
            // One thread takes the signal and only then stops the others. On a busy machine it may be a
            // while before it gets a processor, and until then the others do their work.
            wait_for(STOP, || {
                (self.has_stopped() || self.ended().is_some()).then_some(())
            });
        }
    }

    /// Whether all threads have stopped since that was last asked.
    fn has_stopped(&self) -> bool {
        let only_look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        matches!(
            waitid(Id::Pid(self.pid()), only_look),
            Ok(WaitStatus::Stopped(..))
        )
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.finish(status);
        }
        self.ended
    }

    /// Waits for it to end by itself; `None` when it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        wait_for(within, || self.ended())
    }

    /// Kills it and all that it started with signal 9, as a power loss would, and waits until they are
    /// gone. Nothing when it has ended.
    pub fn kill(&mut self) {
        if self.ended().is_some() {
            return;
        }
        killpg(self.pid(), Signal::SIGKILL).ok();
        if let Ok(status) = self.child.wait() {
            self.finish(status);
        }
    }

    /// What it has written so far, and what earlier processes with the same output file had.
    #[must_use]
    pub fn output(&self) -> String {
        read_lossily(&self.output)
    }

    fn finish(&mut self, status: ExitStatus) {
        self.ended = Some(status);
        // What it started must not stay when it ended without stopping it. Before the watchdog ends, and
        // at once: later the group's number could be somebody else's.
        killpg(self.pid(), Signal::SIGKILL).ok();
        self.watchdog.kill().ok();
        self.watchdog.wait().ok();
    }

    fn pid(&self) -> Pid {
        // Linux process ids are below 2^22.
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks again and again until there is something; `None` when there is nothing within that time.
pub fn wait_for<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// The text in a file; empty when there is none.
#[must_use]
pub fn read_lossily(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn append_to(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} can't be written", path.display()))
}

/// Keeps the developer's own `HANSARD_*` settings, and `PORT`, from what `command` starts. What begins with
/// `HANSARD_TEST_` is meant for tests and stays.
pub fn without_own_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HANSARD_") && !text.starts_with("HANSARD_TEST_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("PORT");
}

/// The processes that descend from `ancestor`, itself included, children before parents.
#[must_use]
pub fn family(ancestor: u32) -> Vec<u32> {
    let mut members = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = members.get(next) {
        // One file a thread: a process's children hang from the thread that made them.
        let threads = std::fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let children: Vec<u32> = threads
            .flat_map(|thread| {
                read_lossily(&thread.path().join("children"))
                    .split_whitespace()
                    .filter_map(|id| id.parse().ok())
                    .collect::<Vec<u32>>()
            })
            .collect();
        members.extend(children);
        next += 1;
    }
    members.reverse();
    members
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn runs(id: u32) -> bool {
        // A process that ended and was not yet waited for is a zombie: it does not run.
        std::fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
    }

    fn first_line_as_id(process: &Supervised) -> u32 {
        wait_for(Duration::from_secs(5), || {
            let output = process.output();
            output
                .split_once('\n')
                .map(|(line, _)| line.parse().unwrap())
        })
        .unwrap()
    }

    #[test]
    fn killing_kills_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let mut process = Supervised::start(shell("sleep 600 & echo $!; wait"), &output).unwrap();
        let grandchild = first_line_as_id(&process);
        assert!(runs(grandchild));

        process.kill();

        assert_eq!(process.ended().unwrap().signal(), Some(9));
        assert!(wait_for(Duration::from_secs(5), || (!runs(grandchild)).then_some(())).is_some());
    }

    #[test]
    fn a_process_that_ends_by_itself_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let mut process = Supervised::start(shell("sleep 600 & echo $!; exit 3"), &output).unwrap();

        assert_eq!(
            process.wait(Duration::from_secs(5)).unwrap().code(),
            Some(3)
        );

        let grandchild = first_line_as_id(&process);
        assert!(wait_for(Duration::from_secs(5), || (!runs(grandchild)).then_some(())).is_some());
    }

    #[test]
    fn nothing_outlives_whoever_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let mut process = Supervised::start(shell("sleep 600 & echo $!; wait"), &output).unwrap();
        let grandchild = first_line_as_id(&process);

        // What the kernel does when this process is killed.
        drop(process.watchdog.stdin.take());

        let status = process.wait(Duration::from_secs(5)).unwrap();
        assert_eq!(status.signal(), Some(9));
        assert!(wait_for(Duration::from_secs(5), || (!runs(grandchild)).then_some(())).is_some());
    }

    #[test]
    fn a_signal_reaches_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let script = "trap 'echo stopping; exit 0' TERM; echo $$; while :; do sleep 0.01; done";
        let mut process = Supervised::start(shell(script), &output).unwrap();
        first_line_as_id(&process);

        process.signal(Signal::SIGTERM);

        assert!(process.wait(Duration::from_secs(5)).unwrap().success());
        assert!(process.output().contains("stopping"));
    }

    #[test]
    fn a_process_that_is_told_to_stop_has_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let mut process =
            Supervised::start(shell("echo $$; while :; do :; done"), &output).unwrap();
        let id = first_line_as_id(&process);
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().chars().next().unwrap()
        };
        for _ in 0..50 {
            process.signal(Signal::SIGSTOP);
            assert_eq!(state(), 'T');
            process.signal(Signal::SIGCONT);
            assert_ne!(state(), 'T');
        }
    }

    #[test]
    fn the_family_holds_grandchildren() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let process =
            Supervised::start(shell("sh -c 'sleep 600 & echo $!; wait'; :"), &output).unwrap();
        let grandchild = first_line_as_id(&process);

        let family = family(process.id());

        assert!(family.contains(&grandchild));
        assert_eq!(family.last(), Some(&process.id()));
    }
}
