//! What the binary does with its command line: wrong ones get one sentence and a non-zero exit.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes longer, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// The binary, in an empty environment and with `directory` as its working directory.
fn hansard(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hansard"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(mut command: Command) -> Output {
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    finished
        .recv_timeout(DEADLINE)
        .unwrap_or_else(|_| {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("still running after {DEADLINE:?}");
        })
        .unwrap()
}

fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("still running after {DEADLINE:?}");
        }
        std::thread::yield_now();
    }
}

/// The exit code, and the last line of standard error: what was logged on the way stands before it.
fn refusal(command: Command) -> (i32, String) {
    let output = output(command);
    let text = String::from_utf8(output.stderr).unwrap();
    let sentence = text.lines().last().unwrap_or_default().to_owned();
    (output.status.code().unwrap(), sentence)
}

/// A port on which nothing listens.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A serving process and the address it announced; killed when dropped.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line.strip_prefix("hansard listens on http://");
        let address = address.and_then(|rest| rest.split_once(' '));
        let address = address.expect("an announcement").0.to_owned();
        Self { child, address }
    }

    fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        wait(&mut self.child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_wrong_configuration_is_one_sentence_and_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hansard.toml");
    std::fs::write(&file, "lisen = '127.0.0.1:0'\n").unwrap();
    for (arguments, sentence) in [
        (
            &["--log", "postgres://db"][..],
            "hansard: --log: \"postgres://db\"",
        ),
        (
            &["--read-models", "mongodb://host"],
            "hansard: --read-models: \"mongodb://host\"",
        ),
        (
            &["serve", "--listen", "nowhere"],
            "hansard: --listen: \"nowhere\" is not an IP address with a port",
        ),
        (
            &["--config", "hansard.toml"],
            "hansard: unknown key lisen in hansard.toml; did you mean listen?",
        ),
        (
            &["--listen", "0.0.0.0:0"],
            "hansard: auth=open lets anybody act as anybody and is refused on 0.0.0.0:0",
        ),
        (
            &["--listen", "127.0.0.1:0", "--auth", "token"],
            "hansard: auth=token needs --jwt-secret-file",
        ),
        (
            &["--listen", "127.0.0.1:0", "--data-dir", "hansard.toml/data"],
            "hansard: can't create the data directory hansard.toml/data: ",
        ),
    ] {
        let (code, found) = refusal(hansard(directory.path(), arguments));
        assert!(found.starts_with(sentence), "{found}");
        assert_eq!(code, 2, "{found}");
    }
    let mut command = hansard(directory.path(), &[]);
    command.env("HANSARD_LISTN", "127.0.0.1:0");
    let (code, found) = refusal(command);
    assert_eq!(
        found,
        "hansard: unknown variable HANSARD_LISTN; did you mean HANSARD_LISTEN?"
    );
    assert_eq!(code, 2);
    let (code, _) = refusal(hansard(directory.path(), &["--no-such-flag"]));
    assert_eq!(code, 2);
}

#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, found) = refusal(hansard(directory.path(), &["--listen", &address]));
    let sentence = format!("hansard: can't listen on {address}: the port is in use");
    assert!(found.starts_with(&sentence), "{found}");
    assert_eq!(code, 1);
    // Nothing was created on the way.
    assert!(!directory.path().join("hansard-data").exists());
}

