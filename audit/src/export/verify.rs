//! Verifying an export, offline, with nothing but the archive and the public key of the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_log::{Position, Recorded};
use events::{DataKey, Envelope, Event, MessageId, Subject};
use merkle::{InclusionProof, TreeHead, VerifyingKey, leaf_data};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::archive::{pack, unpack};
use super::{
    EVENTS, FILES, FORMAT, KEY, Line, MANIFEST, Manifest, PAGE, PEOPLE, PROOFS, Proofs, README,
    SOFTWARE, Scope, TEXT_KEYS, TRANSCRIPT, TREE_HEAD, TextKey, Transcripts, json_file, key_file,
    line_of, opened, people_file, readme, sealed_with, sha256,
};
use crate::people::{People, Person};
use crate::transcript::Outline;
use crate::{Bound, Selected};

/// What is said of a file that says what it must, but in other bytes than Hansard writes.
const WRITTEN_OTHERWISE: &str =
    "is not as it was written: something was changed beside what it says";

/// What an export was found to be.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportReport {
    /// What does not fit, a sentence each. None: everything that can be verified was, and fits.
    pub differences: Vec<String>,
    /// How many events there are.
    pub events: u64,
    /// How many of them are proven to be in the log.
    pub proven: u64,
    /// How many texts were opened from the log's bytes.
    pub opened: u64,
    /// How many texts are said to be gone.
    pub gone: u64,
    /// How many texts are as Hansard says: the archive has no key to compare them with the log's bytes.
    pub unopened: u64,
    /// Whose signature the tree head has; `None` where no key was given.
    pub signed_by: Option<String>,
    /// How many events the tree head covers.
    pub tree_size: u64,
}

/// The file is no export, or can't be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableExport {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    /// It is none.
    #[error("it is no export of Hansard: {0}")]
    NotOne(String),
}

impl ExportReport {
    /// Whether everything fits.
    pub fn fits(&self) -> bool {
        self.differences.is_empty()
    }

    fn differs(&mut self, what: impl Into<String>) {
        self.differences.push(what.into());
    }
}

impl fmt::Display for ExportReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(formatter, "{difference}")?;
        }
        let Self {
            events,
            proven,
            opened,
            gone,
            unopened,
            tree_size,
            ..
        } = self;
        writeln!(
            formatter,
            "{proven} of {events} events are in the log whose first {tree_size} events the tree head covers"
        )?;
        writeln!(
            formatter,
            "{opened} texts were opened from the bytes in the log, {gone} are gone, {unopened} can't be compared"
        )?;
        match &self.signed_by {
            Some(key) => writeln!(formatter, "the tree head is signed with {key}")?,
            None => writeln!(
                formatter,
                "WHO SIGNED IS NOT KNOWN: without --key, the key in the archive itself was believed"
            )?,
        }
        match self.differences.len() {
            0 => formatter.write_str(
                "no difference; not proven: names, the times at which the log stored events, and that nothing of \
                 the room was left out",
            ),
            1 => formatter.write_str("1 difference"),
            many => write!(formatter, "{many} differences"),
        }
    }
}

/// Verifies the export that these bytes are. `keys` are the public keys of the log, from somebody who is
/// trusted; without any, the one in the archive is believed, which proves nothing of who made it.
///
/// # Errors
/// [`UnreadableExport`].
pub fn verify_export(
    archive: &[u8],
    keys: &[VerifyingKey],
) -> Result<ExportReport, UnreadableExport> {
    let mut report = ExportReport::default();
    let files = Files(unpack(archive, &mut report.differences)?);
    let manifest: Manifest = files.json(MANIFEST)?;
    if manifest.format != FORMAT {
        let told = format!("its format is {:?}, this is {SOFTWARE}", manifest.format);
        return Err(UnreadableExport::NotOne(told));
    }
    files.compare_with(&manifest, &mut report);
    files.compare_with_writing(MANIFEST, &manifest, &mut report);
    files.compare_with_packing(&manifest, archive, &mut report);
    let head = files.tree_head(keys, &mut report)?;
    let events = Events::read(&files, &mut report);
    events.compare_with(&manifest, &mut report);
    if let Some(head) = &head {
        prove(&files, &events, head, &mut report);
    }
    let told = events.open(&files, &mut report);
    find_left_out(&told, &mut report);
    compare_derived(&files, &manifest, &told, &mut report);
    Ok(report)
}

