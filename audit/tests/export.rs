//! The legal export: what is in it, what is found when something of it was changed, also by somebody who makes
//! the rest fit as far as that is possible, and the way to check it by hand that it explains itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use audit::{
    ExportError, ExportReport, ExportRequest, Options, Sources, export, routes, verify_export,
};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event_log::{Expect, Position, SqliteLog};
use events::{
    ConversationRead, DataKey, Encoded, Envelope, Event, KeyId, MessageDeleted, MessageEdited,
    MessageExpired, MessageId, MessagePosted, Names, RoomId, RoomInitiated, RoomType, Timestamp,
    UserCreated, UserId, UserType,
};
use http_body_util::BodyExt;
use keys::{Keyring, Record};
use merkle::{InclusionProof, SigningKey, TreeHead, VerifyingKey, leaf_data};
use notary::{HeadsFile, Status};
use platform::auth::Auth;
use platform::config::AuthMode;
use platform::role::Role;
use read_models::{Catalogue, SqliteCatalogue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

const fn user(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number << 96 | number))
}
const ANNA: UserId = user(0xa);
const BELA: UserId = user(0xb);

fn room() -> RoomId {
    RoomId::derive(RoomType::ConsumerToConsumer, &[ANNA, BELA], 0)
}

fn other_room() -> RoomId {
    RoomId::derive(RoomType::ConsumerToSupport, &[ANNA, BELA], 0)
}

/// A record with its tree.
struct Given {
    directory: TempDir,
    sources: Sources,
    key: SigningKey,
}

impl Given {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = SqliteLog::open(&directory.path().join("log.db")).await;
        let catalogue = SqliteCatalogue::open(&directory.path().join("read.db")).await;
        let key = SigningKey::from_seed("test.example/log", [1; 32]).unwrap();
        Self {
            sources: Sources {
                record: Record::new(Arc::new(log.unwrap()), Keyring::in_memory()),
                tree: catalogue.unwrap().tree(),
                keys: vec![key.public().clone()],
            },
            key,
            directory,
        }
    }

    async fn append(&self, at: &str, actor: UserId, event: Event) -> Position {
        let at: Timestamp = at.parse().unwrap();
        let envelope = Envelope {
            at,
            ..Envelope::new(event, Some(actor), None)
        };
        let appended = self.sources.record.append(&envelope, Expect::Any).await;
        appended.unwrap().position
    }

    async fn post(&self, room: RoomId, author: UserId, text: &str, at: &str) -> Position {
        let event = MessagePosted {
            room_id: room,
            author,
            message_text: Some(text.to_owned()),
        };
        self.append(at, author, Event::MessagePosted(event)).await
    }

    /// Two people and what they say to each other, in the room and elsewhere: 4, 5, 6, 8, 9, 10 and 11 are of the
    /// room.
    async fn talked() -> Self {
        let given = Self::new().await;
        for (user_id, first_name) in [(ANNA, "Anna"), (BELA, "Bela")] {
            let event = UserCreated {
                user_id,
                names: Some(Names::new(first_name, "Smith")),
                user_type: UserType::Consumer,
            };
            given
                .append(NOVEMBER, user_id, Event::UserCreated(event))
                .await;
        }
        for (room_id, room_type) in [
            (other_room(), RoomType::ConsumerToSupport),
            (room(), RoomType::ConsumerToConsumer),
        ] {
            let event = RoomInitiated {
                room_id,
                room_type,
                members: vec![ANNA, BELA],
                initiator: ANNA,
                generation: 0,
            };
            given
                .append(NOVEMBER, ANNA, Event::RoomInitiated(event))
                .await;
        }
        given.post(room(), ANNA, "Old words", OCTOBER).await; // 5
        let asked = given.post(room(), ANNA, "How much?", NOVEMBER).await;
        given.post(other_room(), BELA, "elsewhere", NOVEMBER).await; // 7
        given.post(room(), BELA, "Five hundred", NOVEMBER).await; // 8
        let message_id = MessageId::at(asked);
        let edited = MessageEdited {
            room_id: room(),
            message_id,
            author: ANNA,
            posted_at: NOVEMBER.parse().unwrap(),
            message_text: Some("How much is it?".to_owned()),
        };
        given
            .append(NOVEMBER, ANNA, Event::MessageEdited(edited))
            .await;
        let read = ConversationRead {
            room_id: room(),
            reader: BELA,
            up_to: None,
        };
        given
            .append(NOVEMBER, BELA, Event::ConversationRead(read))
            .await;
        let deleted = MessageDeleted {
            room_id: room(),
            message_id,
        };
        given
            .append(NOVEMBER, ANNA, Event::MessageDeleted(deleted))
            .await;
        given
    }

    /// Has everything hashed and signed, until it is dropped.
    fn notary(&self) -> (tokio::task::JoinHandle<()>, CancellationToken) {
        let options = notary::Options {
            log: Arc::clone(&self.sources.record.log),
            store: Arc::clone(&self.sources.tree),
            keys: vec![self.key.clone()],
            file: HeadsFile::new(self.directory.path().join("tree-heads")),
            webhook: None,
            every_events: 1,
            every: Duration::from_secs(1),
            status: Status::default(),
            drain: Duration::from_secs(30),
        };
        let stop = CancellationToken::new();
        let keeping = notary::keep(options, stop.clone());
        (tokio::spawn(keeping), stop)
    }

    async fn exported(&self, from: Option<&str>, to: Option<&str>) -> Vec<u8> {
        let (keeping, stop) = self.notary();
        let request = ExportRequest {
            room: room(),
            from: from.map(|text| text.parse().unwrap()),
            to: to.map(|text| text.parse().unwrap()),
        };
        let exported = export(&request, &self.sources, None, "hansard export").await;
        stop.cancel();
        keeping.await.unwrap();
        let mut archive = Vec::new();
        exported.unwrap().archive.read_to_end(&mut archive).unwrap();
        archive
    }

    fn verified(&self, archive: &[u8]) -> ExportReport {
        verify_export(archive, &[self.key.public().clone()]).unwrap()
    }
}

