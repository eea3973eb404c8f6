//! Legal exports: `audit::verify_export`. The first byte says what the rest is: 0, an archive; else, what is to
//! stand in the place of one file of the genuine archive, in an archive whose packing and manifest fit.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::LazyLock;

use audit::verify_export;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::targets::proof::KEY;
use crate::{Outcome, choice, refused};

/// An export that Hansard made, signed with [`KEY`].
const GENUINE: &[u8] = include_bytes!("../../genuine/export.tar");

const MANIFEST: &str = "manifest.json";

/// The files of the genuine archive, in their order.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let mut archive = Archive::new(GENUINE);
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    files.collect()
});

pub fn run(data: &[u8]) -> Outcome {
    let (choice, rest) = choice(data);
    let archive = match usize::from(choice) % (FILES.len() + 1) {
        0 => rest.to_vec(),
        number => forged(number - 1, rest),
    };
    // Without a key, the one in the archive is believed.
    for keys in [&[][..], std::slice::from_ref(&*KEY)] {
        match verify_export(&archive, keys) {
            Ok(report) => {
                assert!(!report.to_string().is_empty());
                assert!(report.proven <= report.events);
                if report.fits() && !keys.is_empty() {
                    assert!(archive == GENUINE, "a forged archive passes: {report}");
                    return Outcome::Accepted;
                }
            }
            Err(error) => {
                refused(&error);
            }
        }
    }
    Outcome::Refused
}

/// The genuine archive with other bytes in one of its files, and a manifest that says so as far as it can.
fn forged(number: usize, bytes: &[u8]) -> Vec<u8> {
    let mut files = FILES.clone();
    files[number].1 = bytes.to_vec();
    let hashes: BTreeMap<String, String> = files
        .iter()
        .filter(|(name, _)| name != MANIFEST)
        .map(|(name, bytes)| (name.clone(), hexadecimal(bytes)))
        .collect();
    if files[number].0 != MANIFEST {
        let (_, manifest) = files.iter_mut().find(|(name, _)| name == MANIFEST).unwrap();
        let genuine: Value = serde_json::from_slice(manifest).unwrap();
        let old = serde_json::to_string_pretty(&genuine["files"]).unwrap();
        let new = serde_json::to_string_pretty(&json!(hashes)).unwrap();
        // Indented as a part of the whole.
        let [old, new] = [old, new].map(|text| text.replace('\n', "\n  "));
        let text = String::from_utf8(manifest.clone()).unwrap();
        assert!(
            text.contains(&old),
            "the manifest is written in another way"
        );
        *manifest = text.replace(&old, &new).into_bytes();
    }
    let mut genuine = Archive::new(GENUINE);
    let first = genuine.entries().unwrap().next().unwrap().unwrap();
    let time = first.header().mtime().unwrap();
    let mut archive = Builder::new(Vec::new());
    for (name, bytes) in &files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(time);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
