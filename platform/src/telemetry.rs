//! Log lines and figures: the setup that every process shares.
//!
//! Log lines go to standard error; standard output is for what a command was asked to print. No token,
//! name or message text may appear in either.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Upper bounds of the buckets in which durations are counted, in seconds.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
    600.0,
];

/// Upper bounds of the buckets in which the sizes of projected batches are counted, in events.
const EVENTS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0];

/// How often histograms are folded together, so that they don't grow while nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// Sets up log lines, figures and the report of panics. Calling it again changes nothing.
pub fn init(config: &Config) {
    let filter = EnvFilter::builder().parse_lossy(&config.log_level);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails when it has been done before, which is fine.
    let _ = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        // Not the panic's message: it can quote what the code was working on, such as a text.
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a bug: the code panicked");
    }));
    figures();
}

/// The figures of this process, in the text format of Prometheus.
pub(crate) fn figures() -> &'static PrometheusHandle {
    static FIGURES: OnceLock<PrometheusHandle> = OnceLock::new();
    FIGURES.get_or_init(|| {
        let batches = Matcher::Full("hansard_projection_batch_events".to_owned());
        // Fails only without buckets; then histograms become summaries.
        let builder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(batches, &EVENTS))
            .unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("figures are recorded elsewhere: /metrics stays empty");
        }
        describe();
        handle
    })
}

/// Keeps the memory of the figures bounded, for ever.
pub(crate) async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        figures().run_upkeep();
    }
}

/// Says what the figures mean. They are recorded where the work is done.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "hansard_http_requests_total",
        "Answered requests by method, route and status"
    );
    describe_histogram!(
        "hansard_http_request_seconds",
        Unit::Seconds,
        "From a request's head to its answer's head"
    );
    describe_histogram!(
        "hansard_append_seconds",
        Unit::Seconds,
        "From handing an event to the log to its acknowledgement"
    );
    describe_gauge!(
        "hansard_projection_lag_events",
        "Events in the log that are not in the read models yet"
    );
    describe_gauge!(
        "hansard_projection_lag_seconds",
        Unit::Seconds,
        "Age of the oldest event that is not in the read models yet, with the stage it is at as the cause: \
         log (not read from there), decode, or write (its batch is being written)"
    );
    describe_counter!(
        "hansard_projection_events_total",
        "Events written to the read models"
    );
    describe_histogram!(
        "hansard_projection_batch_events",
        "Events written to the read models at once"
    );
    describe_histogram!(
        "hansard_projection_batch_seconds",
        Unit::Seconds,
        "What a batch took by stage: log (waiting for events that the log had), decode, write (to its \
         checkpoint)"
    );
    describe_histogram!(
        "hansard_projection_visible_seconds",
        Unit::Seconds,
        "From an event's append to the checkpoint with which queries see it"
    );
    describe_gauge!(
        "hansard_dead_letters",
        "Events set aside because they could not be projected"
    );
    describe_counter!(
        "hansard_retention_rooms_total",
        "How often texts of a room were let go for their age"
    );
    describe_counter!(
        "hansard_retention_keys_total",
        "Keys of rooms' months that were destroyed because all of their texts are past their age"
    );
    describe_gauge!(
        "hansard_retention_last_run_seconds",
        Unit::Seconds,
        "When the last round of retention ended that failed nowhere, in seconds since 1970"
    );
    describe_gauge!(
        "hansard_tree_size",
        "Events hashed into the Merkle tree over the log"
    );
    describe_gauge!(
        "hansard_tree_head_age_seconds",
        Unit::Seconds,
        "How old the newest signed tree head is while there are events that it does not cover"
    );
    describe_gauge!(
        "hansard_tree_tampering",
        "1 when the log or the stored tree is not what was signed"
    );
    describe_counter!(
        "hansard_tree_missing_total",
        "Positions that the log no longer had when they were to be hashed"
    );
    describe_counter!(
        "hansard_tree_failures_total",
        "Tree heads that did not get into the file or to the webhook"
    );
    describe_gauge!("hansard_sockets", "Open WebSockets");
    describe_counter!(
        "hansard_pushed_messages_total",
        "Frames pushed to WebSockets, once for each receiver"
    );
}
