//! Writing an export.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_log::{LogError, Position};
use events::{DataKey, Envelope, Event, MessageId, RoomId, Timestamp, UserId};
use keys::Record;
use merkle::{Hash, VerifyingKey, index_of};
use notary::{ProveError, Proven};
use read_models::TreeStore;
use serde_json::value::to_raw_value;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::archive::pack;
use super::{
    EVENTS, Exporter, FORMAT, KEY, Line, MANIFEST, Manifest, PAGE, PEOPLE, PROOFS, Proof, README,
    SOFTWARE, Scope, TEXT_KEYS, TRANSCRIPT, TREE_HEAD, TextKey, Transcripts, json_file, key_file,
    line_of, opened, people_file, readme, sealed_with, sha256,
};
use crate::document::outline;
use crate::output::Output;
use crate::people::People;
use crate::reading::{before, operator, record_reading};
use crate::transcript::Outline;
use crate::{Bound, InvalidRange, ReplayFilter, Selected, Selection};

/// How long to wait for a tree head that covers what is exported: by default one is signed at the latest ten
/// seconds after an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many events are read before they are proven.
const TOGETHER: usize = 256;

/// How often to look for it.
const LOOK: Duration = Duration::from_millis(200);

/// What to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportRequest {
    /// The room.
    pub room: RoomId,
    /// Only what happened not before this.
    pub from: Option<Bound>,
    /// Only what happened not after this.
    pub to: Option<Bound>,
}

/// What to export from.
#[derive(Clone)]
pub struct Sources {
    /// The record.
    pub record: Record,
    /// The tree over it.
    pub tree: Arc<dyn TreeStore>,
    /// The public keys of the log, the newest first, where they are known.
    pub keys: Vec<VerifyingKey>,
}

/// A finished export.
#[derive(Debug)]
pub struct Exported {
    /// The archive, from its beginning.
    pub archive: File,
    /// How many events it has.
    pub events: u64,
    /// How many events the tree has that proves them.
    pub tree_size: u64,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is nothing to be exported.
    #[error("nothing of room {0} is in the part of the log that was asked for")]
    Nothing(RoomId),
    /// What is to be exported is not proven yet.
    #[error(
        "no tree head covers position {0} yet: is a projector running? Try again, or export up to an earlier position"
    )]
    NotSigned(Position),
    /// The tree is over another log.
    #[error("the stored tree is over another log: see `hansard verify log`")]
    OtherLog,
    /// There is no proof.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// The log can't be written or read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no room for the archive.
    #[error("the archive can't be written: {0}")]
    Write(#[from] std::io::Error),
}

impl From<serde_json::Error> for ExportError {
    fn from(error: serde_json::Error) -> Self {
        Self::Write(error.into())
    }
}

impl ExportRequest {
    /// Whether the range can hold anything.
    ///
    /// # Errors
    /// It ends before it begins.
    pub fn check(&self) -> Result<(), InvalidRange> {
        self.filter().check()
    }

    pub(crate) fn filter(&self) -> ReplayFilter {
        ReplayFilter {
            room: Some(self.room),
            from: self.from,
            to: self.to,
            ..ReplayFilter::default()
        }
    }
}

/// Exports, for `actor` or whoever runs this process, who does `what`. First it is recorded.
///
/// # Errors
/// [`ExportError`].
pub async fn export(
    request: &ExportRequest,
    sources: &Sources,
    actor: Option<UserId>,
    what: &str,
) -> Result<Exported, ExportError> {
    let record = &sources.record;
    let filter = request.filter();
    let recorded_at = record_reading(record, actor, what, filter.conditions()).await?;
    let read_up_to = before(recorded_at);
    let whole = outline(record, request.room, read_up_to).await?;
    let people = People::look_up(record, whole.people(), read_up_to).await?;
    let gone = Gone { whole, people };
    let survey = Survey::of(record, &filter, read_up_to, &gone).await?;
    let proven = proven(
        sources,
        survey.last.ok_or(ExportError::Nothing(request.room))?,
    )
    .await?;
    let scope = Scope {
        room: request.room,
        filter: filter.conditions(),
        read_up_to,
    };
    let people_file = people_file(&gone.people)?;
    let mut writing = Writing {
        transcripts: Transcripts::begin(&scope, survey.outline, gone.people.clone()),
        gone,
        withheld: survey.withheld,
        text_keys: BTreeMap::new(),
        events: BufWriter::new(tempfile::tempfile()?),
        text: BufWriter::new(tempfile::tempfile()?),
        page: BufWriter::new(tempfile::tempfile()?),
        proofs: Vec::new(),
        hashes: Vec::new(),
        known: HashMap::new(),
    };
    let mut selection = Selection::start(record.clone(), filter, read_up_to).await?;
    loop {
        let mut together = Vec::with_capacity(TOGETHER);
        while together.len() < TOGETHER
            && let Some(selected) = selection.next().await?
        {
            together.push(selected);
        }
        if together.is_empty() {
            break;
        }
        // Each proof looks something up: not in the middle of a reading.
        selection.rest();
        for selected in together {
            writing.event(record, &proven, selected).await?;
        }
    }
    let exported_by = match actor {
        Some(user) => Exporter::User(user),
        None => Exporter::Operator(operator().await),
    };
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        software: SOFTWARE.to_owned(),
        exported_at: Timestamp::now(),
        exported_by,
        recorded_at,
        room: scope.room,
        filter: scope.filter,
        read_up_to,
        events: writing.proofs.len() as u64,
        files: BTreeMap::new(),
    };
    let (head, keys) = (proven.head.note.clone(), key_file(&sources.keys));
    let (events, tree_size) = (manifest.events, proven.head.size);
    let finishing = move || writing.finish(manifest, head, keys, people_file, tree_size);
    let archive = tokio::task::spawn_blocking(finishing).await;
    Ok(Exported {
        archive: archive.map_err(std::io::Error::other)??,
        events,
        tree_size,
    })
}

