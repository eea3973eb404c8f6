//! Very many sockets at once: all have to be served, and told the same.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use hansard_tests::{Person, Service, Stack, WsClient, room_of};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// How long all may take to be subscribed, and to be told what is said.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many users have the sockets: a user may have a hundred.
const READERS: usize = 200;
/// Before a socket that was refused is tried again.
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
    let before = stack.peak_memory(Service::GatewayWs).unwrap_or_default();
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
    let (mut sockets, mut tries) = (Vec::new(), 0);
    for one in connected {
        let (socket, its_tries) = one?;
        sockets.push(socket);
        tries += its_tries;
    }
    let memory = stack.peak_memory(Service::GatewayWs).unwrap_or_default();

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
    println!(
        "{count} sockets at once: all subscribed after {} ms, in {tries} tries; {} KB of memory each at most; \
         all told of posts in {READERS} rooms within {} ms\n",
        took.as_millis(),
        memory.saturating_sub(before) / 1_000 / count.max(1) as u64,
        told.as_millis()
    );
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

/// A connection with a personal subscription, and how many tries it took.
async fn connected(url: String, token: String) -> (WsClient, usize) {
    let mut tries = 1;
    loop {
        if let Some(socket) = subscribed(&url, &token).await {
            return (socket, tries);
        }
        tries += 1;
        sleep(PAUSE).await;
    }
}

/// A connection with a personal subscription; `None` when it was refused or broke.
async fn subscribed(url: &str, token: &str) -> Option<WsClient> {
    let mut socket = WsClient::try_connect(url, Some(token)).await.ok()?;
    socket.try_send(json!({"type": "subscribe"})).await.ok()?;
    loop {
        let frame = socket.receive().await.ok()?;
        if frame["type"] == "subscribed" {
            return Some(socket);
        }
    }
}
