//! The projector between a log and read models: what it writes, what it survives, and what stops it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use event_log::{EventLog, Incarnation, Position};
use events::Subject;
use projector::{Lag, Stage};
use read_models::{Batch, Fence, Progress, Projection, ReadModels};
use tempfile::{TempDir, tempdir};

use support::*;

const MAX_LAG: Duration = Duration::from_secs(10);

async fn setting() -> (TempDir, std::sync::Arc<Log>, std::sync::Arc<Models>) {
    let directory = tempdir().unwrap();
    let log = Log::open(&directory).await;
    let models = Models::open(&directory).await;
    (directory, log, models)
}

#[tokio::test]
async fn a_history_is_projected_and_so_is_what_comes_after_it() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    log.posts(2_500).await;
    let projector = Projector::start(&log, &models);
    models.reach(2_503).await;
    assert_eq!(models.inner.users().await.unwrap().len(), 2);
    let applied = models.applied.lock().unwrap().clone();
    assert_eq!(applied, (1..=2_503).collect::<Vec<_>>());

    log.post("live").await;
    models.reach(2_504).await;
    assert_eq!(models.texts().await.last().unwrap(), "live");
    assert_eq!(projector.status.check(MAX_LAG), Ok(()));
    projector.stop().await;
}

#[tokio::test]
async fn an_empty_log_has_a_projection_too() {
    let (_directory, log, models) = setting().await;
    let projector = Projector::start(&log, &models);
    // Those who wait for the first event must know that somebody projects it.
    models.reach(0).await;
    let heartbeat = |checkpoint: Option<read_models::Checkpoint>| checkpoint.unwrap().heartbeat;
    let first = heartbeat(models.inner.checkpoint().await.unwrap());
    eventually("the heartbeat moves", || async {
        heartbeat(models.inner.checkpoint().await.unwrap()) > first
    })
    .await;
    projector.stop().await;
}

#[tokio::test]
async fn events_that_cant_be_used_are_set_aside_and_stop_nothing() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    log.post("before").await;
    let timeline = Subject::RoomTimeline(room());
    log.bytes(timeline, b"\xff no event".to_vec()).await;
    log.post("between").await;
    // An event that stands in a history that is not its own.
    let foreign = log.sealed(posted("forged")).await.payload.to_vec();
    log.bytes(Subject::User(ANNA), foreign.clone()).await;
    log.post("after").await;
    let projector = Projector::start(&log, &models);
    models.reach(8).await;

    assert_eq!(models.texts().await, ["before", "between", "after"]);
    assert_eq!(models.inner.dead_letter_count().await.unwrap(), 2);
    {
        let letters = models.letters.lock().unwrap();
        assert_eq!(letters[0].position, Position::new(5));
        assert_eq!(letters[0].payload, b"\xff no event");
        assert_eq!(letters[0].subject, timeline.to_string());
        assert!(letters[0].reason.starts_with("not an event envelope"));
        assert_eq!(letters[1].position, Position::new(7));
        assert_eq!(letters[1].payload, foreign);
        assert!(letters[1].reason.contains("stands in chat.user."));
    }

    // Also as the log's last event, and alone.
    log.bytes(timeline, "{}").await;
    models.reach(9).await;
    assert_eq!(models.inner.dead_letter_count().await.unwrap(), 3);
    projector.stop().await;
}

#[tokio::test]
async fn a_refused_event_is_found_and_set_aside_alone() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    for number in 0..20 {
        let text = match number {
            4 | 13 | 19 => "distasteful".to_owned(),
            _ => format!("number {number}"),
        };
        log.post(&text).await;
    }
    *models.refused_text.lock().unwrap() = Some("distasteful".to_owned());
    let projector = Projector::start(&log, &models);
    models.reach(23).await;

    assert_eq!(models.texts().await.len(), 17);
    let letters = models.letters.lock().unwrap().clone();
    let positions: Vec<_> = letters.iter().map(|it| it.position.get()).collect();
    assert_eq!(positions, [8, 17, 23]);
    let recorded = log.inner.get(Position::new(8)).await.unwrap().unwrap();
    assert_eq!(letters[0].payload, recorded.payload);
    assert_eq!(letters[0].reason, "its write was refused: not to my taste");

    // A letter that can't be kept whole is kept without its bytes.
    models.refuses_payloads.store(true, Ordering::SeqCst);
    log.post("distasteful").await;
    models.reach(24).await;
    let last = models.letters.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.position.get(), last.payload.len()), (24, 0));
    assert!(
        last.reason.contains("read them from the log"),
        "{}",
        last.reason
    );
    projector.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_from_the_checkpoint() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    log.post("one").await;
    let projector = Projector::start(&log, &models);
    models.reach(4).await;
    projector.stop().await;

    log.post("two").await;
    let projector = Projector::start(&log, &models);
    models.reach(5).await;
    projector.stop().await;
    assert_eq!(*models.applied.lock().unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(models.texts().await, ["one", "two"]);
}