const OCTOBER: &str = "2026-10-31T12:00:00Z";
const NOVEMBER: &str = "2026-11-22T17:00:00Z";

/// The files of an archive, to be changed.
#[derive(Clone)]
struct Forged(Vec<(String, Vec<u8>)>);

impl Forged {
    fn from(archive: &[u8]) -> Self {
        let mut archive = tar::Archive::new(archive);
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        });
        Self(files.collect())
    }

    fn file(&self, name: &str) -> &[u8] {
        let mut files = self.0.iter();
        &files.find(|(it, _)| it == name).unwrap().1
    }

    fn text(&self, name: &str) -> &str {
        std::str::from_utf8(self.file(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.file(name)).unwrap()
    }

    fn put(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        let mut files = self.0.iter_mut();
        files.find(|(it, _)| it == name).unwrap().1 = bytes.into();
    }

    /// Puts `new` in the place of `old`, which must be there.
    fn replace(&mut self, name: &str, old: &str, new: &str) {
        let text = self.text(name);
        assert!(text.contains(old), "{name} has no {old}: {text}");
        self.put(name, text.replacen(old, new, 1));
    }

    fn put_json(&mut self, name: &str, value: &Value) {
        let mut json = serde_json::to_vec_pretty(value).unwrap();
        json.push(b'\n');
        self.put(name, json);
    }

    /// Packed, with a manifest that fits.
    fn packed(mut self) -> Vec<u8> {
        let mut manifest = self.json("manifest.json");
        let files = self.0.iter().filter(|(name, _)| name != "manifest.json");
        let hashes: BTreeMap<&str, String> = files
            .map(|(name, bytes)| {
                let hash = Sha256::digest(bytes);
                let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                (name.as_str(), hash)
            })
            .collect();
        manifest["files"] = json!(hashes);
        self.put_json("manifest.json", &manifest);
        self.packed_as_it_is()
    }

    /// Packed, with whatever manifest there is.
    fn packed_as_it_is(&self) -> Vec<u8> {
        let manifest = self.json("manifest.json");
        let at: Timestamp = manifest["exportedAt"].as_str().unwrap().parse().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.0 {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime((at.as_millis() / 1000) as u64);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        archive.into_inner().unwrap()
    }
}

#[tokio::test]
async fn an_export_has_the_events_of_the_room_and_everything_that_proves_them() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let report = given.verified(&archive);
    assert!(report.fits(), "{report}");
    assert_eq!((report.events, report.proven), (7, 7));
    assert_eq!((report.opened, report.gone, report.unopened), (4, 0, 0));
    assert_eq!(report.signed_by, Some(given.key.public().to_string()));

    let files = Forged::from(&archive);
    let lines: Vec<Value> = files
        .text("events.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let positions: Vec<_> = lines
        .iter()
        .map(|line| line["position"].as_str().unwrap())
        .collect();
    assert_eq!(
        positions,
        [4, 5, 6, 8, 9, 10, 11].map(|it| Position::new(it).to_string())
    );
    assert_eq!(lines[3]["event"]["data"]["messageText"], "Five hundred");
    let stored = given
        .sources
        .record
        .log
        .get(Position::new(8))
        .await
        .unwrap();
    let bytes = STANDARD
        .decode(lines[3]["bytes"].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes, stored.unwrap().payload);
    let transcript = files.text("transcript.txt");
    assert!(
        transcript.contains("Bela Smith:\n    | Five hundred\n"),
        "{transcript}"
    );
    assert!(!transcript.contains("elsewhere"));

    // The reading stands in the log, at the position that the manifest names.
    let manifest = files.json("manifest.json");
    let position: Position = manifest["recordedAt"].as_str().unwrap().parse().unwrap();
    let recorded = given
        .sources
        .record
        .log
        .get(position)
        .await
        .unwrap()
        .unwrap();
    let envelope = given.sources.record.outline(&recorded).unwrap();
    let Event::AuditRead(read) = envelope.event else {
        panic!("{envelope:?}")
    };
    assert_eq!(read.what, "hansard export");
    assert_eq!(
        read.filter,
        BTreeMap::from([("room".to_owned(), room().to_string())])
    );
    assert_eq!(
        manifest["exportedBy"]["operator"].as_str(),
        read.operator.as_deref()
    );
    assert!(read.operator.unwrap().contains('@'));
}

#[tokio::test]
async fn a_part_is_exported_by_itself() {
    let given = Given::talked().await;
    let archive = given.exported(Some("8"), Some("000000000000000a")).await;
    let report = given.verified(&archive);
    assert!(report.fits(), "{report}");
    assert_eq!(report.events, 3);
    let transcript = Forged::from(&archive).text("transcript.txt").to_owned();
    assert!(transcript.contains("how the room was initiated is not part of what was read"));
}

/// A change, and the beginning of a sentence that must tell it; or several.
type Forgery = (&'static str, fn(&mut Forged), &'static [&'static str]);

fn line(files: &Forged, position: u64) -> String {
    let begin = format!(r#"{{"position":"{}""#, Position::new(position));
    let mut lines = files.text("events.jsonl").lines();
    lines
        .find(|line| line.starts_with(&begin))
        .unwrap()
        .to_owned()
}

fn without_line(files: &mut Forged, position: u64) {
    let line = line(files, position) + "\n";
    files.replace("events.jsonl", &line, "");
}

fn without_proof(files: &mut Forged, position: u64) {
    let mut proofs = files.json("proofs.json");
    let position = Position::new(position).to_string();
    let all = proofs["proofs"].as_array_mut().unwrap();
    all.retain(|proof| proof["position"] != position);
    files.put_json("proofs.json", &proofs);
    let mut manifest = files.json("manifest.json");
    let events = manifest["events"].as_u64().unwrap();
    manifest["events"] = json!(events - 1);
    files.put_json("manifest.json", &manifest);
    let told = format!("{events} events, by");
    files.replace("README.txt", &told, &format!("{} events, by", events - 1));
}

const FORGERIES: &[Forgery] = &[
    (
        "another text",
        |files| {
            files.replace("events.jsonl", "Five hundred", "Nine hundred");
            files.replace("transcript.txt", "Five hundred", "Nine hundred");
            files.replace("transcript.html", "Five hundred", "Nine hundred");
        },
        &["0000000000000008: what the event is said to say is not what its bytes say"],
    ),
    (
        "another text in the transcript alone",
        |files| files.replace("transcript.txt", "Five hundred", "Nine hundred"),
        &["transcript.txt does not say what the events say"],
    ),
    (
        "another text on the page alone",
        |files| files.replace("transcript.html", "Five hundred", "Nine hundred"),
        &["transcript.html does not say what the events say"],
    ),
    (
        "another author, in the bytes as well",
        |files| {
            let line = line(files, 10);
            let mut changed: Value = serde_json::from_str(&line).unwrap();
            let bytes = STANDARD.decode(changed["bytes"].as_str().unwrap()).unwrap();
            let bytes = String::from_utf8(bytes).unwrap();
            let bytes = bytes.replace(&BELA.to_string(), &ANNA.to_string());
            let event: Value = serde_json::from_str(&bytes).unwrap();
            changed["bytes"] = json!(STANDARD.encode(&bytes));
            changed["event"] = event;
            files.replace("events.jsonl", &line, &changed.to_string());
        },
        &["000000000000000a: the hashes do not lead from the event to the signed root"],
    ),
    (
        "an event at another position",
        |files| {
            let (old, new) = (Position::new(10).to_string(), "000000000000000c");
            files.replace(
                "events.jsonl",
                &format!(r#"{{"position":"{old}"#),
                &format!(r#"{{"position":"{new}"#),
            );
            let mut proofs = files.json("proofs.json");
            proofs["proofs"][5]["position"] = json!(new);
            files.put_json("proofs.json", &proofs);
        },
        &["000000000000000c: the hashes do not lead from the event to the signed root"],
    ),
    (
        "another proof",
        |files| {
            let mut proofs = files.json("proofs.json");
            proofs["proofs"][3]["hashes"][0] = json!(1);
            proofs["proofs"][3]["hashes"][1] = json!(1);
            files.put_json("proofs.json", &proofs);
        },
        &["0000000000000008: the hashes do not lead from the event to the signed root"],
    ),
    (
        "another root",
        |files| {
            let root = files.text("checkpoint").lines().nth(2).unwrap().to_owned();
            let other = STANDARD.encode([7; 32]);
            files.replace("checkpoint", &root, &other);
        },
        &["checkpoint: the signature of test.example/log+"],
    ),
    (
        "a head that somebody else has signed, with the key to it",
        |files| {
            let key = SigningKey::from_seed("test.example/log", [2; 32]).unwrap();
            let head = TreeHead::parse(files.text("checkpoint")).unwrap();
            let log = head.log.unwrap();
            let forged = TreeHead::sign(&key, &log, head.size, head.root).unwrap();
            files.put("checkpoint", forged.note);
            let public = key.public();
            files.put("key", format!("{public}\n{}", public.to_pem()));
        },
        &[
            "the key in the archive is not the one that was given",
            "checkpoint: ",
        ],
    ),
    (
        "the key of another in PEM alone",
        |files| {
            let key = SigningKey::from_seed("test.example/log", [2; 32]).unwrap();
            let text = files.text("key").lines().next().unwrap().to_owned();
            files.put("key", format!("{text}\n{}", key.public().to_pem()));
        },
        &["key does not say the same key as text and in PEM"],
    ),
    (
        "a file left out",
        |files| files.0.retain(|(name, _)| name != "transcript.html"),
        &["transcript.html is missing"],
    ),
    (
        "a file added",
        |files| {
            files
                .0
                .push(("evidence.txt".to_owned(), b"He did it.".to_vec()))
        },
        &["\"evidence.txt\" is in the archive and does not belong there"],
    ),
    (
        "an event removed",
        |files| without_line(files, 8),
        &[
            "the manifest says that there are 7 events, there are 6",
            "0000000000000008: there is a proof, but no event",
        ],
    ),
    (
        "an event removed with its proof",
        |files| {
            without_line(files, 10);
            without_proof(files, 10);
        },
        &["transcript.txt does not say what the events say"],
    ),
    (
        "a message removed with its proof, that others refer to",
        |files| {
            without_line(files, 6);
            without_proof(files, 6);
        },
        &[
            "0000000000000009: the event tells of message 0000000000000006, which was left out",
            "000000000000000b: the event tells of message 0000000000000006, which was left out",
        ],
    ),
    (
        "a proof removed",
        |files| without_proof(files, 8),
        &["0000000000000008: there is no proof of the event"],
    ),
    (
        "events in another order",
        |files| {
            let (one, other) = (line(files, 5), line(files, 6));
            let text = files.text("events.jsonl");
            let text = text
                .replace(&one, "X")
                .replace(&other, &one)
                .replace("X\n", &(other + "\n"));
            files.put("events.jsonl", text);
        },
        &["0000000000000005: the event is not behind the one before it"],
    ),
    (
        "an event twice",
        |files| {
            let line = line(files, 8);
            files.replace("events.jsonl", &line, &format!("{line}\n{line}"));
        },
        &["0000000000000008: the event is not behind the one before it"],
    ),
    (
        "another name",
        |files| files.replace("people.json", "Bela", "Carl"),
        &["transcript.txt does not say what the events say"],
    ),
    (
        "another key to the texts",
        |files| {
            let mut keys = files.json("text-keys.json");
            keys[0]["key"] = json!(STANDARD.encode(DataKey::random().as_bytes()));
            files.put_json("text-keys.json", &keys);
        },
        &[": what the event is said to say is not what its bytes say"],
    ),
    (
        "a key to texts that are not there",
        |files| {
            let mut keys = files.json("text-keys.json");
            let key = json!({"sealedWith": ["person.x"], "key": STANDARD.encode([1; 32])});
            keys.as_array_mut().unwrap().push(key);
            files.put_json("text-keys.json", &keys);
        },
        &["text-keys.json: no event is sealed with person.x"],
    ),
    (
        "the room of another export",
        |files| {
            files.replace(
                "manifest.json",
                &room().to_string(),
                &other_room().to_string(),
            )
        },
        &["0000000000000004: the event is not of what was exported"],
    ),
    (
        "something between the proofs",
        |files| files.replace("proofs.json", "{", "{ \t"),
        &["proofs.json is not as it was written"],
    ),
    (
        "a hash that proves nothing",
        |files| {
            let mut proofs = files.json("proofs.json");
            let hashes = proofs["hashes"].as_array_mut().unwrap();
            hashes.push(json!(STANDARD.encode([7; 32])));
            files.put_json("proofs.json", &proofs);
        },
        &["proofs.json does not have each hash once"],
    ),
    (
        "something behind an event",
        |files| files.replace("events.jsonl", "}\n", "}\t \n"),
        &["line 1 of events.jsonl is not as it was written"],
    ),
    (
        "keys in another order",
        |files| {
            let mut keys = files.json("text-keys.json");
            keys.as_array_mut().unwrap().reverse();
            files.put_json("text-keys.json", &keys);
        },
        &["text-keys.json does not have each key once, in order"],
    ),
    (
        "something behind the keys",
        |files| files.replace("text-keys.json", "]\n", "] \n"),
        &["text-keys.json is not as it was written"],
    ),
    (
        "another explanation",
        |files| files.replace("README.txt", "Not proven:", "Proven:"),
        &["README.txt does not say what the events say"],
    ),
];

#[tokio::test]
async fn every_change_is_told_also_where_the_manifest_was_made_to_fit() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let unchanged = given.verified(&Forged::from(&archive).packed());
    assert!(
        unchanged.fits(),
        "whoever forges packs as Hansard does: {unchanged}"
    );
    for (what, forge, sentences) in FORGERIES {
        let mut files = Forged::from(&archive);
        forge(&mut files);
        let report = given.verified(&files.packed());
        for sentence in *sentences {
            let mut told = report.differences.iter();
            assert!(told.any(|it| it.contains(sentence)), "{what}: {report}");
        }
    }
}

#[tokio::test]
async fn nothing_is_hidden_in_the_manifest() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let told = "manifest.json is not as it was written";
    for (old, new) in [("{", "{ "), ("\n}\n", "\n}")] {
        let mut files = Forged::from(&archive);
        files.replace("manifest.json", old, new);
        let report = given.verified(&files.packed_as_it_is());
        assert!(report.differences[0].starts_with(told), "{report}");
    }
}

#[tokio::test]
async fn every_flipped_bit_is_found() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    for index in (0..archive.len()).step_by(241) {
        let mut changed = archive.clone();
        changed[index] ^= 1;
        let keys: [VerifyingKey; 1] = [given.key.public().clone()];
        // What is no archive any more is found as well.
        let fits = verify_export(&changed, &keys).is_ok_and(|report| report.fits());
        assert!(!fits, "byte {index}");
    }
    for more in [&b"\0"[..], b"more", &[0; 512]] {
        let longer = [&archive, more].concat();
        assert!(!given.verified(&longer).fits(), "{more:?}");
    }
    let keys = [given.key.public().clone()];
    for length in [0, 512, archive.len() / 2, archive.len() - 512] {
        let fits = verify_export(&archive[..length], &keys).is_ok_and(|report| report.fits());
        assert!(!fits, "{length} bytes");
    }
}

#[tokio::test]
async fn without_a_key_it_is_said_that_nobody_knows_who_signed() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let report = verify_export(&archive, &[]).unwrap();
    assert!(report.fits(), "{report}");
    assert!(
        report.to_string().contains("WHO SIGNED IS NOT KNOWN"),
        "{report}"
    );

    // Where the exporting process does not know the key, there is none to be believed.
    let mut given = Given::talked().await;
    given.sources.keys.clear();
    let archive = given.exported(None, None).await;
    let refused = verify_export(&archive, &[]).unwrap_err().to_string();
    assert!(refused.contains("--key"), "{refused}");
    assert!(given.verified(&archive).fits());
}

#[tokio::test]
async fn texts_that_are_gone_are_not_handed_out_nor_a_key_that_opens_them() {
    let given = Given::talked().await;
    // Of October; the key is not destroyed yet. That it expired is told outside of the part that is exported.
    let expired = MessageExpired {
        room_id: room(),
        up_to: MessageId::at(Position::new(5)),
    };
    given
        .append(NOVEMBER, ANNA, Event::MessageExpired(expired))
        .await;
    let archive = given.exported(None, Some("11")).await;
    let report = given.verified(&archive);
    assert!(report.fits(), "{report}");
    assert_eq!((report.opened, report.gone, report.unopened), (3, 1, 0));
    let files = Forged::from(&archive);
    for (name, bytes) in &files.0 {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("Old words"), "{name}");
        assert!(
            name != "text-keys.json" || !text.contains("2026-10"),
            "{text}"
        );
    }
    assert!(files.text("transcript.txt").contains("[expired]"));

    // Erased: the key is destroyed.
    let destroyed = given
        .sources
        .record
        .keyring
        .destroy(KeyId::Person(BELA))
        .await;
    destroyed.unwrap();
    let erased = events::UserErased {
        user_id: BELA,
        user_type: UserType::Consumer,
        created_at: NOVEMBER.parse().unwrap(),
    };
    given
        .append(NOVEMBER, ANNA, Event::UserErased(erased))
        .await;
    let archive = given.exported(None, None).await;
    let report = given.verified(&archive);
    assert!(report.fits(), "{report}");
    assert_eq!((report.opened, report.gone, report.unopened), (2, 2, 0));
    let transcript = Forged::from(&archive).text("transcript.txt").to_owned();
    assert!(transcript.contains("[erased]"), "{transcript}");
    assert!(
        !transcript.contains("Five hundred") && !transcript.contains("Bela"),
        "{transcript}"
    );
}

#[tokio::test]
async fn a_key_in_an_export_opens_nothing_of_another_room_or_month() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let keys = Forged::from(&archive).json("text-keys.json");
    let elsewhere = given.sources.record.log.get(Position::new(7)).await;
    let elsewhere = elsewhere.unwrap().unwrap();
    for key in keys.as_array().unwrap() {
        let bytes = STANDARD.decode(key["key"].as_str().unwrap()).unwrap();
        let key = DataKey::from_bytes(bytes.try_into().unwrap());
        let encoded = Encoded::parse(&elsewhere.payload).unwrap();
        assert!(encoded.decode(Some(&[key])).is_err());
    }
}

