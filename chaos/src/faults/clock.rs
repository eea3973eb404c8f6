//! Clocks that jump, with libfaketime, which is preloaded into Hansard's processes.

use std::path::PathBuf;

/// Where Debian's package has it, on each architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Where libfaketime is.
///
/// # Errors
/// It is nowhere; says what to install.
pub fn library() -> Result<PathBuf, String> {
    let mut directories = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")];
    let architectures = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    directories.extend(architectures.map(|it| it.path()).filter(|it| it.is_dir()));
    let mut found = directories
        .into_iter()
        .map(|it| it.join(LIBRARY))
        .filter(|it| it.is_file());
    found.next().ok_or_else(|| {
        "clocks don't jump: there is no libfaketime (on Debian, install the package faketime)"
            .to_owned()
    })
}