#[tokio::test]
async fn an_outage_of_the_read_models_is_waited_out_and_is_no_fault_of_the_events() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    // Down at the start already.
    models.set_down(true);
    let projector = Projector::start(&log, &models);
    eventually("it is tried again", || async { models.failures() > 2 }).await;
    assert_eq!(
        projector.status.check(MAX_LAG),
        Err("the projection waits for the read models".to_owned())
    );
    models.set_down(false);
    models.reach(3).await;

    models.set_down(true);
    log.post("meanwhile").await;
    log.bytes(Subject::RoomTimeline(room()), "poison").await;
    let failures = models.failures();
    eventually("it is tried again", || async {
        models.failures() > failures + 5
    })
    .await;
    assert_eq!(models.position().await, Some(3));
    models.set_down(false);
    models.reach(5).await;
    assert_eq!(models.texts().await, ["meanwhile"]);
    assert_eq!(models.inner.dead_letter_count().await.unwrap(), 1);
    projector.stop().await;
}

#[tokio::test]
async fn the_lag_and_what_it_is_due_to_are_told_beside_the_checkpoint() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    let projector = Projector::start(&log, &models);
    models.reach(3).await;
    let told = || async {
        let checkpoint = models.inner.checkpoint().await.unwrap();
        checkpoint.unwrap().lag
    };
    eventually("the history is caught up with", || async {
        told().await.is_zero()
    })
    .await;
    let gate = models.gate.lock().await;
    log.post("held up").await;
    eventually("the lag is told", || async { !told().await.is_zero() }).await;
    // It may have been told before the event was read from the log.
    eventually("it is due to the writing", || async {
        let lag = projector.status.lag().unwrap();
        (lag.events, lag.cause) == (1, Some(Stage::Write))
    })
    .await;
    assert!(projector.status.check(Duration::ZERO).is_err());
    drop(gate);
    eventually("there is none any more", || async {
        told().await.is_zero()
    })
    .await;
    assert_eq!(projector.status.lag().unwrap(), Lag::default());
    assert_eq!(projector.status.check(Duration::ZERO), Ok(()));
    projector.stop().await;

    log.silent.store(true, Ordering::SeqCst);
    log.post("not heard of").await;
    let projector = Projector::start(&log, &models);
    eventually("the lag is told", || async { !told().await.is_zero() }).await;
    let lag = projector.status.lag().unwrap();
    assert_eq!((lag.events, lag.cause), (1, Some(Stage::Log)));
    projector.stop().await;
}

#[tokio::test]
async fn a_projector_tells_how_far_behind_it_begins_before_it_writes() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    let projector = Projector::start(&log, &models);
    models.reach(3).await;
    projector.stop().await;
    let before = models.inner.checkpoint().await.unwrap().unwrap();
    log.post("while nobody was there").await;
    let recorded = log.inner.get(Position::new(4)).await.unwrap().unwrap();
    eventually("the event has an age", || async {
        events::Timestamp::now() > recorded.stored_at
    })
    .await;
    let gate = models.gate.lock().await;
    let seen = models.at_gate.load(Ordering::SeqCst);
    let projector = Projector::start(&log, &models);
    eventually("the batch is at the gate", || async {
        models.at_gate.load(Ordering::SeqCst) > seen
    })
    .await;
    let begun = models.inner.checkpoint().await.unwrap().unwrap();
    assert!(begun.heartbeat > before.heartbeat);
    assert!(!begun.lag.is_zero());
    drop(gate);
    projector.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_log_is_waited_out() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    log.post("one").await;
    log.down.store(true, Ordering::SeqCst);
    let projector = Projector::start(&log, &models);
    eventually("it is tried again", || async {
        log.failures.load(Ordering::SeqCst) > 2
    })
    .await;
    // Back, but the connection breaks after two events.
    log.breaks_after.store(2, Ordering::SeqCst);
    log.down.store(false, Ordering::SeqCst);
    models.reach(4).await;
    assert_eq!(*models.applied.lock().unwrap(), [1, 2, 3, 4]);
    projector.stop().await;
}

