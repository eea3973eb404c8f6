//! The proxy at the edge of the four-process layout: a real nginx that runs the deployment's own file.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xtask::servers::find_nginx;

/// Where each of the edge's addresses goes in the template.
pub(crate) struct Addresses {
    pub(crate) listen: String,
    pub(crate) command_api: String,
    pub(crate) query_api: String,
    pub(crate) gateway_ws: String,
}

/// Where nginx is, or what to install.
pub(crate) fn nginx() -> Result<PathBuf, String> {
    match std::env::var_os("HANSARD_TEST_NGINX") {
        Some(path) => Ok(path.into()),
        None => find_nginx().map_err(|error| error.to_string()),
    }
}

/// Writes nginx's configuration into `directory`; gives the arguments that run it from there.
pub(crate) fn configure(directory: &Path, addresses: &Addresses) -> Vec<OsString> {
    let template = project_file("deploy/edge/default.conf.template");
    let template = std::fs::read_to_string(&template)
        .unwrap_or_else(|error| panic!("{} can't be read: {error}", template.display()));
    let directory = directory.join("edge");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(
        directory.join("default.conf"),
        substitute(template, addresses),
    )
    .unwrap();
    std::fs::write(directory.join("nginx.conf"), main_file(&directory)).unwrap();
    [
        "-e".into(),
        "stderr".into(),
        "-p".into(),
        directory.clone().into_os_string(),
        "-c".into(),
        directory.join("nginx.conf").into_os_string(),
    ]
    .to_vec()
}

/// A file of this project.
pub(crate) fn project_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// As the nginx image's envsubst does.
fn substitute(template: String, addresses: &Addresses) -> String {
    let filled = [
        ("LISTEN", addresses.listen.as_str()),
        ("COMMAND_API", &addresses.command_api),
        ("QUERY_API", &addresses.query_api),
        ("GATEWAY_WS", &addresses.gateway_ws),
        ("RESOLVER", "127.0.0.1"),
    ]
    .into_iter()
    .fold(template, |text, (name, value)| {
        text.replace(&format!("${{HANSARD_EDGE_{name}}}"), value)
    });
    let left = filled.find("${HANSARD_EDGE_").map(|start| &filled[start..]);
    assert!(
        left.is_none(),
        "the edge's template has a variable that the harness doesn't know: {left:.60?}"
    );
    filled
}