#[tokio::test]
async fn what_cant_be_exported_is_said() {
    let given = Given::talked().await;
    let unknown = ExportRequest {
        room: RoomId::derive(RoomType::ConsumerToConsumer, &[ANNA], 0),
        from: None,
        to: None,
    };
    let refused = export(&unknown, &given.sources, None, "hansard export").await;
    assert!(
        matches!(refused, Err(ExportError::Nothing(_))),
        "{refused:?}"
    );
    for no_export in [&b""[..], b"something else entirely"] {
        assert!(verify_export(no_export, &[]).is_err());
    }
}

/// The commands that the export tells whoever wants to check it by hand.
fn by_hand(readme: &str) -> String {
    let section = readme.split("By hand,").nth(1).unwrap();
    let section = section.split("WHAT IT PROVES").next().unwrap();
    let commands = section.lines().filter_map(|line| line.strip_prefix("  "));
    commands.map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn it_is_checked_by_hand_in_the_way_that_it_explains() {
    for program in ["openssl", "jq", "sha256sum"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("skipped: there is no {program}");
            return;
        }
    }
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let check = |archive: &[u8], n: usize| {
        let directory = tempfile::tempdir().unwrap();
        tar::Archive::new(archive).unpack(directory.path()).unwrap();
        let readme = std::fs::read_to_string(directory.path().join("README.txt")).unwrap();
        let script = by_hand(&readme).replace("n=0", &format!("n={n}"));
        let mut command = Command::new("bash");
        command.args(["-ec", &script]).current_dir(directory.path());
        let output = command.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    };
    for n in 0..7 {
        let (is_done, printed) = check(&archive, n);
        assert!(is_done, "{printed}");
        assert!(
            printed.contains("Signature Verified Successfully"),
            "{printed}"
        );
        let last: Vec<&str> = printed.lines().rev().take(2).collect();
        assert_eq!(last[0], last[1], "{printed}");
    }
    let mut files = Forged::from(&archive);
    let line = line(&files, 4);
    let mut changed: Value = serde_json::from_str(&line).unwrap();
    changed["bytes"] = json!(STANDARD.encode("other bytes"));
    files.replace("events.jsonl", &line, &changed.to_string());
    let (_, printed) = check(&files.packed(), 0);
    let last: Vec<&str> = printed.lines().rev().take(2).collect();
    assert_ne!(last[0], last[1], "{printed}");
}