/// The files in the archive.
struct Files(BTreeMap<&'static str, Vec<u8>>);

impl Files {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, UnreadableExport> {
        let bytes = self
            .get(name)
            .ok_or_else(|| UnreadableExport::NotOne(format!("there is no {name} in it")))?;
        serde_json::from_slice(bytes)
            .map_err(|error| UnreadableExport::NotOne(format!("{name}: {error}")))
    }

    /// Reads a file; one that can't be read is a difference.
    fn read<T: DeserializeOwned + Default>(&self, name: &str, report: &mut ExportReport) -> T {
        self.json(name).unwrap_or_else(|error| {
            report.differs(error.to_string());
            T::default()
        })
    }

    fn compare_with(&self, manifest: &Manifest, report: &mut ExportReport) {
        for name in FILES.into_iter().filter(|name| *name != MANIFEST) {
            match (self.get(name), manifest.files.get(name)) {
                (None, None) if name == KEY => {}
                (None, _) => report.differs(format!("{name} is missing")),
                (Some(_), None) => report.differs(format!("the manifest does not name {name}")),
                (Some(bytes), Some(hash)) => {
                    if sha256(Sha256::new_with_prefix(bytes)) != *hash {
                        report.differs(format!("{name} is not the file that the manifest names"));
                    }
                }
            }
        }
        for name in manifest.files.keys() {
            if name == MANIFEST || !FILES.contains(&name.as_str()) {
                report.differs(format!(
                    "the manifest names {name:?}, which does not belong"
                ));
            }
        }
    }

    /// Nothing else can be in a file of JSON, also not where a reader of JSON does not look.
    fn compare_with_writing(&self, name: &str, value: &impl Serialize, report: &mut ExportReport) {
        let again = json_file(value).ok();
        if again.as_deref() != self.get(name) {
            report.differs(format!("{name} {WRITTEN_OTHERWISE}"));
        }
    }

    /// Nothing else can be in the archive, also not where a reader of archives does not look.
    fn compare_with_packing(&self, manifest: &Manifest, archive: &[u8], report: &mut ExportReport) {
        let files = self.0.iter();
        let mut files = files
            .map(|(name, bytes)| (*name, bytes.as_slice()))
            .collect();
        let mut comparison = Comparison { left: archive };
        let packed = pack(&mut files, manifest.exported_at, &mut comparison);
        if packed.is_err() || !comparison.left.is_empty() {
            report.differs(
                "the archive is not as it was packed: something was changed beside the files",
            );
        }
    }

    fn tree_head(
        &self,
        keys: &[VerifyingKey],
        report: &mut ExportReport,
    ) -> Result<Option<TreeHead>, UnreadableExport> {
        let note = String::from_utf8_lossy(self.get(TREE_HEAD).unwrap_or_default());
        let text = self.get(KEY).map(String::from_utf8_lossy);
        let own = text.iter().flat_map(|text| text.lines());
        let own: Vec<VerifyingKey> = own.map_while(|line| line.parse().ok()).collect();
        if let Some(text) = &text
            && key_file(&own).as_deref() != Some(text)
        {
            report.differs("key does not say the same key as text and in PEM");
        }
        let believed = match keys {
            [] => &own,
            given => {
                if text.is_some() && !own.iter().any(|key| given.contains(key)) {
                    report.differs("the key in the archive is not the one that was given");
                }
                given
            }
        };
        if believed.is_empty() {
            return Err(UnreadableExport::NotOne(
                "there is no key in it: give the log's public key with --key".to_owned(),
            ));
        }
        match TreeHead::verify(&note, believed) {
            Ok(head) => {
                report.tree_size = head.size;
                let signer = believed
                    .iter()
                    .find(|key| TreeHead::verify(&note, std::slice::from_ref(key)).is_ok());
                if !keys.is_empty() {
                    report.signed_by = signer.map(ToString::to_string);
                }
                Ok(Some(head))
            }
            Err(error) => {
                report.differs(format!("{TREE_HEAD}: {error}"));
                Ok(None)
            }
        }
    }
}

/// Compares what is written with what is there already.
struct Comparison<'a> {
    left: &'a [u8],
}

