//! Whether SQLite's files are whole.

use std::fs;
use std::path::Path;

use anyhow::Context;
use rusqlite::Connection;

/// What `PRAGMA integrity_check` says of each database in a directory that is not whole. It is asked of a copy,
/// so that whoever opens the database next finds it as the power loss left it.
pub(crate) fn damage(directory: &Path) -> anyhow::Result<Vec<String>> {
    let copies = tempfile::tempdir()?;
    let mut databases = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("the data directory can't be read"),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // The index of the write-ahead log is made anew by whoever comes first.
        if path.is_dir() || name.ends_with("-shm") {
            continue;
        }
        fs::copy(&path, copies.path().join(&name)).with_context(|| format!("can't copy {name}"))?;
        if name.ends_with(".db") {
            databases.push(name);
        }
    }
    let mut damage = Vec::new();
    for name in databases {
        let said = check(&copies.path().join(&name));
        match said {
            Ok(said) if said == "ok" => {}
            Ok(said) => damage.push(format!("{name}: {said}")),
            Err(error) => damage.push(format!("{name}: {error}")),
        }
    }
    Ok(damage)
}

fn check(file: &Path) -> rusqlite::Result<String> {
    let connection = Connection::open(file)?;
    connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log.db");
        let connection = Connection::open(&file).unwrap();
        let sql = "CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999)
                   INSERT INTO t SELECT i FROM n";
        connection.execute_batch(sql).unwrap();
        drop(connection);
        assert!(damage(directory.path()).unwrap().is_empty());

        let mut bytes = fs::read(&file).unwrap();
        bytes[8192..12288].fill(0);
        fs::write(&file, bytes).unwrap();
        let damage = damage(directory.path()).unwrap();
        assert!(
            damage.len() == 1 && damage[0].starts_with("log.db: "),
            "{damage:?}"
        );
    }
}
