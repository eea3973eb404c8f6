//! What processes hold on to: the same before the faults and after them, or it would grow for ever.

use std::collections::BTreeMap;

use hansard_tests::{Service, Stack};
use serde_json::Value;

/// How many more open files a process may have than before: pools fill with use. A process that leaks a file
/// or a connection for each command or fault has many more after a run.
const MORE_FILES: u64 = 80;

/// How many there are of each thing that can leak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings(BTreeMap<String, u64>);

impl Holdings {
    /// Counts.
    pub async fn count(stack: &mut Stack) -> Self {
        let mut counts = BTreeMap::new();
        for service in stack.services() {
            // nginx's connections are in its worker, and mongod keeps files for what it has cached.
            if service == Service::Edge || Service::MONGODS.contains(&service) {
                continue;
            }
            let Some(id) = stack.process_id(service) else {
                continue;
            };
            if let Ok(files) = std::fs::read_dir(format!("/proc/{id}/fd")) {
                let files = u64::try_from(files.count()).unwrap_or(u64::MAX);
                counts.insert(format!("open files of {service:?}"), files);
            }
        }
        if let Some(consumers) = consumers(stack).await {
            counts.insert(CONSUMERS.to_owned(), consumers);
        }
        Self(counts)
    }

    /// What there is too much of, compared with before.
    #[must_use]
    pub fn more_than(&self, before: &Self) -> Vec<String> {
        let more = self.0.iter().filter_map(|(name, now)| {
            let then = *before.0.get(name)?;
            let allowed = match name == CONSUMERS {
                true => then,
                false => then + MORE_FILES,
            };
            (*now > allowed).then(|| format!("{name}: {now}, and {then} before"))
        });
        more.collect()
    }
}

const CONSUMERS: &str = "consumers that wait for the stream";

/// How many consumers wait for what is appended, on all nats-servers; `None` where there is none, or one doesn't say.
/// Those whose process was killed wait for nothing, and the server forgets them by itself after a while.
async fn consumers(stack: &Stack) -> Option<u64> {
    let (_, monitors) = stack.log_url().split_once("monitor=")?;
    let client = reqwest::Client::builder().no_proxy().build().ok()?;
    let mut all = 0;
    for monitor in monitors.split(',') {
        let answer = client
            .get(format!("{monitor}/jsz?consumers=true"))
            .send()
            .await
            .ok()?;
        let status: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        let streams = status["account_details"].as_array()?.iter();
        let streams = streams.flat_map(|it| it["stream_detail"].as_array().into_iter().flatten());
        let consumers =
            streams.flat_map(|it| it["consumer_detail"].as_array().into_iter().flatten());
        let waiting =
            consumers.filter(|it| it["num_waiting"].as_u64() > Some(0) || it["push_bound"] == true);
        all += u64::try_from(waiting.count()).ok()?;
    }
    Some(all)
}
