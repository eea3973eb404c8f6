//! The README is true: its tour is run as it stands there, and what comes out is compared with what it
//! shows, but for ids and times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use hansard_tests::{Stack, on_every_stack};
use regex::Regex;

/// Printed between the outputs of two commands.
const MARK: &str = "@@ end of output @@";

/// One command of the tour and what the README shows of its output.
#[derive(Debug)]
struct Shown {
    command: String,
    output: String,
}

/// The commands in the README's `console` blocks, in order.
fn tour() -> Vec<Shown> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let mut commands: Vec<Shown> = Vec::new();
    let mut in_console = false;
    for line in readme.lines() {
        match line {
            "```console" => in_console = true,
            "```" => in_console = false,
            _ if !in_console => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => commands.push(Shown {
                    command: command.to_owned(),
                    output: String::new(),
                }),
                None => {
                    let shown = commands.last_mut().expect("output comes after a command");
                    shown.output.push_str(line);
                    shown.output.push('\n');
                }
            },
        }
    }
    assert!(commands.len() > 10, "the README's tour was not found");
    commands
}

/// What is comparable of an output: without what differs from run to run (random ids, ids made from them,
/// times), and without the order of a room's members, which is that of their random ids.
fn comparable(text: &str) -> Vec<String> {
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z").unwrap();
    let id = Regex::new(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    let text = time.replace_all(text.trim(), "<time>");
    let text = id.replace_all(&text, "<id>");
    let mut parts: Vec<String> = text.split(['{', '}']).map(str::to_owned).collect();
    parts.sort();
    parts
}

/// Sends back the position of the last command with each request, as clients do that must read what they wrote
/// however busy the machine is: an answer waits for its projection, but not for long.
const POSITIONS: &str = r#"
curl() {
  command curl --dump-header headers --header "Hansard-Position: $(cat position 2>/dev/null)" "$@"
  local status=$?
  sed -n 's/\r$//; s/^hansard-position: //Ip' headers > found && [ -s found ] && mv found position
  return $status
}
"#;

async fn the_readmes_tour_shows_what_happens(stack: Stack) {
    let tour = tour();
    let directory = tempfile::tempdir().unwrap();
    let mut script = POSITIONS.to_owned();
    for shown in &tour {
        let command = match shown.command.strip_prefix("HANSARD=") {
            Some(_) => format!("HANSARD={}", stack.base_url()),
            None => shown.command.clone(),
        };
        script.push_str(&format!("{command}\necho; echo '{MARK}'\n"));
    }
    let directory_path = directory.path().to_owned();
    let outputs = tokio::task::spawn_blocking(move || {
        let mut bash = Command::new("bash")
            .arg("--norc")
            .current_dir(directory_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = bash.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    })
    .await
    .unwrap();
    let outputs: Vec<&str> = outputs.split(&format!("{MARK}\n")).collect();
    assert_eq!(outputs.len(), tour.len() + 1, "{outputs:?}");
    for (shown, output) in tour.iter().zip(outputs) {
        assert_eq!(
            comparable(output),
            comparable(&shown.output),
            "the README's command `{}` prints something else",
            shown.command
        );
    }
}

on_every_stack!(Auth::Open; the_readmes_tour_shows_what_happens);