impl Write for Comparison<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.strip_prefix(bytes);
        self.left = left.ok_or_else(|| io::Error::other("it differs"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The events as the log stored them, and what is said that they say.
struct Events(Vec<(Recorded, Line)>);

impl Events {
    fn read(files: &Files, report: &mut ExportReport) -> Self {
        let mut events = Vec::new();
        let mut last = Position::ZERO;
        let text = files.get(EVENTS).unwrap_or_default();
        for (index, written) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let line: Line = match serde_json::from_slice(written) {
                Ok(line) => line,
                Err(error) => {
                    report.differs(format!("line {number} of {EVENTS}: {error}"));
                    continue;
                }
            };
            let Ok(payload) = STANDARD.decode(&line.bytes) else {
                report.differs(format!("{}: the bytes are not in base64", line.position));
                continue;
            };
            if line_of(&line).ok().as_deref() != Some(written) {
                report.differs(format!("line {number} of {EVENTS} {WRITTEN_OTHERWISE}"));
            }
            if line.position <= last {
                let position = line.position;
                report.differs(format!(
                    "{position}: the event is not behind the one before it"
                ));
            }
            last = line.position;
            let recorded = Recorded {
                position: line.position,
                subject: line.subject.clone(),
                stored_at: line.stored_at,
                payload: payload.into(),
            };
            events.push((recorded, line));
        }
        report.events = events.len() as u64;
        Self(events)
    }

    fn compare_with(&self, manifest: &Manifest, report: &mut ExportReport) {
        if manifest.events != report.events {
            report.differs(format!(
                "the manifest says that there are {} events, there are {}",
                manifest.events, report.events
            ));
        }
        let bound = |name: &str| manifest.filter.get(name).map(|text| text.parse::<Bound>());
        let (from, to) = (bound("from"), bound("to"));
        for (recorded, _) in &self.0 {
            let position = recorded.position;
            let subject = recorded.subject.parse().ok();
            let of_room = subject.and_then(Subject::room) == Some(manifest.room);
            let is_late_enough = match from {
                Some(Ok(Bound::Position(from))) => position >= from,
                Some(Ok(Bound::Time(from))) => recorded.stored_at >= from,
                Some(Err(_)) => false,
                None => true,
            };
            let is_early_enough = position <= manifest.read_up_to
                && match to {
                    Some(Ok(Bound::Position(to))) => position <= to,
                    Some(Ok(Bound::Time(to))) => recorded.stored_at <= to,
                    Some(Err(_)) => false,
                    None => true,
                };
            if !(of_room && is_late_enough && is_early_enough) {
                report.differs(format!("{position}: the event is not of what was exported"));
            }
        }
    }

    /// What the events say: opened from the log's bytes where there is a key, else as it is said.
    fn open(self, files: &Files, report: &mut ExportReport) -> Vec<Selected> {
        let keys = text_keys(files, report);
        let mut used = HashSet::new();
        let mut told = Vec::with_capacity(self.0.len());
        for (recorded, line) in self.0 {
            let sealed_with = sealed_with(&recorded);
            let key = sealed_with.as_ref().and_then(|ids| keys.get(ids));
            if key.is_some() {
                used.extend(sealed_with.clone());
            }
            let mut decoded = opened(&recorded, key);
            if let Ok(envelope) = &mut decoded {
                if key.is_none() && sealed_with.is_some() {
                    believe(&line, envelope, report);
                } else if key.is_some() {
                    report.opened += 1;
                }
            }
            let says = decoded.as_ref().ok().map(Envelope::to_json);
            let is_said = line.event.as_ref().map(|event| event.get().as_bytes());
            let why = decoded.as_ref().err().map(ToString::to_string);
            if says.as_deref() != is_said || why != line.undecodable {
                report.differs(format!(
                    "{}: what the event is said to say is not what its bytes say",
                    recorded.position
                ));
            }
            told.push(Selected { recorded, decoded });
        }
        for ids in keys.keys().filter(|ids| !used.contains(*ids)) {
            report.differs(format!(
                "{TEXT_KEYS}: no event is sealed with {}",
                ids.join(" and ")
            ));
        }
        told
    }
}

fn text_keys(files: &Files, report: &mut ExportReport) -> HashMap<Vec<String>, DataKey> {
    let mut keys = HashMap::new();
    let entries: Vec<TextKey> = files.read(TEXT_KEYS, report);
    files.compare_with_writing(TEXT_KEYS, &entries, report);
    if !entries.is_sorted_by(|one, other| one.sealed_with < other.sealed_with) {
        report.differs(format!("{TEXT_KEYS} does not have each key once, in order"));
    }
    for entry in entries {
        let bytes = STANDARD.decode(&entry.key).ok();
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => {
                keys.insert(entry.sealed_with, DataKey::from_bytes(bytes));
            }
            None => report.differs(format!("{TEXT_KEYS}: a key is not 32 bytes in base64")),
        }
    }
    keys
}

