//! Web pages: scripts of `tests/js`, run by a real browser on a page of their own.
//!
//! The page comes from a port of its own, so to Hansard it is a page of another origin, as those of
//! most products are. What its script says comes by `POST /report`; what it is told waits at `/orders/N`.
//! `tests/js/page.html` and `page.mjs` are the other end.

use std::path::Path as FilePath;
use std::process::Command;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xtask::process::Supervised;
use xtask::servers::for_tests;

use crate::edge::project_file;
use crate::transcript::Transcript;

/// Where scripts come from: the first part of their paths, and the folder.
const FOLDERS: [(&str, &str); 2] = [("js", "tests/js"), ("examples", "docs/examples")];
/// Chromium without a screen, that keeps to itself: it looks for nothing but the page and what that asks
/// for on this machine. Sandboxes don't work for root or in containers.
const FLAGS: [&str; 16] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-pings",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// A page and the browser that shows it. Both are gone on drop; when a test fails, all that the page said
/// and the browser wrote is printed.
#[derive(Debug)]
pub struct Browser {
    program: std::path::PathBuf,
    origin: String,
    page: Arc<Page>,
    server: JoinHandle<()>,
    // Before the directory that its profile is in.
    running: Option<Supervised>,
    directory: TempDir,
}

#[derive(Debug, Default)]
struct Page {
    said: Transcript,
    orders: watch::Sender<Vec<Value>>,
    html: watch::Sender<String>,
}

impl Browser {
    /// Serves a page on a new origin; nothing shows it yet. `None`, and a line that says so, where only
    /// the embedded stack is tested.
    ///
    /// # Panics
    /// Nothing says where Chromium is.
    pub async fn prepare() -> Option<Self> {
        let program = for_tests("HANSARD_TEST_CHROMIUM")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let page = Arc::<Page>::default();
        let routes = Router::new()
            .route("/", get(html))
            .route("/{folder}/{file}", get(script))
            .route("/orders/{number}", get(order))
            .route("/report", post(report))
            .with_state(Arc::clone(&page));
        let server = tokio::spawn(async move {
            axum::serve(listener, routes).await.unwrap();
        });
        Some(Self {
            program,
            origin,
            page,
            server,
            running: None,
            directory: tempfile::tempdir().unwrap(),
        })
    }

    /// The page's origin, as the browser names it to Hansard.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Starts the browser on a page that runs `tests/js/SCRIPT` with these settings.
    ///
    /// # Panics
    /// It can't be started.
    pub fn open(&mut self, script: &str, settings: &Value) {
        // JSON in a script element ends at nothing but `</script`.
        let settings = settings.to_string().replace('<', "\\u003c");
        let template = std::fs::read_to_string(project_file("tests/js/page.html")).unwrap();
        let html = template
            .replace("SCRIPT", script)
            .replace("SETTINGS", &settings);
        self.page.html.send_replace(html);
        let mut command = Command::new(&self.program);
        let profile = self.directory.path().join("profile");
        command
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("{}/", self.origin))
            // Settings and caches of whoever runs the tests stay as they are.
            .env("HOME", self.directory.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("DBUS_SESSION_BUS_ADDRESS");
        let output = self.directory.path().join("log");
        self.running = Some(Supervised::start(command, &output).unwrap());
    }

    /// Tells the page's script something.
    pub fn tell(&self, order: Value) {
        self.page.orders.send_modify(|orders| orders.push(order));
    }

    /// The next thing the page says that matches; what it says before that is passed over.
    ///
    /// # Panics
    /// It doesn't come in time, the browser ends, or the script fails; the text says that `what` was
    /// waited for.
    pub async fn says(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let running = self.running.as_mut().expect("a page was opened");
        let what = format!("the page: {what}");
        let ended = || running.ended().is_some();
        let failed = |it: &Value| it.get("failed").is_some();
        let said = self
            .page
            .said
            .next(&what, ended, |it| failed(it) || matches(it))
            .await;
        assert!(!failed(&said), "{what}: {said}");
        said
    }

    /// All that the page has said so far.
    #[must_use]
    pub fn said(&self) -> Vec<Value> {
        self.page.said.all()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.server.abort();
        if std::thread::panicking() {
            println!("--- the page at {} ---", self.origin);
            for value in self.said() {
                println!("{value}");
            }
            if let Some(running) = &self.running {
                println!("--- the browser ---\n{}", running.output());
            }
        }
    }
}

async fn html(State(page): State<Arc<Page>>) -> Html<String> {
    Html(page.html.borrow().clone())
}

async fn script(Path((folder, file)): Path<(String, String)>) -> Response {
    let found = FOLDERS.iter().find(|(name, _)| *name == folder);
    // A name, and not a way to another folder.
    let name = FilePath::new(&file).file_name();
    let text = match (found, name) {
        (Some((_, folder)), Some(name)) if name == file.as_str() => {
            std::fs::read_to_string(project_file(folder).join(name)).ok()
        }
        _ => None,
    };
    match text {
        Some(text) => ([(header::CONTENT_TYPE, "text/javascript")], text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Answers once there is such an order.
async fn order(State(page): State<Arc<Page>>, Path(number): Path<usize>) -> Response {
    let mut orders = page.orders.subscribe();
    match orders.wait_for(|orders| orders.len() > number).await {
        Ok(orders) => Json(orders[number].clone()).into_response(),
        Err(_) => StatusCode::GONE.into_response(),
    }
}

async fn report(State(page): State<Arc<Page>>, Json(said): Json<Value>) {
    page.said.add(said);
}
