//! The legal export: what happened in a room, in one archive that a stranger can verify with nothing but the
//! public key of the log ([`verify_export`]).
//!
//! The archive is a tar file. What is in it is written (`write.rs`) and verified (`verify.rs`) by the same
//! functions, so that whatever can be made again from the rest is compared byte for byte. How far that proves
//! something is said in the archive itself (`readme.txt`) and in decision 0027.

mod archive;
mod http;
mod verify;
mod write;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use event_log::{Position, Recorded};
use events::{DataKey, DecodeError, Encoded, Envelope, KeyId, RoomId, Timestamp, UserId};
use keys::belonging;
use merkle::Hash;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::people::{People, Person};
use crate::transcript::{Html, Outline, Part, Style, Text, Transcript};
use crate::{Selected, Told};

pub(crate) use http::{__path_export_room, export_room};
pub use verify::{ExportReport, UnreadableExport, verify_export};
pub use write::{ExportError, ExportRequest, Exported, Sources, export, export_to};

/// What the archive is, for who reads it in ten years.
const FORMAT: &str = "hansard-export/1";

/// Which program writes it.
const SOFTWARE: &str = concat!("hansard ", env!("CARGO_PKG_VERSION"));

const README: &str = "README.txt";
const MANIFEST: &str = "manifest.json";
const TREE_HEAD: &str = "checkpoint";
const KEY: &str = "key";
const EVENTS: &str = "events.jsonl";
const PROOFS: &str = "proofs.json";
const TEXT_KEYS: &str = "text-keys.json";
const PEOPLE: &str = "people.json";
const TRANSCRIPT: &str = "transcript.txt";
const PAGE: &str = "transcript.html";

/// The files, in the order in which they are in the archive. The key is not there where the exporting process
/// does not know it.
const FILES: [&str; 10] = [
    README, MANIFEST, TREE_HEAD, KEY, EVENTS, PROOFS, TEXT_KEYS, PEOPLE, TRANSCRIPT, PAGE,
];

/// `manifest.json`: what was exported, by whom, and the other files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    format: String,
    software: String,
    exported_at: Timestamp,
    exported_by: Exporter,
    /// The position at which the log says that this was exported.
    recorded_at: Position,
    room: RoomId,
    /// The conditions of what was exported, the room among them.
    filter: BTreeMap<String, String>,
    /// Up to where the log was read.
    read_up_to: Position,
    events: u64,
    /// Each other file with its SHA-256 in hex.
    files: BTreeMap<String, String>,
}

/// A line of `events.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    position: Position,
    subject: String,
    stored_at: Timestamp,
    /// The bytes that the log stores, in base64.
    bytes: String,
    /// The event, with its texts opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    /// Why it can't be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
}

/// `proofs.json`: of each event, the hashes beside the path from it to the root.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Proofs {
    tree_size: u64,
    proofs: Vec<Proof>,
    /// The hashes, each once.
    hashes: Vec<Hash>,
}

impl Proofs {
    /// Whether nothing is in it that no proof needs, and everything where it is put by who writes it.
    fn is_in_order(&self) -> bool {
        let mut needed = 0;
        for index in self.proofs.iter().flat_map(|proof| &proof.hashes) {
            match index.cmp(&needed) {
                Ordering::Less => {}
                Ordering::Equal => needed += 1,
                Ordering::Greater => return false,
            }
        }
        let different: HashSet<&Hash> = self.hashes.iter().collect();
        let ascend = |one: &Proof, other: &Proof| one.position < other.position;
        needed == self.hashes.len()
            && different.len() == self.hashes.len()
            && self.proofs.is_sorted_by(ascend)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    position: Position,
    /// Which of the hashes, from 0, the event's neighbour first.
    hashes: Vec<usize>,
}

/// An entry of `text-keys.json`: what opens the texts of one author in this room in one month.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TextKey {
    /// The names of the keys that the texts are sealed with.
    sealed_with: Vec<String>,
    /// What is derived from them, in base64.
    key: String,
}

