//! JavaScript clients: scripts of `tests/js`, run by Node.js.
//!
//! A script and its test talk by lines, each a JSON object: what the script says goes to its standard
//! output, what it is told comes from its standard input. `tests/js/harness.mjs` is the other end.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use xtask::servers::for_tests;

use crate::edge::project_file;
use crate::transcript::{SAID, Transcript};
use crate::wait::within;

/// A running script. It is killed on drop; when a test fails, all that it said is printed.
#[derive(Debug)]
pub struct NodeScript {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    said: Transcript,
    /// What came on standard error, and what should have been JSON.
    complaints: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl NodeScript {
    /// Starts `tests/js/NAME` with these arguments. `None`, and a line that says so, where only the
    /// embedded stack is tested.
    ///
    /// # Panics
    /// Nothing says where Node.js is, or it can't be started.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Option<Self> {
        let node = for_tests("HANSARD_TEST_NODE")?;
        // Read by the script itself.
        for_tests("HANSARD_TEST_JS")?;
        let mut child = Command::new(node)
            .arg(project_file("tests/js").join(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (said, complaints) = (Transcript::default(), Arc::<Mutex<String>>::default());
        let (heard, odd) = (said.clone(), Arc::clone(&complaints));
        let reader = read(
            child.stdout.take().unwrap(),
            move |line| match serde_json::from_str(&line) {
                Ok(value) => heard.add(value),
                Err(_) => complain(&odd, &format!("a line that is no JSON: {line}")),
            },
        );
        let wrong = Arc::clone(&complaints);
        read(child.stderr.take().unwrap(), move |line| {
            complain(&wrong, &line);
        });
        Some(Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            said,
            complaints,
            reader,
        })
    }

    /// Tells the script something.
    ///
    /// # Panics
    /// It has ended.
    pub async fn tell(&mut self, order: &Value) {
        let input = self.input.as_mut().expect("it was not told to end");
        let line = format!("{order}\n");
        let told = input.write_all(line.as_bytes()).await;
        told.unwrap_or_else(|error| panic!("{} listens no more: {error}", self.name));
    }

    /// The next thing the script says that matches; what it says before that is passed over.
    ///
    /// # Panics
    /// It doesn't come in time, or the script ends; the text says that `what` was waited for.
    pub async fn says(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{}: {what}", self.name);
        let ended = || self.reader.is_finished();
        self.said.next(&what, ended, matches).await
    }

    /// All that the script has said so far.
    #[must_use]
    pub fn said(&self) -> Vec<Value> {
        self.said.all()
    }

    /// All that the script has said so far, but for its first so many lines.
    ///
    /// # Panics
    /// It has said less.
    #[must_use]
    pub fn said_after(&self, lines: usize) -> Vec<Value> {
        self.said.all().split_off(lines)
    }

    /// Closes the script's input and waits until it has ended.
    ///
    /// # Panics
    /// It doesn't end in time.
    pub async fn end(&mut self) -> ExitStatus {
        self.input = None;
        let what = format!("the end of {}", self.name);
        within(&what, SAID, self.child.wait()).await.unwrap()
    }
}

impl Drop for NodeScript {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- {} ---", self.name);
            for value in self.said() {
                println!("{value}");
            }
            let complaints = self.complaints.lock();
            println!("{}", complaints.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn read(
    stream: impl AsyncRead + Send + Unpin + 'static,
    handle: impl Fn(String) + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut stream = BufReader::new(stream).lines();
        while let Ok(Some(line)) = stream.next_line().await {
            handle(line);
        }
    })
}

fn complain(complaints: &Mutex<String>, line: &str) {
    let mut complaints = complaints.lock().unwrap_or_else(PoisonError::into_inner);
    complaints.push_str(line);
    complaints.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_script_and_its_test_talk() {
        let Some(mut script) = NodeScript::start("echo.mjs", &["one", "two words"]) else {
            return;
        };
        let started = script.says("its start", |it| it["args"].is_array()).await;
        assert_eq!(started["args"], json!(["one", "two words"]));
        assert_eq!(started["usable"], true, "{started}");
        let majors: Vec<&str> = started["versions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|version| version.as_str().unwrap().split('.').next().unwrap())
            .collect();
        assert_eq!(majors, ["2", "3", "4"]);

        for number in 1..=3 {
            script.tell(&json!({"number": number})).await;
        }
        let third = script.says("three", |it| it["told"]["number"] == 3).await;
        assert_eq!(third, json!({"told": {"number": 3}}));
        assert_eq!(script.said().len(), 4);
        assert!(script.end().await.success());
    }

    #[tokio::test]
    #[should_panic(expected = "echo.mjs: what never comes: the script has ended")]
    async fn a_script_that_fails_is_not_waited_for() {
        let Some(mut script) = NodeScript::start("echo.mjs", &[]) else {
            panic!("echo.mjs: what never comes: the script has ended (left out)");
        };
        script.tell(&json!({"fail": "on purpose"})).await;
        script.says("what never comes", |_| false).await;
    }
}