#[test]
fn an_unreachable_server_is_waited_for_and_then_named_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let nats = format!("nats://user:secret@127.0.0.1:{port}");
    let mongodb = format!("mongodb://127.0.0.1:{port}/hansard");
    for (setting, url, place) in [
        ("--log", &nats, format!("127.0.0.1:{port}")),
        ("--read-models", &mongodb, format!("127.0.0.1:{port}")),
    ] {
        let arguments = [
            "--listen",
            "127.0.0.1:0",
            "--startup-timeout-seconds",
            "1",
            setting,
            url,
        ];
        let output = output(hansard(directory.path(), &arguments));
        let text = String::from_utf8(output.stderr).unwrap();
        let found = text.lines().last().unwrap();
        assert!(found.starts_with("hansard: can't reach the "), "{found}");
        assert!(found.contains(&place), "{found}");
        assert!(text.contains("waiting for the "), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn it_serves_announces_its_address_and_stops_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = hansard(directory.path(), &["--listen", "127.0.0.1:0"]);
    command.env("PORT", "1");
    let mut serving = Serving::start(command);
    let address = serving.address.clone();
    let url = |path: &str| format!("http://{address}{path}");

    let check = |path: &str| hansard(directory.path(), &["healthcheck", &url(path)]);
    let begun = Instant::now();
    while !output(check("/health/ready")).status.success() {
        assert!(begun.elapsed() < DEADLINE, "never ready");
    }
    let (code, found) = refusal(check("/nothing"));
    assert!(found.contains("/nothing answers 404: "), "{found}");
    assert_eq!(code, 1);

    // Another process that is given the same directory signs with the same secret.
    let user = "0123456789abcdef0123456789abcdef";
    let arguments = ["token", "--user", user, "--type", "support", "--ttl", "60"];
    let token = output(hansard(directory.path(), &arguments)).stdout;
    let token = String::from_utf8(token).unwrap();
    let replayed = runtime().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(url("/audit/events")).bearer_auth(token.trim());
        request.send().await.unwrap().status().as_u16()
    });
    assert_eq!(replayed, 200);

    assert_eq!(serving.stop().code(), Some(0));
    let (code, found) = refusal(check("/health/live"));
    assert!(found.contains("/health/live does not answer: "), "{found}");
    assert_eq!(code, 1);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn what_was_accepted_is_projected_before_it_stops() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let arguments = ["--listen", "127.0.0.1:0"];
        Serving::start(hansard(directory.path(), &arguments))
    };
    let body = "firstName=Ada&lastName=Lovelace&type=consumer";
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    runtime().block_on(async {
        let mut serving = start();
        // A projector that is told to stop while it is still starting leaves everything to the next one.
        let begun = Instant::now();
        let url = format!("http://{}/health/ready", serving.address);
        while client.get(&url).send().await.unwrap().status() != 200 {
            assert!(begun.elapsed() < DEADLINE, "it is not ready");
            tokio::task::yield_now().await;
        }
        let url = format!("http://{}/users", serving.address);
        let request = client
            .post(url)
            .header("prefer", "respond-async")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
        assert_eq!(serving.stop().code(), Some(0));

        let serving = start();
        let url = format!("http://{}/users", serving.address);
        let users = client.get(url).send().await.unwrap().text().await.unwrap();
        assert!(users.contains("Lovelace"), "{users}");
    });
    let replay = output(hansard(directory.path(), &["replay"])).stdout;
    let replay = String::from_utf8(replay).unwrap();
    assert_eq!(replay.lines().count(), 1, "{replay}");
    assert!(replay.contains("user.created"), "{replay}");
}

#[test]
fn replaying_does_not_make_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let (code, found) = refusal(hansard(directory.path(), &["replay"]));
    assert!(
        found.starts_with("hansard: there is no log at ./hansard-data/log.db"),
        "{found}"
    );
    assert_eq!(code, 1);
    assert!(!directory.path().join("hansard-data").exists());
}

#[test]
fn a_copy_that_nobody_may_write_to_is_replayed_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(hansard(directory.path(), &["--listen", "127.0.0.1:0"]));
    let url = format!("http://{}/users", serving.address);
    runtime().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body("firstName=Ada&lastName=Lovelace&type=consumer");
        assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    });
    assert_eq!(serving.stop().code(), Some(0));

    let replay = |more: &[&str]| {
        let arguments = [&["replay", "--format", "text"], more].concat();
        hansard(directory.path(), &arguments)
    };
    let (code, found) = refusal(replay(&["--unrecorded"]));
    assert!(found.contains("log.db can be written to"), "{found}");
    assert_eq!(code, 1);
    let (_, found) = refusal(replay(&["--unrecorded", "--log", "nats://127.0.0.1:1"]));
    assert!(
        found.contains("for a copy of a log in an SQLite file"),
        "{found}"
    );

    let data = directory.path().join("hansard-data");
    let copy = data.join("copy.db");
    let log = rusqlite::Connection::open(data.join("log.db")).unwrap();
    log.execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    drop(log);
    let mut permissions = std::fs::metadata(&copy).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&copy, permissions).unwrap();
    let printed = output(replay(&["--unrecorded", "--log", "sqlite:copy.db"]));
    let text = String::from_utf8(printed.stdout).unwrap();
    let told = String::from_utf8(printed.stderr).unwrap();
    assert!(text.contains("\"Ada\" \"Lovelace\""), "{text}{told}");

    // At the pace at which it happened, or faster; and each reading that is recorded adds one event.
    let lines = |output: Output| String::from_utf8(output.stdout).unwrap().lines().count();
    let before = lines(output(replay(&[])));
    let watched = output(replay(&["--speed", "1000", "--output", "-"]));
    assert_eq!(lines(watched), before + 1);
    let (_, found) = refusal(replay(&["--speed", "1"]));
    assert!(found.contains("--speed is for a terminal"), "{found}");
}