/// What the nginx image's own nginx.conf does around the template, without its fixed places.
fn main_file(directory: &Path) -> String {
    // Workers of a root's nginx would run as another user, who can't reach the temporary directory.
    let user = if std::fs::metadata(directory).unwrap().uid() == 0 {
        "user root;\n"
    } else {
        ""
    };
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {};\n", directory.join(name).display()))
        .collect();
    format!(
        "{user}daemon off;\nworker_processes 1;\nerror_log stderr warn;\npid {pid};\n\
         events {{\n    worker_connections 4096;\n}}\n\
         http {{\n{places}    include {site};\n}}\n",
        pid = directory.join("nginx.pid").display(),
        site = directory.join("default.conf").display(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use reqwest::Method;
    use serde_json::json;
    use tempfile::TempDir;
    use xtask::port::Port;
    use xtask::process::{Supervised, wait_for};

    use super::*;
    use crate::client::TestClient;

    /// What a service does with a request that it has read.
    type Behaviour = fn(&Request, &mut TcpStream);

    /// A request as it reached a service.
    #[derive(Debug, Clone)]
    struct Request {
        service: &'static str,
        /// Method and target.
        line: String,
        head: String,
        body_bytes: usize,
    }

    /// Services that do as they are told, behind a real edge.
    struct Fixture {
        _edge: Supervised,
        _directory: TempDir,
        address: String,
        client: TestClient,
        seen: Arc<Mutex<Vec<Request>>>,
    }

    impl Fixture {
        /// `None` where nginx is not needed for the tests that run.
        fn start(behaviour: Behaviour) -> Option<Self> {
            let seen = Arc::default();
            let mut addresses = ["command-api", "query-api", "gateway-ws"]
                .map(|name| service(name, behaviour, &seen))
                .into_iter();
            let mut next = || addresses.next().unwrap();
            Self::start_before([next(), next(), next()], seen)
        }

        fn start_before(services: [String; 3], seen: Arc<Mutex<Vec<Request>>>) -> Option<Self> {
            let nginx = match nginx() {
                Ok(nginx) => nginx,
                Err(error) => {
                    let embedded_only = xtask::servers::EMBEDDED_ONLY_VARIABLE;
                    assert!(
                        std::env::var_os(embedded_only).is_some_and(|value| value == "1"),
                        "{error}"
                    );
                    println!("skipped: {error}");
                    return None;
                }
            };
            let directory = tempfile::tempdir().unwrap();
            let port = Port::reserve().unwrap();
            let [command_api, query_api, gateway_ws] = services;
            let addresses = Addresses {
                listen: port.address(),
                command_api,
                query_api,
                gateway_ws,
            };
            let mut command = Command::new(nginx);
            command.args(configure(directory.path(), &addresses));
            let mut edge = Supervised::start(command, &directory.path().join("log")).unwrap();
            let up = wait_for(Duration::from_secs(20), || {
                let ended = edge.ended();
                assert!(ended.is_none(), "{ended:?}: {}", edge.output());
                TcpStream::connect(port.address()).ok()
            });
            assert!(up.is_some(), "{}", edge.output());
            Some(Self {
                _edge: edge,
                _directory: directory,
                address: port.address(),
                client: TestClient::new(&format!("http://{}", port.address())),
                seen,
            })
        }

        /// The requests that reached services: `SERVICE METHOD TARGET`.
        fn seen(&self) -> Vec<String> {
            let seen = self.seen.lock().unwrap();
            seen.iter()
                .map(|request| format!("{} {}", request.service, request.line))
                .collect()
        }
    }

    fn service(
        name: &'static str,
        behaviour: Behaviour,
        seen: &Arc<Mutex<Vec<Request>>>,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::clone(seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read_request(name, &mut reader) {
                        seen.lock().unwrap().push(request.clone());
                        behaviour(&request, &mut stream);
                    }
                });
            }
        });
        address
    }

    fn read_request(service: &'static str, reader: &mut impl BufRead) -> Option<Request> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let (line, _) = head.split_once(" HTTP/1.1\r\n").unwrap();
        let length = head
            .lines()
            .find_map(|line| {
                let line = line.to_ascii_lowercase();
                line.strip_prefix("content-length: ")?.parse().ok()
            })
            .unwrap_or(0);
        let line = line.to_owned();
        let body_bytes = std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
        Some(Request {
            service,
            line,
            head,
            body_bytes: usize::try_from(body_bytes).unwrap(),
        })
    }

    fn answer(request: &Request, stream: &mut TcpStream) {
        let body = json!({"head": request.head, "bodyBytes": request.body_bytes}).to_string();
        let body = if request.line.starts_with("HEAD") {
            ""
        } else {
            &body
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok();
    }

    fn close(_: &Request, stream: &mut TcpStream) {
        stream.shutdown(std::net::Shutdown::Both).ok();
    }

    /// Answers the first request on each connection and closes it at the second, without an answer.
    fn close_kept_connections(request: &Request, stream: &mut TcpStream) {
        if request.line.contains("first") {
            answer(request, stream);
        } else {
            close(request, stream);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn routes_go_by_method_and_path() {
        let Some(edge) = Fixture::start(answer) else {
            return;
        };
        for (method, path, service) in [
            ("GET", "/users", "query-api"),
            ("HEAD", "/users", "query-api"),
            ("OPTIONS", "/room/initiate", "query-api"),
            ("GET", "/room/1?page=2&limit=3", "query-api"),
            ("GET", "/search?q=%22a%00%22&room=1", "query-api"),
            ("GET", "/audit/events?room=1", "query-api"),
            ("GET", "/openapi.json", "query-api"),
            ("GET", "/docs/", "query-api"),
            ("GET", "/health/ready", "query-api"),
            ("GET", "/metrics", "query-api"),
            ("GET", "/nothing", "query-api"),
            ("POST", "/users", "command-api"),
            ("POST", "/login/1", "command-api"),
            ("PUT", "/room/1/mark-read?x=%20y", "command-api"),
            ("PATCH", "/users/1", "command-api"),
            ("DELETE", "/delete/message/a%2Fb%2e", "command-api"),
            ("GET", "/ws", "gateway-ws"),
            ("GET", "/ws?after=1", "gateway-ws"),
            ("GET", "/changes", "gateway-ws"),
            ("GET", "/changes?after=1&wait=60", "gateway-ws"),
            ("GET", "/asyncapi.json", "gateway-ws"),
            ("GET", "/socket.io/?EIO=4", "gateway-ws"),
            ("POST", "/socket.io/?EIO=4", "gateway-ws"),
            ("GET", "/wsx", "query-api"),
        ] {
            edge.seen.lock().unwrap().clear();
            let method_value: Method = method.parse().unwrap();
            let _ = edge.client.send(method_value, path, None).await.expect(200);
            assert_eq!(edge.seen(), [format!("{service} {method} {path}")]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn services_learn_who_asked_for_what() {
        let Some(edge) = Fixture::start(answer) else {
            return;
        };
        let answer = edge
            .client
            .with_header("x-request-id", "mine")
            .with_header("authorization", "Bearer secret")
            .with_header("idempotency-key", "key")
            .create_user("Ada", "Lovelace", "consumer")
            .await
            .ok();
        let head = answer["head"].as_str().unwrap().to_ascii_lowercase();
        for line in [
            &format!("host: {}", edge.address),
            &format!("x-forwarded-host: {}", edge.address),
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-request-id: mine",
            "authorization: bearer secret",
            "idempotency-key: key",
        ] {
            assert!(
                head.contains(&format!("\r\n{line}\r\n")),
                "{line} not in {head}"
            );
        }
        assert!(!head.contains("\r\nconnection:"), "{head}");

        let answer = edge.client.users().await.ok();
        let head = answer["head"].as_str().unwrap().to_ascii_lowercase();
        assert!(head.contains("\r\nx-request-id: "), "{head}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_is_down_is_a_503_like_hansards() {
        let nobody = Port::reserve().unwrap();
        let down = [nobody.address(), nobody.address(), nobody.address()];
        let Some(edge) = Fixture::start_before(down, Arc::default()) else {
            return;
        };
        for (method, path) in [
            (Method::GET, "/users"),
            (Method::POST, "/users"),
            (Method::PUT, "/room/1/mark-read"),
            (Method::DELETE, "/users/1"),
            (Method::GET, "/audit/events"),
            (Method::GET, "/ws"),
        ] {
            let answer = edge.client.send(method, path, None).await;
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let body = answer.expect(503);
            assert_eq!(body["success"], false);
            assert_eq!(body["status"], 503);
            assert_eq!(body["code"], "unavailable");
            assert_eq!(body["message"], body["detail"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_whose_answer_is_lost_is_not_repeated() {
        let Some(edge) = Fixture::start(close) else {
            return;
        };
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            edge.seen.lock().unwrap().clear();
            let _ = edge
                .client
                .send(method.clone(), "/room/1/mark-read", None)
                .await
                .expect(503);
            assert_eq!(
                edge.seen(),
                [format!("command-api {method} /room/1/mark-read")]
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_a_kept_connection_that_closes_queries_are_repeated_and_commands_are_not() {
        let Some(edge) = Fixture::start(close_kept_connections) else {
            return;
        };
        for (method, times) in [
            (Method::GET, 2),
            (Method::POST, 1),
            (Method::PUT, 1),
            (Method::DELETE, 1),
        ] {
            let _ = edge.client.send(method.clone(), "/first", None).await.ok();
            edge.seen.lock().unwrap().clear();
            let _ = edge
                .client
                .send(method.clone(), "/other", None)
                .await
                .expect(503);
            assert_eq!(edge.seen().len(), times, "{method}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_service_refuses_passes_untouched() {
        let Some(edge) = Fixture::start(|_, stream| {
            stream
                .write_all(b"HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nmine")
                .ok();
        }) else {
            return;
        };
        for method in [Method::GET, Method::POST] {
            let answer = edge.client.send(method, "/users", None).await;
            assert_eq!(answer.status, 503);
            assert_eq!(answer.header("retry-after"), "7");
            assert_eq!(answer.text, "mine");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn large_bodies_reach_hansard_which_says_what_is_too_large() {
        let Some(edge) = Fixture::start(answer) else {
            return;
        };
        let send = async |bytes| {
            let body = vec![b' '; bytes];
            edge.client
                .send_bytes(Method::POST, "/users", "application/json", body)
                .await
        };
        assert_eq!(send(8 << 20).await.ok()["bodyBytes"], 8 << 20);

        let answer = send(17 << 20).await;
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.expect(413)["code"], "payload-too-large");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn audits_stream_line_by_line() {
        let Some(edge) = Fixture::start(|_, stream| {
            // One line, and then nothing: the answer never ends.
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n")
                .ok();
        }) else {
            return;
        };
        let request = edge.client.request(Method::GET, "/audit/events", None);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "one\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn websockets_pass() {
        let Some(edge) = Fixture::start(|request, stream| {
            assert!(request.head.contains("Upgrade: websocket\r\n"));
            assert!(
                request
                    .head
                    .to_ascii_lowercase()
                    .contains("\r\nconnection: upgrade\r\n")
            );
            stream
                .write_all(
                    b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello",
                )
                .unwrap();
        }) else {
            return;
        };
        let mut stream = TcpStream::connect(&edge.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(
                b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            )
            .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut greeting = [0; 5];
        reader.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
    }
}
