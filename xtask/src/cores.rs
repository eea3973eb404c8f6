//! Which core servers get and which one the load generator.

use anyhow::Context;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Two of the machine's cores, or none where there is only one.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    count: usize,
    pair: Option<(usize, usize)>,
}

impl Cores {
    /// Picks the first two cores that this process may use, and keeps the calling thread on the second.
    ///
    /// # Errors
    /// The system does not say which there are.
    pub fn split() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(this_thread()).context("the cores can't be asked for")?;
        let usable = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
        let mut first = usable.clone();
        let pair = first.next().zip(first.next());
        let cores = Self {
            count: usable.count(),
            pair,
        };
        cores.keep_to(pair.map(|(_, generator)| generator))?;
        Ok(cores)
    }

    /// How many cores this process could use.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether server and generator have a core each.
    pub fn are_split(self) -> bool {
        self.pair.is_some()
    }

    /// Does what starts a process, so that it and all its threads stay on the server's core: a process
    /// inherits this from the thread that starts it.
    ///
    /// # Errors
    /// What `start` returns; or this thread can't be moved.
    pub fn on_server_core<T>(self, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.keep_to(self.pair.map(|(server, _)| server))?;
        let started = start();
        self.keep_to(self.pair.map(|(_, generator)| generator))?;
        started
    }

    /// Keeps all threads that this process has on the generator's core; those that they start stay there too.
    ///
    /// # Errors
    /// A thread can't be moved.
    pub fn gather_generator(self) -> anyhow::Result<()> {
        let Some((_, generator)) = self.pair else {
            return Ok(());
        };
        for thread in std::fs::read_dir("/proc/self/task")? {
            let name = thread?.file_name();
            let thread: i32 = name.to_string_lossy().parse()?;
            match keep(Pid::from_raw(thread), generator) {
                // It has ended meanwhile.
                Err(error) if error.downcast_ref() == Some(&Errno::ESRCH) => {}
                kept => kept?,
            }
        }
        Ok(())
    }

    fn keep_to(self, core: Option<usize>) -> anyhow::Result<()> {
        match core {
            Some(core) => keep(this_thread(), core),
            None => Ok(()),
        }
    }
}

fn keep(thread: Pid, core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(thread, &set)
        .with_context(|| format!("a thread can't be kept on core {core}"))
}

fn this_thread() -> Pid {
    Pid::from_raw(0)
}
