//! What projected read models would cost if somebody had them ready: the same documents, inserted plainly
//! into an empty database on the same server.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::TryStreamExt;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::options::WriteConcern;
use read_models::{Catalogue, MongoCatalogue, SqliteReadModels, State, Words};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::build::BUILT;

/// How many documents or rows are inserted at once: as many as the events of a batch.
const AT_ONCE: usize = 1_000;

/// The collections of a generation of the MongoDB read models that projecting fills.
const COLLECTIONS: [&str; 5] = ["users", "rooms", "messages", "marks", "keys"];

/// The tables of the SQLite read models that projecting fills, but for the index of words: it keeps no
/// content that could be copied, and is filled with the messages.
const TABLES: [&str; 6] = [
    "users",
    "rooms",
    "room_members",
    "messages",
    "marks",
    "keys",
];

/// What makes a message found by its words.
const INDEX: &str = "INSERT INTO message_words (rowid, room, words) VALUES (?1, ?2, ?3)";

/// Inserts what the read models at `from` hold into the empty database at `to`, with the same indexes and the
/// same write concern, in batches without order; tells how long that took, not counting the reading.
///
/// # Errors
/// The server fails.
pub async fn into_mongodb(from: &str, to: &str) -> anyhow::Result<Duration> {
    let catalogue = MongoCatalogue::open(to).await?;
    catalogue.prepare().await?;
    let first = catalogue.add(0, State::Live).await?;
    let first = first.context("the database is not empty")?;
    catalogue.open(first.number).await?.prepare().await?;
    let database = |url: String| async move {
        let client = mongodb::Client::with_uri_str(&url).await?;
        client
            .default_database()
            .context("the URL names no database")
    };
    let (from, to) = (
        database(from.to_owned()).await?,
        database(to.to_owned()).await?,
    );
    let mut taken = Duration::ZERO;
    for name in COLLECTIONS {
        let collection = to.collection::<RawDocumentBuf>(&format!("g{}_{name}", first.number));
        let mut documents = from
            .collection::<RawDocumentBuf>(&format!("g{BUILT}_{name}"))
            .find(doc! {})
            .await?;
        loop {
            let mut batch = Vec::with_capacity(AT_ONCE);
            while batch.len() < AT_ONCE
                && let Some(document) = documents.try_next().await?
            {
                batch.push(document);
            }
            if batch.is_empty() {
                break;
            }
            let begun = Instant::now();
            collection
                .insert_many(batch)
                .ordered(false)
                .write_concern(WriteConcern::majority())
                .await?;
            taken += begun.elapsed();
        }
    }
    Ok(taken)
}

/// Inserts what the read models in the file `from` hold into a new file `to`, with the same indexes and the
/// same settings, one prepared statement for each table; tells how long that took, not counting the reading.
///
/// # Errors
/// A file can't be read or written.
pub async fn into_sqlite(from: &Path, to: &Path) -> anyhow::Result<Duration> {
    // Makes the tables.
    drop(SqliteReadModels::open(to).await?);
    let (from, to) = (from.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || {
        let from = Connection::open(from)?;
        let mut to = Connection::open(to)?;
        to.pragma_update(None, "synchronous", "NORMAL")?;
        let mut taken = Duration::ZERO;
        for table in TABLES {
            taken += copy(&from, &mut to, table)?;
        }
        Ok(taken)
    })
    .await?
}

fn copy(from: &Connection, to: &mut Connection, table: &str) -> anyhow::Result<Duration> {
    let mut select = from.prepare(&format!("SELECT * FROM {table}"))?;
    let columns = select.column_count();
    let places = vec!["?"; columns].join(", ");
    let insert = format!("INSERT INTO {table} VALUES ({places})");
    let mut rows = select.query([])?;
    let mut taken = Duration::ZERO;
    loop {
        let mut batch: Vec<Vec<Value>> = Vec::with_capacity(AT_ONCE);
        while batch.len() < AT_ONCE
            && let Some(row) = rows.next()?
        {
            let values = (0..columns).map(|column| row.get(column));
            batch.push(values.collect::<rusqlite::Result<_>>()?);
        }
        if batch.is_empty() {
            return Ok(taken);
        }
        let words: Vec<[Value; 3]> = match table {
            "messages" => batch.iter().filter_map(|row| indexed(row)).collect(),
            _ => Vec::new(),
        };
        let begun = Instant::now();
        let transaction = to.transaction()?;
        for row in batch {
            transaction
                .prepare_cached(&insert)?
                .execute(params_from_iter(row))?;
        }
        for row in words {
            transaction
                .prepare_cached(INDEX)?
                .execute(params_from_iter(row))?;
        }
        transaction.commit()?;
        taken += begun.elapsed();
    }
}

/// What is indexed of a row of `messages`: its id, its room, and the words of its text.
fn indexed(row: &[Value]) -> Option<[Value; 3]> {
    let [id, Value::Integer(room), _, Value::Text(text), ..] = row else {
        return None;
    };
    let words = Words::of(text);
    let words: Vec<&str> = words.iter().collect();
    Some([
        id.clone(),
        Value::Text(room.to_string()),
        Value::Text(words.join(" ")),
    ])
}