#[tokio::test]
async fn another_log_stops_the_projector_with_what_to_do() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    models.inner.prepare().await.unwrap();
    let of_another_log = Batch {
        incarnation: Incarnation("another".to_owned()),
        entries: Vec::new(),
        up_to: Position::new(2),
        fence: Fence::default(),
    };
    models.inner.apply(&of_another_log).await.unwrap();
    let projector = Projector::start(&log, &models);
    let status = projector.status.clone();
    let error = projector.ended().await.unwrap_err().to_string();
    assert!(
        error.starts_with("the log is not the one that the read models were projected from: "),
        "{error}"
    );
    assert!(error.contains(
        "they come from log \"another\"; give the projector that log, or make the read models anew"
    ));
    assert!(
        status
            .check(MAX_LAG)
            .unwrap_err()
            .contains("has stopped: the log is not")
    );
    assert!(models.applied.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_log_that_lost_its_tail_stops_the_projector_with_what_to_do() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    models.inner.prepare().await.unwrap();
    let further_than_the_log = Batch {
        incarnation: log.tail().await.unwrap().incarnation,
        entries: Vec::new(),
        up_to: Position::new(10),
        fence: Fence::default(),
    };
    models.inner.apply(&further_than_the_log).await.unwrap();
    let error = Projector::start(&log, &models).ended().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the log ends at position 0000000000000003, before the read models' checkpoint at position \
         000000000000000a: it has lost its tail; restore the whole log, or make the read models \
         anew from what is left with `hansard rebuild`"
    );
}

#[tokio::test]
async fn a_stop_finishes_the_batch_in_hand() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    let projector = Projector::start(&log, &models);
    models.reach(3).await;
    let gate = models.gate.lock().await;
    let seen = models.at_gate.load(Ordering::SeqCst);
    log.post("in hand").await;
    eventually("the batch is being written", || async {
        models.at_gate.load(Ordering::SeqCst) > seen
    })
    .await;
    projector.shutdown.cancel();
    drop(gate);
    projector.ended().await.unwrap();
    assert_eq!(models.position().await, Some(4));
}

#[tokio::test]
async fn a_stop_in_the_one_process_projects_all_that_was_accepted() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    let projector = Projector::start_with(&log, &models, Duration::from_secs(20));
    models.reach(3).await;
    let gate = models.gate.lock().await;
    log.posts(1_500).await;
    projector.shutdown.cancel();
    drop(gate);
    projector.ended().await.unwrap();
    assert_eq!(models.position().await, Some(1_503));
}

#[tokio::test]
async fn a_stop_during_an_outage_does_not_wait_for_its_end() {
    let (_directory, log, models) = setting().await;
    log.a_room().await;
    let projector = Projector::start_with(&log, &models, Duration::from_millis(100));
    models.reach(3).await;
    models.set_down(true);
    log.post("for the next one").await;
    let failures = models.failures();
    eventually("the batch is being written", || async {
        models.failures() > failures + 1
    })
    .await;
    projector.stop().await;
    assert_eq!(models.position().await, Some(3));
}

#[tokio::test]
async fn those_who_wait_in_the_same_process_are_told_at_once() {
    let (_directory, log, models) = setting().await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let progress = Progress::start(models.clone(), shutdown.clone());
    let options = projector::Options {
        record: log.record(),
        catalogue: std::sync::Arc::new(Only(models.clone())),
        name: "the projector".to_owned(),
        only: None,
        retention: None,
        grace: projector::GRACE,
        progress: Some(progress.clone()),
        status: projector::Status::default(),
        drain: Duration::ZERO,
    };
    let running = tokio::spawn(projector::run(options, shutdown.clone()));
    log.a_room().await;
    assert!(
        progress
            .wait_for(Position::new(3), Duration::from_secs(30))
            .await
    );
    assert!(!progress.projector_is_down());
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