#[test]
fn the_published_description_of_the_api_is_the_codes() {
    let directory = tempfile::tempdir().unwrap();
    let printed = output(hansard(directory.path(), &["openapi"]));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let document: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, method) in [
        ("/login/{userId}", "post"),
        ("/users", "get"),
        ("/users", "post"),
        ("/room/{roomId}/message", "post"),
        ("/ws", "get"),
        ("/audit/events", "get"),
    ] {
        assert!(
            document["paths"][path][method].is_object(),
            "{method} {path}"
        );
    }
    assert!(
        printed.trim_end() == contract::OPENAPI.trim_end(),
        "contract/openapi.json is not what the code declares: run `cargo xtask openapi` and commit it"
    );
}

#[test]
fn the_help_names_every_setting_with_its_variable_and_default() {
    let directory = tempfile::tempdir().unwrap();
    let help = output(hansard(directory.path(), &["--help"])).stdout;
    let help = String::from_utf8(help).unwrap();
    for text in [
        "Usage: hansard [OPTIONS] [COMMAND]",
        "Storage:",
        "--read-models <URL>",
        "[env: HANSARD_READ_MODELS]",
        "[default: sqlite:read.db]",
        "healthcheck",
    ] {
        assert!(help.contains(text), "{text} is not in\n{help}");
    }
}

#[test]
fn the_master_key_is_changed_and_who_has_another_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = |arguments: &[&str]| hansard(directory.path(), &[&["keys"], arguments].concat());
    let printed = |arguments: &[&str]| {
        let output = output(keys(arguments));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (code, found) = refusal(keys(&["status"]));
    let sentence = "hansard: there is no key store at ./hansard-data/keys.db; say where it is";
    assert!(found.starts_with(sentence), "{found}");
    assert_eq!(code, 1);

    let mut serving = Serving::start(hansard(directory.path(), &["--listen", "127.0.0.1:0"]));
    let url = format!("http://{}/users", serving.address);
    let create = || {
        let user = "firstName=Ada&lastName=Lovelace&type=consumer";
        let created = runtime().block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let form = "application/x-www-form-urlencoded";
            let request = client.post(&url).header("content-type", form).body(user);
            request.send().await.unwrap().status().as_u16()
        });
        assert_eq!(created, 200);
    };
    create();
    let status = printed(&["status"]);
    assert!(status.contains(": 1 (the first of the file)\n"), "{status}");
    assert!(status.ends_with("keys destroyed: 0\n"), "{status}");

    let rotated = printed(&["rotate", "--new"]);
    assert!(rotated.contains("keys wrapped anew: 1\n"), "{rotated}");
    assert!(
        rotated.contains(": 1 (the first of the file)\n"),
        "{rotated}"
    );
    assert!(rotated.contains(": 0 (not needed)\n"), "{rotated}");
    let old = status.split([' ', ':']).nth(3).unwrap();
    assert!(
        rotated.contains(&format!("\nremove {old} from")),
        "{rotated}"
    );
    // The running process wraps with the new one.
    create();
    assert!(printed(&["status"]).contains(": 2 (the first of the file)\n"));
    assert!(printed(&["rotate"]).starts_with("keys wrapped anew: 0\n"));
    assert_eq!(serving.stop().code(), Some(0));

    let other = directory.path().join("other");
    std::fs::write(&other, format!("{:064x}", 1)).unwrap();
    let file = other.display().to_string();
    for arguments in [&["keys", "rotate", "--new"][..], &["serve"]] {
        let place = ["--master-key-file", &file, "--listen", "127.0.0.1:0"];
        let (code, found) = refusal(hansard(directory.path(), &[arguments, &place].concat()));
        assert!(found.contains("which is not in the file"), "{found}");
        assert!(found.contains("--master-key-file"), "{found}");
        assert_eq!(code, 1);
    }
    let unchanged = std::fs::read_to_string(&other).unwrap();
    assert_eq!(unchanged, format!("{:064x}", 1));
}