#[tokio::test]
async fn auditors_export_over_http() {
    let given = Given::talked().await;
    let secret = "a secret of thirty-two bytes, or more".to_owned();
    let minute = Duration::from_secs(60);
    let auth = Auth::new(AuthMode::Token, minute, &[secret]).unwrap();
    let options = Options {
        record: given.sources.record.clone().into(),
        tree: Arc::clone(&given.sources.tree),
        keys: given.sources.keys.clone(),
        auth: auth.clone(),
    };
    let app = routes(options).split_for_parts().0;
    let token = |role| auth.issue_for(ANNA, UserType::Support, Some(role), minute);
    let get = async |query: &str, role| {
        let request = Request::get(format!("/audit/export{query}"))
            .header("authorization", format!("Bearer {}", token(role)))
            .body(Body::empty())
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, headers, body)
    };
    let (keeping, stop) = given.notary();
    let (status, headers, archive) = get(&format!("?room={}", room()), Role::Auditor).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/x-tar");
    let name = format!("attachment; filename=\"hansard-export-{}.tar\"", room());
    assert_eq!(headers["content-disposition"], name);
    let report = given.verified(&archive);
    assert!(report.fits(), "{report}");
    let manifest = Forged::from(&archive).json("manifest.json");
    assert_eq!(manifest["exportedBy"]["user"], ANNA.to_string());
    stop.cancel();
    keeping.await.unwrap();

    let (status, _, _) = get(&format!("?room={}", room()), Role::Support).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let nowhere = RoomId::derive(RoomType::ConsumerToConsumer, &[ANNA], 0);
    let (status, _, _) = get(&format!("?room={nowhere}"), Role::Admin).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for (query, name, text) in [
        ("", "room", "which room is to be exported?"),
        (
            "?room=x",
            "room",
            "not a room id: expected 32 lower-case hex digits",
        ),
        (
            "?user=x",
            "user",
            "unknown parameter; there are room, from and to",
        ),
        (
            &format!("?room={}&from=3&to=2", room()),
            "to",
            "the range from",
        ),
    ] {
        let (status, _, body) = get(query, Role::Auditor).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        let told = body["errors"][name].as_str().unwrap();
        assert!(told.starts_with(text), "{told}");
    }
}

