//! How many files and sockets a process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as the process may: each client is a socket, and the usual limit of 1,024 is meant
/// for programs that still use `select`.
pub(crate) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(current, most)| {
        if current < most {
            setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        }
        Ok(())
    });
    if let Err(error) = raised {
        tracing::warn!("the limit of open files can't be raised: {error}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_as_many_as_it_may_allow_itself() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most / 2, most).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }
}