/// The names of the keys that an event's texts are sealed with; `None` where it has none.
fn sealed_with(recorded: &Recorded) -> Option<Vec<String>> {
    let ids = Encoded::parse(&recorded.payload).ok()?.key_ids();
    (!ids.is_empty()).then(|| ids.iter().map(KeyId::to_string).collect())
}

/// What an event says; without its texts, where there is no key to them.
fn opened(recorded: &Recorded, key: Option<&DataKey>) -> Result<Envelope, DecodeError> {
    let encoded = Encoded::parse(&recorded.payload)?;
    belonging(encoded.decode(key.map(std::slice::from_ref))?, recorded)
}

/// In hex, as `sha256sum` prints it.
fn sha256(hasher: Sha256) -> String {
    let hash = hasher.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The public keys as they are in the archive: each in a line, and the first in PEM for other programs.
fn key_file(keys: &[merkle::VerifyingKey]) -> Option<String> {
    let mut file: String = keys.iter().map(|key| format!("{key}\n")).collect();
    file.push_str(&keys.first()?.to_pem());
    Some(file)
}

/// A file of JSON, as it is in the archive.
fn json_file(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    Ok(json)
}

/// A line of `events.jsonl`, with its end.
fn line_of(line: &Line) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(line)?;
    json.push(b'\n');
    Ok(json)
}

fn people_file(people: &People) -> serde_json::Result<Vec<u8>> {
    let people: Vec<&Person> = people.iter().collect();
    serde_json::to_vec_pretty(&people)
}

/// The transcripts of the export, as they come to be one event after the other.
struct Transcripts {
    told: Told,
    transcript: Transcript,
    text: Vec<u8>,
    page: Vec<u8>,
}

impl Transcripts {
    fn begin(scope: &Scope, outline: Outline, people: People) -> Self {
        let mut transcripts = Self {
            told: Told::default(),
            transcript: Transcript::new(scope.room, outline, people),
            text: Vec::new(),
            page: Vec::new(),
        };
        let mut parts = vec![Part::Beginning {
            conditions: scope.filter.clone(),
            up_to: scope.read_up_to,
        }];
        transcripts.transcript.begin(&mut parts);
        transcripts.write(&parts);
        transcripts
    }

    fn event(&mut self, selected: &Selected) {
        self.told.events += 1;
        self.told.undecodable += u64::from(selected.decoded.is_err());
        let mut parts = Vec::new();
        self.transcript.event(selected, &mut parts);
        self.write(&parts);
    }

    fn end(&mut self) {
        let mut parts = Vec::new();
        self.transcript.end(&mut parts);
        parts.push(Part::Ending(self.told.to_string()));
        self.write(&parts);
    }

    fn write(&mut self, parts: &[Part]) {
        for part in parts {
            Text.write(part, &mut self.text);
            Html.write(part, &mut self.page);
        }
    }
}

/// What a transcript says of what it is of.
struct Scope {
    room: RoomId,
    filter: BTreeMap<String, String>,
    read_up_to: Position,
}

/// The explanation that is in the archive.
fn readme(manifest: &Manifest) -> String {
    let by = match &manifest.exported_by {
        Exporter::User(user) => format!("the user {user}"),
        Exporter::Operator(operator) => format!("the operator {operator}"),
    };
    let conditions = manifest.filter.iter();
    let conditions: Vec<String> = conditions
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    include_str!("readme.txt")
        .replace("{room}", &manifest.room.to_string())
        .replace("{conditions}", &conditions.join(", "))
        .replace("{events}", &manifest.events.to_string())
        .replace("{at}", &manifest.exported_at.to_string())
        .replace("{by}", &by)
        .replace("{recorded}", &manifest.recorded_at.to_string())
        .replace("{software}", &manifest.software)
}

/// Who exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exporter {
    /// A user, over HTTP.
    User(UserId),
    /// Whoever runs the command.
    Operator(String),
}