/// Makes the genuine export that `fuzz` forges, with its tree head and a proof; to be run again when exports
/// are written in another way: `cargo test -p audit --test export -- --ignored`.
#[tokio::test]
#[ignore = "writes files of the project"]
async fn the_genuine_export_that_is_forged() {
    let given = Given::talked().await;
    let archive = given.exported(None, None).await;
    let files = Forged::from(&archive);
    let event: Value = serde_json::from_str(&line(&files, 8)).unwrap();
    let bytes = STANDARD.decode(event["bytes"].as_str().unwrap()).unwrap();
    let proofs = files.json("proofs.json");
    let mut paths = proofs["proofs"].as_array().unwrap().iter();
    let path = paths.find(|path| path["position"] == event["position"]);
    let hashes = path.unwrap()["hashes"].as_array().unwrap().iter();
    let hashes = hashes.map(|index| {
        let hash = &proofs["hashes"][index.as_u64().unwrap() as usize];
        hash.as_str().unwrap().parse().unwrap()
    });
    let head = TreeHead::parse(files.text("checkpoint")).unwrap();
    let leaf = leaf_data(Position::new(8), &bytes);
    let proof = InclusionProof::new(Position::new(8), &leaf, hashes.collect(), &head);
    proof.verify(&[given.key.public().clone()]).unwrap();

    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/genuine");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("export.tar"), &archive).unwrap();
    std::fs::write(directory.join("checkpoint"), files.file("checkpoint")).unwrap();
    let proof = serde_json::to_string_pretty(&proof).unwrap();
    std::fs::write(directory.join("proof.json"), proof + "\n").unwrap();
}
