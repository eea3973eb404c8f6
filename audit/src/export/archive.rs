//! The archive: a tar file in which nothing but the files can be, in one order, with one time.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use events::Timestamp;
use tar::{Archive, Builder, EntryType, Header};

use super::FILES;

/// A file of the archive.
pub(super) trait Content: Read {
    fn size(&self) -> io::Result<u64>;
}

impl Content for std::fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Content for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// Writes those of the files that there are. From the same files and time come the same bytes.
pub(super) fn pack<C: Content>(
    files: &mut BTreeMap<&'static str, C>,
    at: Timestamp,
    to: impl Write,
) -> io::Result<()> {
    let mut archive = Builder::new(to);
    let seconds = u64::try_from(at.as_millis() / 1000).unwrap_or_default();
    for name in FILES {
        let Some(file) = files.get_mut(name) else {
            continue;
        };
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(seconds);
        header.set_size(file.size()?);
        archive.append_data(&mut header, name, file)?;
    }
    archive.into_inner()?.flush()
}

/// Reads the files. What is in the archive and none of them is told in `strange`.
pub(super) fn unpack(
    archive: &[u8],
    strange: &mut Vec<String>,
) -> io::Result<BTreeMap<&'static str, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let known = FILES.into_iter().find(|known| *known == name);
        let Some(known) = known.filter(|_| entry.header().entry_type() == EntryType::Regular)
        else {
            strange.push(format!(
                "{name:?} is in the archive and does not belong there"
            ));
            continue;
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if files.insert(known, bytes).is_some() {
            strange.push(format!("{name:?} is in the archive twice"));
        }
    }
    Ok(files)
}
