//! The harness of the black-box suites: the one place that starts Hansard, as one process or as four, on
//! either stack, and talks to it the way clients do.
//!
//! A suite is a set of scenarios, each an `async fn(Stack)`, that [`on_every_stack!`] turns into one test
//! for each combination of [`Backend`] and [`Layout`]:
//!
//! ```no_run
//! use hansard_tests::{Stack, on_every_stack};
//!
//! async fn a_new_user_can_be_read(stack: Stack) {
//!     let ada = stack.person("Ada").await;
//!     ada.client.user(&ada.id).await.ok();
//! }
//!
//! on_every_stack!(Auth::Open; a_new_user_can_be_read);
//! # fn main() {}
//! ```
//!
//! `cargo xtask test` provides the binaries and servers. For tests only: what goes wrong here panics and
//! says what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browser;
mod burst;
mod client;
mod edge;
mod files;
mod follower;
mod network;
mod node;
mod record;
mod schemathesis;
mod shape;
mod socket;
mod stack;
mod telling;
mod transcript;
mod verified;
mod wait;

pub use browser::Browser;
pub use burst::{Listener, Said, Writer, assert_kept, read_all, until_acknowledged};
pub use client::{Answer, TestClient};
pub use files::no_file_has;
pub use follower::{Cursor, Follower, Following, Last, Plan, Tally, Waits};
pub use network::{Network, Trouble};
pub use node::NodeScript;
pub use record::Auditor;
pub use schemathesis::Schemathesis;
pub use shape::Shapes;
pub use socket::WsClient;
pub use stack::{
    Auth, Backend, Layout, Member, Options, PROGRAMS, Person, Service, Stack, Through,
    hansard_command, network, room_of, service_command,
};
pub use telling::{Lines, Told};
pub use wait::{eventually, within};

use std::future::Future;
use std::sync::mpsc;

use xtask::servers::EMBEDDED_ONLY_VARIABLE;

/// Runs a scenario on a new stack, and then verifies the read models against the log, unless the scenario
/// said [`Stack::leave_unverified`]. Prints why and returns where that combination is left out
/// (`HANSARD_TEST_EMBEDDED_ONLY=1`).
///
/// # Panics
/// The scenario fails, the stack doesn't start, or the read models are not what the log gives.
pub fn run<F>(backend: Backend, layout: Layout, auth: Auth, scenario: impl FnOnce(Stack) -> F)
where
    F: Future<Output = ()>,
{
    run_with(Options::new(backend, layout, auth), scenario);
}

/// As [`run`], with these options.
///
/// # Panics
/// As [`run`].
pub fn run_with<F>(options: Options, scenario: impl FnOnce(Stack) -> F)
where
    F: Future<Output = ()>,
{
    run_prepared(options, async |mut stack: Stack| {
        stack.start_all().await;
        scenario(stack).await;
    });
}

/// As [`run_with`], on a stack of which nothing has been started.
///
/// # Panics
/// As [`run`].
pub fn run_prepared<F>(options: Options, scenario: impl FnOnce(Stack) -> F)
where
    F: Future<Output = ()>,
{
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(with_stack(options, scenario));
}

/// As [`run_prepared`], from inside a runtime.
///
/// # Panics
/// As [`run`].
pub async fn with_stack<F>(options: Options, scenario: impl FnOnce(Stack) -> F)
where
    F: Future<Output = ()>,
{
    if let Some(reason) = left_out(options.backend, options.layout) {
        println!("skipped: {reason}");
        return;
    }
    let (heir, inherited) = mpsc::channel();
    scenario(Stack::prepare(options, heir)).await;
    let stack = inherited.try_recv();
    verified::verified(stack.expect("the scenario drops its stack in the end")).await;
}

/// Why this combination is not tested now; `None` when it is.
#[must_use]
pub fn left_out(backend: Backend, layout: Layout) -> Option<String> {
    if std::env::var_os(EMBEDDED_ONLY_VARIABLE).is_none_or(|value| value != "1") {
        return None;
    }
    match (backend, layout) {
        (Backend::Distributed | Backend::Cluster, _) => {
            Some(format!("{EMBEDDED_ONLY_VARIABLE} is set"))
        }
        (Backend::Embedded, Layout::OneProcess) => None,
        (Backend::Embedded, Layout::FourProcesses) => edge::nginx().err(),
    }
}

/// Makes tests of scenarios (`async fn(Stack)`): one for each backend and layout, in modules named after
/// them. At most once in a module.
#[macro_export]
macro_rules! on_every_stack {
    ($auth:expr; $($scenario:ident),+ $(,)?) => {
        $crate::on_every_stack! { @stack embedded_one_process Embedded OneProcess $auth; $($scenario),+ }
        $crate::on_every_stack! { @stack embedded_four_processes Embedded FourProcesses $auth; $($scenario),+ }
        $crate::on_every_stack! { @stack distributed_one_process Distributed OneProcess $auth; $($scenario),+ }
        $crate::on_every_stack! { @stack distributed_four_processes Distributed FourProcesses $auth; $($scenario),+ }
    };
    (@stack $module:ident $backend:ident $layout:ident $auth:expr; $($scenario:ident),+) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    #[allow(unused_imports)]
                    use $crate::Auth;
                    $crate::run(
                        $crate::Backend::$backend,
                        $crate::Layout::$layout,
                        $auth,
                        super::$scenario,
                    );
                }
            )+
        }
    };
}
