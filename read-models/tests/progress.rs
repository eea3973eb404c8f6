//! Waiting for the projection, with a projector in another process and in the same one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_log::Incarnation;
use events::Position;
use read_models::{Batch, Checkpoint, Fence, Progress, Projection, SqliteReadModels};
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

async fn open(directory: &Path) -> Arc<dyn Projection> {
    let path = directory.join("read.db");
    Arc::new(SqliteReadModels::open(&path).await.unwrap())
}

fn batch(up_to: u64) -> Batch {
    Batch {
        incarnation: Incarnation("the log".to_owned()),
        entries: Vec::new(),
        up_to: Position::new(up_to),
        fence: Fence::default(),
    }
}

/// Looks every few milliseconds, for ten seconds at most.
async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn waiting_ends_when_another_process_has_projected() {
    let directory = tempfile::tempdir().unwrap();
    let projector = open(directory.path()).await;
    let progress = Progress::start(open(directory.path()).await, CancellationToken::new());
    // A projector that starts at the same time may be about to write its first checkpoint.
    assert!(!progress.projector_is_down());
    until(|| progress.projector_is_down()).await;
    assert_eq!(progress.checkpoint(), None);

    projector.apply(&batch(0)).await.unwrap();
    until(|| !progress.projector_is_down()).await;

    let waiting = tokio::spawn({
        let progress = progress.clone();
        async move {
            progress
                .wait_for(Position::new(7), Duration::from_secs(10))
                .await
        }
    });
    projector.apply(&batch(6)).await.unwrap();
    assert!(
        progress
            .wait_for(Position::new(6), Duration::from_secs(10))
            .await
    );
    assert!(!waiting.is_finished());
    let before = Instant::now();
    projector.apply(&batch(8)).await.unwrap();
    assert!(waiting.await.unwrap());
    // Well below the pace at which it looks while nobody waits.
    assert!(
        before.elapsed() < Duration::from_millis(500),
        "{:?}",
        before.elapsed()
    );
    assert!(
        !progress
            .wait_for(Position::new(9), Duration::from_millis(20))
            .await
    );
}

#[tokio::test]
async fn a_projector_in_the_same_process_tells_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let progress = Progress::start(open(directory.path()).await, shutdown.clone());
    shutdown.cancel();
    let told = Checkpoint {
        position: Position::new(5),
        incarnation: Incarnation("the log".to_owned()),
        heartbeat: 1,
        lag: Duration::ZERO,
    };
    progress.advance(&told);
    assert!(progress.wait_for(Position::new(5), Duration::ZERO).await);
    assert!(!progress.projector_is_down());
    assert_eq!(progress.checkpoint(), Some(told.clone()));
    // Nothing takes it back.
    progress.advance(&Checkpoint {
        position: Position::new(4),
        heartbeat: 2,
        ..told
    });
    assert!(progress.wait_for(Position::new(5), Duration::ZERO).await);
}

#[tokio::test]
async fn each_is_told_when_its_own_position_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let progress = Progress::start(open(directory.path()).await, shutdown.clone());
    shutdown.cancel();
    let (told, mut positions) = tokio::sync::mpsc::unbounded_channel();
    // In no order, two for each.
    for number in (0..200).map(|number| number * 77 % 200) {
        let (progress, told) = (progress.clone(), told.clone());
        let position = number / 2 + 1;
        tokio::spawn(async move {
            let waiting = progress.wait_for(Position::new(position), Duration::from_secs(10));
            assert!(waiting.await);
            told.send(position).unwrap();
        });
    }
    // One gives up.
    let given_up = progress.wait_for(Position::new(1), Duration::from_millis(20));
    assert!(!given_up.await);
    for reached in [50, 100] {
        progress.advance(&Checkpoint {
            position: Position::new(reached),
            incarnation: Incarnation("the log".to_owned()),
            heartbeat: reached,
            lag: Duration::ZERO,
        });
        let mut seen = Vec::new();
        for _ in 0..100 {
            seen.push(positions.recv().await.unwrap());
        }
        seen.sort_unstable();
        let expected = reached - 49..=reached;
        assert_eq!(seen, expected.flat_map(|it| [it, it]).collect::<Vec<_>>());
        assert!(positions.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_stands_still_means_that_the_projector_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let read_models = open(directory.path()).await;
    read_models.apply(&batch(1)).await.unwrap();
    let progress = Progress::start(read_models.clone(), CancellationToken::new());
    assert!(
        progress
            .wait_for(Position::new(1), Duration::from_secs(10))
            .await
    );
    let lag = Duration::from_secs(7);
    for _ in 0..5 {
        let beating = read_models.heartbeat(Fence::default(), Some(lag));
        beating.await.unwrap();
        let beat = read_models.checkpoint().await.unwrap();
        until(|| progress.checkpoint() == beat).await;
        assert!(!progress.projector_is_down());
        assert_eq!(progress.lag(), lag);
        advance(Duration::from_millis(900)).await;
    }
    advance(Duration::from_secs(4)).await;
    assert!(progress.projector_is_down());
    // What nobody tells any more gets older by itself.
    assert!(progress.lag() >= lag + Duration::from_secs(4));
}