/// Takes the text that the event is said to have.
fn believe(line: &Line, envelope: &mut Envelope, report: &mut ExportReport) {
    let said = line.event.as_ref().and_then(|event| {
        let event: serde_json::Value = serde_json::from_str(event.get()).ok()?;
        Some(event["data"]["messageText"].as_str()?.to_owned())
    });
    match said {
        Some(_) => report.unopened += 1,
        None => report.gone += 1,
    }
    match &mut envelope.event {
        Event::MessagePosted(event) => event.message_text = said,
        Event::MessageEdited(event) => event.message_text = said,
        _ => {}
    }
}

fn prove(files: &Files, events: &Events, head: &TreeHead, report: &mut ExportReport) {
    let proofs: Option<Proofs> = files.read(PROOFS, report);
    let Some(proofs) = proofs else { return };
    files.compare_with_writing(PROOFS, &proofs, report);
    if !proofs.is_in_order() {
        report.differs(format!(
            "{PROOFS} does not have each hash once, in the order in which they are needed"
        ));
    }
    if proofs.tree_size != head.size {
        report.differs(format!(
            "{PROOFS} is for a tree of {} events, the tree head has {}",
            proofs.tree_size, head.size
        ));
    }
    let mut of_position = HashMap::new();
    for proof in &proofs.proofs {
        let hashes = proof
            .hashes
            .iter()
            .map(|index| proofs.hashes.get(*index).copied());
        let hashes: Option<Vec<_>> = hashes.collect();
        if of_position.insert(proof.position, hashes).is_some() {
            report.differs(format!(
                "{}: there are two proofs of the event",
                proof.position
            ));
        }
    }
    for (recorded, _) in &events.0 {
        let position = recorded.position;
        let Some(hashes) = of_position.remove(&position) else {
            report.differs(format!("{position}: there is no proof of the event"));
            continue;
        };
        let leaf = leaf_data(position, &recorded.payload);
        let proof = InclusionProof::new(position, &leaf, hashes.unwrap_or_default(), head);
        match proof.verify_in(head) {
            Ok(()) => report.proven += 1,
            Err(error) => report.differs(format!("{position}: {error}")),
        }
    }
    let mut left: Vec<_> = of_position.into_keys().collect();
    left.sort_unstable();
    for position in left {
        report.differs(format!("{position}: there is a proof, but no event"));
    }
}

/// Events tell of earlier ones. Of those that lie between the first and the last, all must be there.
fn find_left_out(told: &[Selected], report: &mut ExportReport) {
    let Some(first) = told.first().map(|selected| selected.recorded.position) else {
        return;
    };
    let mut posted = HashSet::new();
    for selected in told {
        let position = selected.recorded.position;
        let Ok(envelope) = &selected.decoded else {
            // It may have been a post.
            posted.insert(MessageId::at(position));
            continue;
        };
        let message = match &envelope.event {
            Event::MessagePosted(_) => {
                posted.insert(MessageId::at(position));
                continue;
            }
            Event::MessageEdited(event) => event.message_id,
            Event::MessageDeleted(event) => event.message_id,
            Event::MessageExpired(event) => event.up_to,
            _ => continue,
        };
        if message.position() >= first && !posted.contains(&message) {
            report.differs(format!(
                "{position}: the event tells of message {message}, which was left out"
            ));
        }
    }
}

/// Whatever can be made again from the rest is made again, and compared.
fn compare_derived(
    files: &Files,
    manifest: &Manifest,
    told: &[Selected],
    report: &mut ExportReport,
) {
    let people: Vec<Person> = files.read(PEOPLE, report);
    let people: People = people.into_iter().collect();
    let mut outline = Outline::default();
    for selected in told {
        if let Ok(envelope) = &selected.decoded {
            outline.event(selected.recorded.position, envelope);
        }
    }
    let scope = Scope {
        room: manifest.room,
        filter: manifest.filter.clone(),
        read_up_to: manifest.read_up_to,
    };
    let people_again = people_file(&people).unwrap_or_default();
    let mut transcripts = Transcripts::begin(&scope, outline, people);
    told.iter().for_each(|selected| transcripts.event(selected));
    transcripts.end();
    let by_another = match manifest.software == SOFTWARE {
        true => String::new(),
        false => format!(
            "; it was written by {}, this is {SOFTWARE}, which may write it in another way",
            manifest.software
        ),
    };
    for (name, again) in [
        (README, readme(manifest).into_bytes()),
        (PEOPLE, people_again),
        (TRANSCRIPT, transcripts.text),
        (PAGE, transcripts.page),
    ] {
        if files.get(name).is_some_and(|there| there != again) {
            report.differs(format!(
                "{name} does not say what the events say{by_another}"
            ));
        }
    }
}