/// Exports to a file, for whoever runs this process. Of the file nothing is left when it can't be completed.
///
/// # Errors
/// [`ExportError`], or the file can't be written.
pub async fn export_to(
    output: &Path,
    request: &ExportRequest,
    sources: &Sources,
) -> anyhow::Result<Exported> {
    let mut output = Output::open(Some(output)).await?;
    let exported = export(request, sources, None, "hansard export").await?;
    let mut archive = tokio::fs::File::from_std(exported.archive.try_clone()?);
    while archive.read_buf(output.buffer()).await? > 0 {
        output.pass_on().await?;
    }
    output.complete().await?;
    Ok(exported)
}

/// Which texts are gone, whether they can be opened still or not.
struct Gone {
    /// All that happened in the room: a text may have expired outside of what is exported.
    whole: Outline,
    people: People,
}

impl Gone {
    fn is_gone(&self, author: UserId, message: MessageId) -> bool {
        self.whole.has_expired(message) || self.people.is_erased(author)
    }

    /// The event without its text, if that is gone.
    fn taken_out(&self, position: Position, mut envelope: Envelope) -> Envelope {
        if let Some((author, message)) = text_of(position, &envelope)
            && self.is_gone(author, message)
        {
            match &mut envelope.event {
                Event::MessagePosted(event) => event.message_text = None,
                Event::MessageEdited(event) => event.message_text = None,
                _ => {}
            }
        }
        envelope
    }
}

/// Whose text, and of which message, an event has.
fn text_of(position: Position, envelope: &Envelope) -> Option<(UserId, MessageId)> {
    match &envelope.event {
        Event::MessagePosted(event) => Some((event.author, MessageId::at(position))),
        Event::MessageEdited(event) => Some((event.author, event.message_id)),
        _ => None,
    }
}

/// What is to be known of the events before they are written.
struct Survey {
    outline: Outline,
    last: Option<Position>,
    /// The names of the keys with which a text is sealed that is gone: they are not handed out.
    withheld: BTreeSet<Vec<String>>,
}

impl Survey {
    async fn of(
        record: &Record,
        filter: &ReplayFilter,
        up_to: Position,
        gone: &Gone,
    ) -> Result<Self, ExportError> {
        let mut survey = Self {
            outline: Outline::default(),
            last: None,
            withheld: BTreeSet::new(),
        };
        let mut selection = Selection::start(record.clone(), filter.clone(), up_to).await?;
        while let Some(selected) = selection.next().await? {
            let recorded = &selected.recorded;
            survey.last = Some(recorded.position);
            let Ok(envelope) = record.outline(recorded) else {
                continue;
            };
            survey.outline.event(recorded.position, &envelope);
            if let Some((author, message)) = text_of(recorded.position, &envelope)
                && gone.is_gone(author, message)
            {
                survey.withheld.extend(sealed_with(recorded));
            }
        }
        Ok(survey)
    }
}

