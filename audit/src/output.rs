//! Where a replay is written: standard output, or a file that appears only when it is complete.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Bytes gathered before they are written.
const CHUNK: usize = 64 * 1024;

/// Where a replay goes.
pub(crate) struct Output {
    sink: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: Vec<u8>,
    /// What to call the file once it is complete.
    unfinished: Option<Unfinished>,
    name: String,
}

/// A file under its temporary name; removed unless it is completed.
struct Unfinished {
    temporary: PathBuf,
    complete: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Already renamed, or there is nothing left to be done about it.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Output {
    /// Opens the output: `None`, or the path `-`, is standard output.
    pub(crate) async fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                sink: Box::new(tokio::io::stdout()),
                buffer: Vec::with_capacity(CHUNK),
                unfinished: None,
                name: "standard output".to_owned(),
            });
        };
        let name = path.display().to_string();
        let (file, unfinished) = open_file(path)
            .await
            .with_context(|| format!("can't write {name}"))?;
        Ok(Self {
            sink: Box::new(file),
            buffer: Vec::with_capacity(CHUNK),
            unfinished,
            name,
        })
    }

    /// What was written but not yet passed on.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Passes on what was written once it is enough. `false` when nobody reads the output any more.
    pub(crate) async fn pass_on(&mut self) -> anyhow::Result<bool> {
        if self.buffer.len() < CHUNK {
            return Ok(true);
        }
        self.flush().await
    }

    /// Passes on what was written. `false` when nobody reads the output any more.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<bool> {
        let written = async {
            self.sink.write_all(&self.buffer).await?;
            self.sink.flush().await
        };
        let written = written.await;
        self.buffer.clear();
        match written {
            Ok(()) => Ok(true),
            // As `head` does once it has enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).with_context(|| format!("can't write {}", self.name)),
        }
    }

    /// Passes on the rest and gives a file its name. `false` when nobody reads the output any more.
    pub(crate) async fn complete(mut self) -> anyhow::Result<bool> {
        if !self.flush().await? {
            return Ok(false);
        }
        if let Some(unfinished) = &self.unfinished {
            let renamed = async {
                tokio::fs::File::open(&unfinished.temporary)
                    .await?
                    .sync_all()
                    .await?;
                tokio::fs::rename(&unfinished.temporary, &unfinished.complete).await
            };
            renamed
                .await
                .with_context(|| format!("can't write {}", self.name))?;
        }
        Ok(true)
    }
}

async fn open_file(path: &Path) -> io::Result<(tokio::fs::File, Option<Unfinished>)> {
    let complete = match tokio::fs::canonicalize(path).await {
        Ok(target) => {
            let kind = tokio::fs::metadata(&target).await?.file_type();
            if kind.is_dir() {
                return Err(io::Error::other("it is a directory"));
            }
            if !kind.is_file() {
                // A device or a pipe: nothing to be renamed to.
                let file = tokio::fs::OpenOptions::new().write(true).open(path).await?;
                return Ok((file, None));
            }
            target
        }
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let mut name = complete
        .file_name()
        .ok_or_else(|| io::Error::other("it has no file name"))?
        .to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let temporary = complete.with_file_name(name);
    let file = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .await?;
    let unfinished = Unfinished {
        temporary,
        complete,
    };
    Ok((file, Some(unfinished)))
}
