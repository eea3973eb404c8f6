//! How the databases go about the reads that are measured.

use std::path::Path;

use anyhow::Context;
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use read_models::SqliteReadModels;
use serde::Serialize;

/// A statement of the SQLite read models with SQLite's plan for it.
#[derive(Debug, Serialize)]
pub struct Planned {
    /// The statement.
    pub statement: String,
    /// The plan's steps.
    pub steps: Vec<String>,
}

/// What MongoDB did for one operation of a request, by its profile.
#[derive(Debug, Serialize)]
pub struct Profiled {
    /// For which route.
    pub route: String,
    /// What kind of operation it was.
    pub operation: String,
    /// On which collection.
    pub collection: String,
    /// The plan.
    pub plan: String,
    /// Index keys that it looked at.
    pub keys_examined: i64,
    /// Documents that it looked at.
    pub documents_examined: i64,
    /// Documents that it returned.
    pub returned: i64,
    /// Whether it sorted in memory.
    pub sorted: bool,
}

/// The plan of every statement that answers a query.
///
/// # Errors
/// The file can't be read.
pub async fn of_sqlite(file: &Path) -> anyhow::Result<Vec<Planned>> {
    let read_models = SqliteReadModels::open(file).await?;
    let plans = read_models.query_plans().await?.into_iter();
    let plans = plans.map(|(statement, steps)| Planned {
        statement: statement.split_whitespace().collect::<Vec<_>>().join(" "),
        steps,
    });
    Ok(plans.collect())
}

/// A database whose operations can be looked at.
#[derive(Debug)]
pub struct Profile(mongodb::Database);

impl Profile {
    /// Of the database that `url` names.
    ///
    /// # Errors
    /// It names none.
    pub async fn of(url: &str) -> anyhow::Result<Self> {
        let client = mongodb::Client::with_uri_str(url).await?;
        let database = client.default_database();
        Ok(Self(database.context("the URL names no database")?))
    }

    /// What the server does for `request`, which asks for `route`.
    ///
    /// # Errors
    /// The request fails, or the server does not answer.
    pub async fn of_request<T>(
        &self,
        route: &str,
        request: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Vec<Profiled>> {
        let profile = self.0.collection::<Document>("system.profile");
        profile.drop().await?;
        self.0.run_command(doc! { "profile": 2 }).await?;
        request.await?;
        self.0.run_command(doc! { "profile": 0 }).await?;
        let of_request = doc! {
            // The projector looks at these all the time, whoever asks for what.
            "ns": { "$not": { "$regex": r"\.(catalogue|checkpoints|g1_deadLetters|system\.profile)$" } },
            // Counting and aggregating are commands with a plan; those without one are the driver's own.
            "$or": [{ "op": { "$ne": "command" } }, { "planSummary": { "$exists": true } }],
        };
        let entries: Vec<Document> = profile.find(of_request).await?.try_collect().await?;
        Ok(entries.iter().map(|entry| profiled(route, entry)).collect())
    }
}

fn profiled(route: &str, entry: &Document) -> Profiled {
    let text = |name| entry.get_str(name).unwrap_or_default();
    let number = |name| {
        let number = entry.get_i32(name).map(i64::from);
        number.or(entry.get_i64(name)).unwrap_or(0)
    };
    let command = entry.get_document("command").ok();
    let kind = command.and_then(|command| command.keys().next().cloned());
    Profiled {
        route: route.to_owned(),
        operation: kind.unwrap_or_else(|| text("op").to_owned()),
        collection: text("ns")
            .split_once('.')
            .map_or("", |(_, name)| name)
            .to_owned(),
        plan: text("planSummary").to_owned(),
        keys_examined: number("keysExamined"),
        documents_examined: number("docsExamined"),
        returned: number("nreturned"),
        sorted: entry.get_bool("hasSortStage").unwrap_or(false),
    }
}