/// The newest tree head, once it covers `last`.
async fn proven(sources: &Sources, last: Position) -> Result<Proven<'_>, ExportError> {
    let deadline = Instant::now() + PATIENCE;
    let index = index_of(last).ok_or(ProveError::NoEvent(last))?;
    loop {
        match Proven::newest(sources.tree.as_ref()).await {
            Ok(proven) if proven.head.size > index => {
                let log = sources.record.log.tail().await?.incarnation;
                return match proven.head.log.as_deref() == Some(&log.0) {
                    true => Ok(proven),
                    false => Err(ExportError::OtherLog),
                };
            }
            Ok(_) | Err(ProveError::Unsigned) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            return Err(ExportError::NotSigned(last));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// An export that is being written.
struct Writing {
    transcripts: Transcripts,
    gone: Gone,
    withheld: BTreeSet<Vec<String>>,
    text_keys: BTreeMap<Vec<String>, DataKey>,
    events: BufWriter<File>,
    text: BufWriter<File>,
    page: BufWriter<File>,
    proofs: Vec<Proof>,
    hashes: Vec<Hash>,
    /// Where each hash is.
    known: HashMap<Hash, usize>,
}

impl Writing {
    async fn event(
        &mut self,
        record: &Record,
        proven: &Proven<'_>,
        selected: Selected,
    ) -> Result<(), ExportError> {
        let recorded = selected.recorded;
        let proof = proven.inclusion(record.log.as_ref(), recorded.position);
        let hashes = proof.await?.hashes;
        let hashes = hashes.into_iter().map(|hash| self.number(hash)).collect();
        self.proofs.push(Proof {
            position: recorded.position,
            hashes,
        });
        let key = self.text_key(record, &recorded).await?;
        let decoded = match selected.decoded {
            // A text to which there is no key is as Hansard says, unless it is gone.
            Ok(envelope) if key.is_none() && sealed_with(&recorded).is_some() => {
                Ok(self.gone.taken_out(recorded.position, envelope))
            }
            _ => opened(&recorded, key.as_ref()),
        };
        let event = decoded.as_ref().ok();
        let event = event.map(|envelope| to_raw_value(&envelope.opened()));
        let line = Line {
            position: recorded.position,
            subject: recorded.subject.clone(),
            stored_at: recorded.stored_at,
            bytes: STANDARD.encode(&recorded.payload),
            event: event.transpose()?,
            undecodable: decoded.as_ref().err().map(ToString::to_string),
        };
        let selected = Selected { recorded, decoded };
        self.transcripts.event(&selected);
        self.events.write_all(&line_of(&line)?)?;
        Ok(self.pass_on_transcripts()?)
    }

    fn pass_on_transcripts(&mut self) -> std::io::Result<()> {
        self.text.write_all(&self.transcripts.text)?;
        self.page.write_all(&self.transcripts.page)?;
        self.transcripts.text.clear();
        self.transcripts.page.clear();
        Ok(())
    }

    fn number(&mut self, hash: Hash) -> usize {
        *self.known.entry(hash).or_insert_with(|| {
            self.hashes.push(hash);
            self.hashes.len() - 1
        })
    }

    /// What opens the event's texts, and may be handed out.
    async fn text_key(
        &mut self,
        record: &Record,
        recorded: &event_log::Recorded,
    ) -> Result<Option<DataKey>, ExportError> {
        let Some(ids) = sealed_with(recorded).filter(|ids| !self.withheld.contains(ids)) else {
            return Ok(None);
        };
        let key = record.keyring.text_key(recorded).await?;
        if let Some(key) = &key {
            self.text_keys.insert(ids, key.clone());
        }
        Ok(key)
    }

    /// Packs everything.
    fn finish(
        mut self,
        mut manifest: Manifest,
        head: String,
        keys: Option<String>,
        people: Vec<u8>,
        tree_size: u64,
    ) -> Result<File, ExportError> {
        self.transcripts.end();
        self.pass_on_transcripts()?;
        let proofs = super::Proofs {
            tree_size,
            proofs: self.proofs,
            hashes: self.hashes,
        };
        let text_keys = self
            .text_keys
            .into_iter()
            .map(|(sealed_with, key)| TextKey {
                sealed_with,
                key: STANDARD.encode(key.as_bytes()),
            });
        let text_keys: Vec<TextKey> = text_keys.collect();
        let mut files = BTreeMap::from([
            (README, temporary(readme(&manifest).as_bytes())?),
            (TREE_HEAD, temporary(head.as_bytes())?),
            (EVENTS, written(self.events)?),
            (PROOFS, temporary(&json_file(&proofs)?)?),
            (TEXT_KEYS, temporary(&json_file(&text_keys)?)?),
            (PEOPLE, temporary(&people)?),
            (TRANSCRIPT, written(self.text)?),
            (PAGE, written(self.page)?),
        ]);
        if let Some(keys) = keys {
            files.insert(KEY, temporary(keys.as_bytes())?);
        }
        for (name, file) in &mut files {
            file.rewind()?;
            let mut hasher = Sha256::new();
            let mut chunk = vec![0; 64 * 1024];
            loop {
                match file.read(&mut chunk)? {
                    0 => break,
                    read => hasher.update(&chunk[..read]),
                }
            }
            file.rewind()?;
            manifest.files.insert((*name).to_owned(), sha256(hasher));
        }
        files.insert(MANIFEST, temporary(&json_file(&manifest)?)?);
        let mut archive = BufWriter::new(tempfile::tempfile()?);
        pack(&mut files, manifest.exported_at, &mut archive)?;
        Ok(written(archive)?)
    }
}

/// What was written, from its beginning.
fn written(file: BufWriter<File>) -> std::io::Result<File> {
    let mut file = file.into_inner().map_err(|error| error.into_error())?;
    file.rewind()?;
    Ok(file)
}

/// A file without a name that holds this, to be read from its beginning.
fn temporary(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
