//! Very many sockets at once: all have to be served, and told the same.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use hansard_tests::{Person, Service, Stack, WsClient, room_of};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Error;

/// How long all may take to be subscribed, and to be told what is said.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many users have the sockets: a user may have a hundred.
const READERS: usize = 200;
/// Before a socket that was refused is tried again, unless the refusal says how long; up to twice that.
const PAUSE: Duration = Duration::from_millis(100);

/// Connects so many sockets at once; gives what was violated, and prints what was measured.
///
/// # Errors
/// The harness can't do its work.
pub(crate) async fn storm(stack: &Stack, count: usize) -> anyhow::Result<Vec<String>> {
    let author = stack.person("Author").await;
    let mut readers = Vec::with_capacity(READERS);
    for number in 0..READERS {
        let reader = stack.person(&format!("Reader {number}")).await;
        let room = room_of(&author, &[&reader]).await;
        readers.push((reader, room));
    }
    let begun = Instant::now();
    let connecting = (0..count).map(|number| {
        let (reader, _) = &readers[number % READERS];
        tokio::spawn(connected(
            stack.ws_url_of(Service::GatewayWs),
            reader.token.clone(),
        ))
    });
    let connected = timeout(PATIENCE, join_all(connecting)).await;
    let connected = connected
        .with_context(|| format!("{count} sockets are not subscribed within {PATIENCE:?}"))?;
    let took = begun.elapsed();
    let mut sockets = Vec::new();
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for one in connected {
        let (socket, its_refusals) = one?;
        sockets.push(socket);
        for refusal in its_refusals {
            *refusals.entry(refusal).or_default() += 1;
        }
    }

    let posted = Instant::now();
    let mut said = Vec::with_capacity(READERS);
    for (_, room) in &readers {
        said.push(say(&author, room).await);
    }
    let hearing = sockets.into_iter().enumerate().map(|(number, mut socket)| {
        let said = said[number % READERS].clone();
        tokio::spawn(async move {
            let heard = socket.next_of_type("new message").await;
            // The socket stays open until all have heard.
            (heard["message"]["postId"] == said, socket)
        })
    });
    let heard = timeout(PATIENCE, join_all(hearing)).await;
    let heard = heard.with_context(|| format!("not all were told within {PATIENCE:?}"))?;
    let told = posted.elapsed();
    let wrong = heard.iter().filter(|it| !matches!(it, Ok((true, _))));
    let wrong = wrong.count();
    let memory = stack.peak_memory(Service::GatewayWs).unwrap_or_default();
    println!(
        "{count} sockets at once: all subscribed after {} ms; all told of posts in {READERS} rooms within {} ms; \
         memory at most {} MB\n",
        took.as_millis(),
        told.as_millis(),
        memory / 1_000_000
    );
    for (refusal, times) in refusals {
        println!("- refused {times} times: {refusal}");
    }
    Ok(match wrong {
        0 => Vec::new(),
        wrong => vec![format!(
            "{wrong} of {count} sockets were not told what was said"
        )],
    })
}

/// Posts; gives the message's id.
async fn say(author: &Person, room: &str) -> Value {
    let said = author.client.post(room, "to everybody").await.ok();
    said["post"]["postId"].clone()
}

/// A connection with a personal subscription, and why it was refused before.
async fn connected(url: String, token: String) -> (WsClient, Vec<String>) {
    let mut refusals = Vec::new();
    loop {
        let refusal = match subscribed(&url, &token).await {
            Ok(socket) => return (socket, refusals),
            Err(refusal) => refusal,
        };
        // Not all at the same moment again.
        sleep(refusal.retry_after.mul_f64(rand::random_range(1.0..2.0))).await;
        refusals.push(refusal.reason);
    }
}

/// Why a connection has no subscription.
struct Refusal {
    reason: String,
    retry_after: Duration,
}

impl<E: std::fmt::Display> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self {
            reason: error.to_string(),
            retry_after: PAUSE,
        }
    }
}

/// A connection with a personal subscription, unless it was refused or broke.
async fn subscribed(url: &str, token: &str) -> Result<WsClient, Refusal> {
    let mut socket = match WsClient::try_connect(url, Some(token)).await {
        Ok(socket) => socket,
        Err(error) => {
            let mut refusal = Refusal::from(&error);
            if let Error::Http(answer) = error.as_ref()
                && let Some(seconds) = answer.headers().get("retry-after")
            {
                refusal.retry_after = Duration::from_secs(seconds.to_str()?.parse()?);
            }
            return Err(refusal);
        }
    };
    socket.try_send(json!({"type": "subscribe"})).await?;
    loop {
        let frame = socket.receive().await;
        let frame = frame.map_err(|code| format!("closed with {code:?}"))?;
        if frame["type"] == "subscribed" {
            return Ok(socket);
        }
    }
}
