//! What must not hurt: malformed and oversized bodies, odd ids and headers, any Unicode, tokens of every
//! wrong kind, and events in the log that nobody can decode. Each gets its clear error, and nothing else
//! is disturbed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use event_log::{Expect, NewEvent};
use events::{RoomId, Subject, UserId};
use hansard_tests::{Answer, Layout, Person, Service, Stack, eventually, on_every_stack};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const CONSUMERS: &str = "consumer-to-consumer";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const NO_USER: &str = "No user with this id found";
const NO_ROOM: &str = "No room exists for this id";
const NOBODY: &str = "00000000000000000000000000000000";

/// Ada and Grace, who have a room.
struct Pair {
    ada: Person,
    grace: Person,
    room: String,
}

impl Pair {
    async fn new(stack: &Stack) -> Self {
        let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
        let answer = ada.client.initiate(&[&grace.id], CONSUMERS).await.ok();
        let room = answer["chatRoom"]["chatRoomId"]
            .as_str()
            .unwrap()
            .to_owned();
        Self { ada, grace, room }
    }

    /// Shows that a request that is as it should be is answered as it should be; gives the new message.
    async fn still_works(&self) -> String {
        let text = format!("all is well {}", Uuid::new_v4());
        let posted = self.ada.client.post(&self.room, &text).await.ok();
        let message = posted["post"]["postId"].as_str().unwrap().to_owned();
        let page = self
            .grace
            .client
            .conversation(&self.room, "limit=1")
            .await
            .ok();
        assert_eq!(page["conversation"][0]["_id"], message.as_str(), "{page}");
        assert_eq!(page["conversation"][0]["message"]["messageText"], text);
        message
    }

    /// How many messages the room has, and how many users there are.
    async fn counts(&self) -> (usize, usize) {
        let page = self
            .ada
            .client
            .conversation(&self.room, "limit=100")
            .await
            .ok();
        let users = self.ada.client.users().await.ok();
        (
            page["conversation"].as_array().unwrap().len(),
            users["users"].as_array().unwrap().len(),
        )
    }
}

/// A refusal whose message begins like this.
fn refused_with(answer: Answer, status: u16, beginning: &str) {
    let message = answer.json["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(message.starts_with(beginning), "{}", answer.text);
    answer.refused(status, &message);
}

async fn bodies_and_headers(stack: Stack) {
    let stack = stack.with_positions();
    let pair = Pair::new(&stack).await;
    let client = &pair.ada.client;
    let _ = pair.still_works().await;
    let before = pair.counts().await;
    let commands = [
        (Method::POST, "/users".to_owned()),
        (Method::POST, "/room/initiate".to_owned()),
        (Method::POST, format!("/room/{}/message", pair.room)),
        (Method::PUT, format!("/room/{}/mark-read", pair.room)),
    ];

    // What is no JSON, or no object.
    let deep = format!(
        "{{\"messageText\":{}1{}}}",
        "[".repeat(300),
        "]".repeat(300)
    );
    let deepest = "[".repeat(500_000);
    let no_json = "the request's body is not valid JSON";
    let no_object = "the request's body is JSON but not an object";
    let bodies: [(&[u8], &str); 17] = [
        (b"{", no_json),
        (b"{\"messageText\": }", no_json),
        (b"{\"messageText\": \"x\"", no_json),
        (b"{\"messageText\": \"x\",}", no_json),
        (b"{'messageText': 'x'}", no_json),
        (b"{\"messageText\": \"a\nb\"}", no_json),
        (b"{\"messageText\": NaN}", no_json),
        (b"{\"messageText\": \"\\ud800\"}", no_json),
        (b"{\"messageText\": \"\xff\"}", no_json),
        (b"\xef\xbb\xbf{\"messageText\": \"x\"}", no_json),
        (b"{\"messageText\": \"x\"} {}", no_json),
        (b" ", no_json),
        (deep.as_bytes(), no_json),
        (deepest.as_bytes(), no_json),
        (b"[{\"messageText\": \"x\"}]", no_object),
        (b"\"messageText\"", no_object),
        (b"null", no_object),
    ];
    for (method, path) in &commands {
        for (body, text) in bodies {
            let answer = client.send_bytes(method.clone(), path, JSON, body.to_vec());
            refused_with(answer.await, 400, text);
        }
        // What is no text in a form.
        let answer = client.send_bytes(method.clone(), path, FORM, "messageText=%ff");
        answer
            .await
            .refused(400, "the request's form is not valid UTF-8");

        // What is neither.
        for content_type in [
            "text/plain",
            "application/xml",
            "application/octet-stream",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "garbage",
        ] {
            let answer = client
                .send_bytes(method.clone(), path, content_type, "{}")
                .await;
            refused_with(answer, 415, "the request's ");
        }
        let answer = client.with_header("content-encoding", "gzip");
        let answer = answer.send_bytes(method.clone(), path, JSON, "{}").await;
        refused_with(answer, 415, "the request's body is compressed");

        // What is too much.
        let padded = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
        let answer = client.send_bytes(method.clone(), path, JSON, padded((1 << 20) + 1));
        answer
            .await
            .refused(413, "the request's body is larger than the limit");
        let answer = client
            .send_bytes(method.clone(), path, JSON, padded(1 << 20))
            .await;
        assert_ne!(answer.status, 413, "{path} takes a body of 1 MiB");
    }
    let _ = pair.still_works().await;

    // Texts and lists that are too long; what counts is bytes.
    for (text, fits) in [
        ("x".repeat(64 << 10), true),
        ("x".repeat((64 << 10) + 1), false),
        ("é".repeat(32 << 10), true),
        ("é".repeat((32 << 10) + 1), false),
        ("👩".repeat(200_000), false),
    ] {
        let answer = client.post(&pair.room, &text).await;
        if fits {
            assert_eq!(answer.ok()["post"]["message"]["messageText"], text);
            continue;
        }
        let errors = json!({"messageText": "string cannot be longer than 65536 bytes"});
        assert_eq!(answer.wrong_fields(), errors);
    }
    let long = "é".repeat(513);
    let answer = client.create_user(&long, &long[..1024], "consumer").await;
    let errors = json!({"firstName": "string cannot be longer than 1024 bytes"});
    assert_eq!(answer.wrong_fields(), errors);
    let many: Vec<String> = (0..1001).map(|number| format!("{number:032x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let answer = client.initiate(&many, CONSUMERS).await;
    let errors = json!({"userIds": "Array cannot have more than 1000 values"});
    assert_eq!(answer.wrong_fields(), errors);
    let answer = client
        .initiate(&many[..1000], CONSUMERS)
        .await
        .wrong_fields();
    let text = answer["userIds"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("No user exists for {NOBODY},")),
        "{text}"
    );

    // Headers that are not what they must be.
    let text = "the Idempotency-Key header must be 1 to 255 visible ASCII characters";
    let long = "k".repeat(256);
    for key in [
        b"".as_slice(),
        b"two words",
        b"\xff",
        "schlüssel".as_bytes(),
        long.as_bytes(),
    ] {
        for (method, path) in commands
            .iter()
            .map(|(method, path)| (method.clone(), path.clone()))
            .chain([
                (Method::DELETE, format!("/users/{}", pair.grace.id)),
                (Method::DELETE, format!("/delete/room/{}", pair.room)),
                (
                    Method::DELETE,
                    "/delete/message/0000000000000001".to_owned(),
                ),
            ])
        {
            let key = HeaderValue::from_bytes(key).unwrap();
            let request = client.request(method, &path, Some(json!({})));
            let answer = client
                .send_request(request.header("idempotency-key", key))
                .await;
            answer.refused(400, text);
        }
    }
    let answer = client.with_header("idempotency-key", &long[..255]);
    let _ = answer.post(&pair.room, "with the longest key").await.ok();
    let text = "the Hansard-Position header must be one that a command answered: 16 hex digits";
    for position in [
        "",
        "5",
        "-1",
        "latest",
        "00000000000000AB",
        "00000000000000001",
    ] {
        let client = client.with_header("hansard-position", position);
        client.users().await.refused(400, text);
        client.user(&pair.ada.id).await.refused(400, text);
        client.conversations("").await.refused(400, text);
        client.conversation(&pair.room, "").await.refused(400, text);
    }
    // A position that nothing has reached.
    let future = client.with_header("hansard-position", &"f".repeat(16));
    let answer = future.conversation(&pair.room, "").await;
    assert_eq!(answer.header("retry-after"), "1");
    refused_with(
        answer,
        503,
        "the read models have not reached the Hansard-Position yet",
    );

    // Nothing of all that was done: three texts that fit came in between, and the two checks.
    let _ = pair.still_works().await;
    assert_eq!(pair.counts().await, (before.0 + 5, before.1));
}

async fn any_text_is_kept_byte_for_byte(stack: Stack) {
    let stack = stack.with_positions();
    let pair = Pair::new(&stack).await;
    let mut socket = stack.socket(&pair.grace).await;
    socket.subscribe(&pair.room, None).await;
    let controls: String = (0..=0x9f_u32)
        .filter_map(char::from_u32)
        .filter(|c| c.is_control())
        .collect();
    let texts = [
        controls.as_str(),
        "\u{0}",
        "a\r\nb\nc\rd\u{2028}e\u{2029}f\u{b}g",
        "  kept  \t\n",
        "\"quotes\" \\ / </script> <!-- %00 %s {} ${x} $where chat.room.>",
        "e\u{301} is not é, ﬁ is not fi, İ ı ß ſ",
        "👩‍👩‍👧‍👦 🏳️‍🌈 \u{1f1ea}\u{1f1fa} 𝒳 𠜎",
        "\u{202e}right to left\u{202c} \u{2066}isolated\u{2069} שלום مرحبا",
        "\u{feff}\u{fffe}\u{ffff}\u{fdd0}\u{10ffff}\u{e000}\u{fffd}\u{200b}",
        "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    ];
    for (number, text) in texts.iter().enumerate() {
        // As JSON with everything escaped, as JSON with nothing escaped that need not be, as a form.
        let escaped: String = text
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect();
        let escaped = format!("{{\"messageText\": \"{escaped}\"}}");
        let plain = json!({"messageText": text}).to_string();
        let form: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let form = format!("messageText={form}");
        let path = format!("/room/{}/message", pair.room);
        for (content_type, body) in [(JSON, escaped), (JSON, plain), (FORM, form)] {
            let client = &pair.ada.client;
            let posted = client
                .send_bytes(Method::POST, &path, content_type, body)
                .await
                .ok();
            assert_eq!(posted["post"]["message"]["messageText"], *text);
            let pushed = socket.next_of_type("new message").await;
            assert_eq!(pushed["message"], posted["post"]);
            let page = pair
                .grace
                .client
                .conversation(&pair.room, "limit=1")
                .await
                .ok();
            assert_eq!(page["conversation"][0]["message"]["messageText"], *text);
            let recent = pair.grace.client.conversations("").await.ok();
            assert_eq!(recent["conversation"][0]["message"]["messageText"], *text);
        }

        // And as a name.
        let visible = format!("{text}.");
        let created = stack
            .client()
            .create_user(&visible, &visible, "support")
            .await
            .ok();
        let id = created["user"]["_id"].as_str().unwrap();
        for user in [
            &created["user"],
            &stack.client().user(id).await.ok()["user"],
            &stack.client().users().await.ok()["users"][number + 2],
        ] {
            assert_eq!(user["firstName"], visible);
            assert_eq!(user["lastName"], visible);
        }
    }
    let _ = pair.still_works().await;
    // Nor did any of it reach a line of Hansard's own log.
    for service in Service::OWN {
        let output = stack.output(service);
        for secret in [
            "$where",
            "kept",
            "\u{202e}",
            "\u{0}",
            &pair.ada.token,
            "Lovelace",
        ] {
            assert!(!output.contains(secret), "{service:?} logged {secret:?}");
        }
    }
}

/// Sends a request whose path no URL library touches, and gives the answer's status and body.
async fn send_raw(stack: &Stack, method: &str, path: &str, token: &str) -> (u16, Value) {
    let address = stack.base_url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-length: 2\r\ncontent-type: {JSON}\r\nconnection: close\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

async fn odd_ids(stack: Stack) {
    let stack = stack.with_positions();
    let pair = Pair::new(&stack).await;
    let message = pair.still_works().await;
    let before = pair.counts().await;
    let anyone = stack.client();
    let ada = &pair.ada.client;
    let text = json!({"messageText": "nowhere"});
    let very_long = "a".repeat(4000);
    let spaced = |id: &str| format!("{id}%20");
    let ended = |id: &str| format!("{id}%0A");
    let dotted = |id: &str| format!("{id}.timeline");
    for odd in [
        "*".to_owned(),
        "%3E".to_owned(),
        "%2A".to_owned(),
        "chat.user.%3E".to_owned(),
        "...".to_owned(),
        "%20".to_owned(),
        "%2F".to_owned(),
        "a%2Fb".to_owned(),
        "%25".to_owned(),
        "null".to_owned(),
        "undefined".to_owned(),
        "0".to_owned(),
        "-1".to_owned(),
        "%7B%22%24ne%22%3A1%7D".to_owned(),
        "';%20DROP%20TABLE%20messages;--".to_owned(),
        "%F0%9F%91%A9%E2%80%8D%F0%9F%91%A7".to_owned(),
        "%E2%80%AE".to_owned(),
        "%0D%0AX-Header:%20x".to_owned(),
        very_long,
        "0".repeat(31),
        "0".repeat(33),
        "g".repeat(32),
        pair.room.to_uppercase(),
        pair.ada.id.to_uppercase(),
        spaced(&pair.room),
        ended(&pair.room),
        dotted(&pair.room),
        spaced(&pair.grace.id),
        ended(&pair.grace.id),
        spaced(&message),
        ended(&message),
        // An id of another kind.
        message.clone(),
    ] {
        anyone.user(&odd).await.refused(404, NO_USER);
        anyone.login(&odd).await.refused(404, NO_USER);
        ada.conversation(&odd, "").await.refused(404, NO_ROOM);
        ada.mark_read(&odd).await.refused(404, NO_ROOM);
        let path = format!("/room/{odd}/message");
        ada.send(Method::POST, &path, Some(text.clone()))
            .await
            .refused(404, NO_ROOM);
        let deleted = anyone.delete_user(&odd).await.ok();
        assert_eq!(deleted["message"], "Deleted a count of 0 user.", "{odd}");
        let deleted = anyone.delete_room(&odd).await.ok();
        assert_eq!(deleted["deletedRoomsCount"], 0, "{odd}");
        if odd != message {
            let deleted = anyone.delete_message(&odd).await.ok();
            assert_eq!(deleted["deletedMessagesCount"], 0, "{odd}");
        }
    }

    // What servers and proxies treat in their own ways: refused as JSON, whoever does it.
    for odd in [
        ".",
        "..",
        "%2e%2e",
        "..%2F..%2Fusers",
        "%00",
        "a%00b",
        "%",
        "%zz",
        "%FF",
        "%C0%AE",
        "%ED%A0%80",
        "\\",
        "|",
    ] {
        for (method, path) in [
            ("GET", format!("/users/{odd}")),
            ("GET", format!("/room/{odd}")),
            ("POST", format!("/room/{odd}/message")),
            ("PUT", format!("/room/{odd}/mark-read")),
            ("POST", format!("/login/{odd}")),
        ] {
            let (status, body) = send_raw(&stack, method, &path, &pair.ada.token).await;
            assert!(
                [400, 404].contains(&status),
                "{method} {path} is answered {status} {body}"
            );
            assert_eq!(
                body["success"], false,
                "{method} {path} is answered {status} {body}"
            );
            assert_eq!(body["status"], status, "{method} {path} is answered {body}");
            assert!(
                body["message"].is_string(),
                "{method} {path} is answered {body}"
            );
        }
        for path in ["/users/", "/delete/room/", "/delete/message/"] {
            let (status, body) =
                send_raw(&stack, "DELETE", &format!("{path}{odd}"), &pair.ada.token).await;
            match status {
                200 => assert!(
                    !body.to_string().contains('1'),
                    "{path}{odd} is answered {body}"
                ),
                _ => assert_eq!(
                    body["success"], false,
                    "{path}{odd} is answered {status} {body}"
                ),
            }
        }
    }

    // Ids in bodies and queries.
    for odd in [
        "*",
        ">",
        ".",
        "..",
        "\u{0}",
        "👩",
        &"x".repeat(5000),
        &pair.grace.id.to_uppercase(),
    ] {
        let refused = ada.initiate(&[odd], CONSUMERS).await;
        let errors = json!({"userIds": format!("No user exists for {odd}")});
        assert_eq!(refused.wrong_fields(), errors);
        let refused = ada.mark_read_up_to(&pair.room, odd).await;
        let errors = json!({"upTo": "no message exists in this room for this id"});
        assert_eq!(refused.wrong_fields(), errors);
    }
    for odd in [
        "*",
        "%3E",
        ".",
        "%00",
        "%F0%9F%91%A9",
        &message.to_uppercase()[..],
    ] {
        // The message's digits may have no letters among them.
        if odd == message {
            continue;
        }
        let refused = ada.conversation(&pair.room, &format!("before={odd}")).await;
        assert_eq!(
            refused.wrong_fields(),
            json!({"before": "please provide a message id"})
        );
        let refused = ada.conversations(&format!("after={odd}")).await;
        assert_eq!(
            refused.wrong_fields(),
            json!({"after": "please provide a message id"})
        );
    }
    refused_with(ada.conversation(&pair.room, "before=%FF").await, 400, "");
    // A query that is no query.
    for query in [
        "&&&",
        "=",
        "?",
        "page",
        "page=1=2&limit",
        "%",
        "a[b][c]=1",
        &"x=1&".repeat(500),
    ] {
        let _ = ada.conversation(&pair.room, query).await.ok();
    }

    assert_eq!(pair.counts().await, before);
    let _ = pair.still_works().await;
}

on_every_stack!(Auth::Open; bodies_and_headers, any_text_is_kept_byte_for_byte, odd_ids);

mod tokens {
    use hansard_tests::on_every_stack;

    use super::*;

    fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(header), part(claims))
    }

    fn signed(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    async fn tokens_of_every_wrong_kind(stack: Stack) {
        let stack = stack.with_positions();
        let pair = Pair::new(&stack).await;
        let _ = pair.still_works().await;
        let before = pair.counts().await;
        let secret = std::fs::read(stack.secret_file()).unwrap();
        let gone = stack.person_of_type("Gone", "support").await;
        let _ = stack.operator().delete_user(&gone.id).await.ok();

        let good = stack.token(&pair.ada.id, "consumer");
        let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&good)
            .unwrap()
            .claims;
        let now = claims["iat"].as_u64().unwrap();
        // The good token's claims with some changed; null takes one away.
        let with = |changes: Value| {
            let mut changed = claims.clone();
            for (name, value) in changes.as_object().unwrap() {
                match value {
                    Value::Null => changed.as_object_mut().unwrap().remove(name),
                    value => changed
                        .as_object_mut()
                        .unwrap()
                        .insert(name.clone(), value.clone()),
                };
            }
            changed
        };
        let sign = |changes: Value| signed(Algorithm::HS256, &secret, &with(changes));
        let parts: Vec<&str> = good.split('.').collect();
        let support = sign(json!({"userType": "support"}));
        let swapped = format!(
            "{}.{}.{}",
            parts[0],
            support.split('.').nth(1).unwrap(),
            parts[2]
        );
        // Signed with the secret, under the name of another algorithm.
        let renamed = |name: &str| {
            let body = unsigned(&json!({"alg": name, "typ": "JWT"}), &claims, "");
            let key = EncodingKey::from_secret(&secret);
            let signature = jsonwebtoken::crypto::sign(
                body.trim_end_matches('.').as_bytes(),
                &key,
                Algorithm::HS256,
            );
            format!("{body}{}", signature.unwrap())
        };
        let none = json!({"alg": "none", "typ": "JWT"});
        let (malformed, algorithm, signature) =
            ("jwt malformed", "invalid algorithm", "invalid signature");
        let (user, user_type) = (
            "jwt with an invalid userId claim",
            "jwt with an invalid userType claim",
        );
        let role = "jwt with an invalid role claim";
        let (expired, no_expiry) = ("jwt expired", "jwt without an exp claim");
        let unknown = "the token's user does not exist";
        let tokens = [
            ("garbage".to_owned(), malformed),
            ("a.b.c".to_owned(), malformed),
            ("..".to_owned(), malformed),
            ("x".repeat(4000), malformed),
            (format!("{good}.{good}"), malformed),
            (unsigned(&none, &claims, ""), algorithm),
            (unsigned(&none, &claims, parts[2]), algorithm),
            (unsigned(&json!({"alg": "NONE"}), &claims, ""), algorithm),
            (signed(Algorithm::HS384, &secret, &claims), algorithm),
            (signed(Algorithm::HS512, &secret, &claims), algorithm),
            (renamed("RS256"), algorithm),
            (renamed("ES256"), algorithm),
            (renamed("HS512"), algorithm),
            (format!("{}.{}.", parts[0], parts[1]), signature),
            (swapped, signature),
            (
                signed(
                    Algorithm::HS256,
                    b"another secret that is long enough too",
                    &claims,
                ),
                signature,
            ),
            (signed(Algorithm::HS256, b"", &claims), signature),
            (sign(json!({"exp": now - 60})), expired),
            (sign(json!({"exp": 0})), expired),
            (sign(json!({"exp": null})), no_expiry),
            (sign(json!({"exp": "never"})), no_expiry),
            (sign(json!({"nbf": now + 600})), "jwt not active"),
            (sign(json!({"userId": null})), user),
            (sign(json!({"userId": ">"})), user),
            (sign(json!({"userId": {"$ne": null}})), user),
            (sign(json!({"userId": pair.ada.id.to_uppercase()})), user),
            (sign(json!({"userType": null})), user_type),
            (sign(json!({"userType": "admin"})), user_type),
            (sign(json!({"role": "root"})), role),
            (sign(json!({"role": "Admin"})), role),
            (sign(json!({"role": ["admin"]})), role),
            (sign(json!({"userId": NOBODY})), unknown),
            (stack.token(&gone.id, "consumer"), unknown),
            (stack.token(&gone.id, "support"), unknown),
            (gone.token.clone(), unknown),
        ];
        let anyone = stack.client();
        for (token, reason) in &tokens {
            let client = anyone.with_token(token);
            for answer in [
                client.users().await,
                client.conversations("").await,
                client.conversation(&pair.room, "").await,
                client.create_user("Eve", "Eve", "support").await,
                client.post(&pair.room, "not me").await,
                client.delete_user(&pair.ada.id).await,
                client.audit_events("").await,
            ] {
                // Whether the caller exists is asked last where only some roles may call.
                if *reason == unknown && answer.status == 403 {
                    continue;
                }
                assert_eq!(
                    answer.header("www-authenticate"),
                    "Bearer error=\"invalid_token\"",
                    "{token}: {}",
                    answer.text
                );
                answer.refused(401, reason);
            }
        }
        for value in ["", "Bearer", "Bearer ", "Basic YTpi", "Token x", &good] {
            let client = anyone.with_header("authorization", value);
            client
                .conversations("")
                .await
                .refused(401, "jwt must be provided");
        }
        let request = anyone.request(Method::GET, "/room", None);
        let value = HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap();
        let answer = anyone
            .send_request(request.header("authorization", value))
            .await;
        answer.refused(401, "jwt must be provided");
        // A token in the wrong place is none.
        let path = format!("/room?token={good}&access_token={good}");
        anyone
            .get(&path)
            .await
            .refused(401, "No access token provided");

        // Who has none is told nothing else about a request, whatever is wrong with it.
        let wrong = anyone.with_header("idempotency-key", "");
        for answer in [
            wrong.create_user("", "", "nobody").await,
            wrong.initiate(&["nobody"], "nothing").await,
            wrong.post(&pair.room, "").await,
            wrong.edit(&pair.room, "nothing", "").await,
            wrong.mark_read(&pair.room).await,
            wrong.delete_room(&pair.room).await,
            wrong.erase_user("nobody").await,
            wrong.hold(&pair.room, "").await,
        ] {
            answer.refused(401, "No access token provided");
        }

        // What is only unusual is taken: more claims, another time zone's clock, a scheme in small letters.
        let unusual = sign(json!({"iss": "a firm", "aud": "another", "jti": "x", "iat": now + 3}));
        let client = anyone.with_header("authorization", &format!("bearer {unusual}"));
        let _ = client.conversations("").await.ok();
        let _ = pair.still_works().await;
        assert_eq!(pair.counts().await, (before.0 + 1, before.1));
    }

    on_every_stack!(Auth::Token; tokens_of_every_wrong_kind);
}

mod undecodable {
    use hansard_tests::on_every_stack;

    use super::*;

    /// Something that is no event, as another program, a disk, or a later version of Hansard may leave it.
    fn strange(subject: Subject, payload: impl Into<Vec<u8>>) -> NewEvent {
        NewEvent {
            subject,
            deduplication_id: Uuid::new_v4(),
            payload: payload.into().into(),
        }
    }

    async fn dead_letters(stack: &Stack, count: u64) {
        let projector = stack.direct(Service::Projector);
        let line = format!("hansard_dead_letters {count}");
        let what = format!("the projector's figures say {line}");
        eventually(&what, Duration::from_secs(30), async || {
            let figures = projector.get("/metrics").await;
            figures.text.lines().any(|it| it == line).then_some(())
        })
        .await;
    }

    async fn events_that_do_not_decode_are_set_aside(stack: Stack) {
        let mut stack = stack.with_positions();
        let pair = Pair::new(&stack).await;
        let support = stack.person_of_type("Sam", "support").await;
        let first = pair.still_works().await;
        let mut socket = stack.socket(&pair.grace).await;
        socket.subscribe(&pair.room, None).await;
        dead_letters(&stack, 0).await;

        // One that is nothing at all, in the middle of a conversation.
        let log = stack.open_log().await;
        let room: RoomId = pair.room.parse().unwrap();
        let timeline = Subject::RoomTimeline(room);
        let nothing = b"\xff\x00 no event";
        let poison = log
            .append(strange(timeline, nothing), Expect::Any)
            .await
            .unwrap();
        let poison = poison.position.to_string();
        assert!(poison > first);
        dead_letters(&stack, 1).await;

        // Posting, reading and pushing go on.
        let second = pair.still_works().await;
        assert!(second > poison);
        let pushed = socket.next_of_type("new message").await;
        assert_eq!(pushed["message"]["postId"], second.as_str());
        let mut late = stack.socket(&pair.ada).await;
        let subscribed = late.subscribe(&pair.room, Some(&first)).await;
        assert_eq!(subscribed["recovered"], true, "{subscribed}");
        let replayed = late.next_of_type("new message").await;
        assert_eq!(replayed["message"]["postId"], second.as_str());
        assert_eq!(pair.counts().await, (2, 3));
        let recent = pair.grace.client.conversations("").await.ok();
        assert_eq!(recent["conversation"][0]["messageId"], second.as_str());
        assert_eq!(recent["conversation"][0]["unreadCount"], 2);
        let deleted = pair.ada.client.delete_message(&poison).await.ok();
        assert_eq!(deleted["deletedMessagesCount"], 0);
        let page = pair
            .ada
            .client
            .conversation(&pair.room, &format!("before={poison}"))
            .await
            .ok();
        assert_eq!(page["conversation"][0]["_id"], first.as_str());

        // The record shows it as it is.
        let line = shown_in_replays(&stack, &support, &poison).await;
        assert_eq!(line["payloadBase64"], STANDARD.encode(nothing));
        assert_eq!(line["subject"], timeline.to_string());
        assert!(
            line["undecodable"]
                .as_str()
                .unwrap()
                .starts_with("not an event envelope: "),
            "{line}"
        );

        // Others: of a later version, with data that do not fit, in a history where they don't belong, and
        // at the end of the histories that commands are decided from.
        let mut envelope = json!({
            "id": Uuid::now_v7(), "type": "message.shredded", "v": 1, "at": "2026-11-22T17:16:12.692Z",
            "actor": pair.ada.id, "data": {"roomId": pair.room},
        });
        let shredded = strange(timeline, envelope.to_string());
        let shredded = log
            .append(shredded, Expect::Any)
            .await
            .unwrap()
            .position
            .to_string();
        envelope["type"] = "message.posted".into();
        log.append(strange(timeline, envelope.to_string()), Expect::Any)
            .await
            .unwrap();
        envelope["data"] =
            json!({"roomId": pair.room, "author": pair.ada.id, "messageText": "misplaced"});
        let elsewhere = Subject::RoomTimeline(NOBODY.parse().unwrap());
        log.append(strange(elsewhere, envelope.to_string()), Expect::Any)
            .await
            .unwrap();
        let grace: UserId = pair.grace.id.parse().unwrap();
        for subject in [Subject::RoomLifecycle(room), Subject::User(grace)] {
            log.append(strange(subject, "{}"), Expect::Any)
                .await
                .unwrap();
        }
        dead_letters(&stack, 6).await;
        let line = shown_in_replays(&stack, &support, &shredded).await;
        assert_eq!(
            line["undecodable"],
            "unknown event type \"message.shredded\" version 1"
        );
        assert!(
            line["payload"]
                .as_str()
                .unwrap()
                .contains("message.shredded"),
            "{line}"
        );
        let third = pair.still_works().await;
        let pushed = socket.next_of_type("new message").await;
        assert_eq!(pushed["message"]["postId"], third.as_str());
        let again = pair
            .grace
            .client
            .initiate(&[&pair.ada.id], CONSUMERS)
            .await
            .ok();
        assert_eq!(again["chatRoom"]["isNew"], false);
        let _ = stack.client().login(&pair.grace.id).await.ok();

        // Also for processes that start on such a log.
        for service in Service::OWN {
            if service == Service::CommandApi || stack.options().layout == Layout::FourProcesses {
                stack.restart(service).await;
            }
        }
        dead_letters(&stack, 6).await;
        let fourth = pair.still_works().await;
        let mut socket = stack.socket(&pair.grace).await;
        socket.subscribe(&pair.room, Some(&third)).await;
        let pushed = socket.next_of_type("new message").await;
        assert_eq!(pushed["message"]["postId"], fourth.as_str());
        assert_eq!(pair.counts().await, (4, 3));

        // What they stand behind can be deleted all the same.
        let deleted = pair.ada.client.delete_room(&pair.room).await.ok();
        assert_eq!(deleted["deletedMessagesCount"], 4);
        let deleted = pair.ada.client.delete_user(&pair.grace.id).await.ok();
        assert_eq!(deleted["message"], "Deleted a count of 1 user.");
    }

    /// The line of the event at this position, which is the same in both replays.
    async fn shown_in_replays(stack: &Stack, support: &Person, position: &str) -> Value {
        let streamed = support
            .client
            .audit_events(&format!("from={position}&to={position}"))
            .await;
        let printed = stack.hansard(&["replay", "--from", position, "--to", position]);
        assert!(printed.status.success(), "{printed:?}");
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), streamed.text);
        assert_eq!(streamed.text.lines().count(), 1, "{}", streamed.text);
        let line = streamed.ok();
        assert_eq!(line["position"], position);
        assert_eq!(line.get("event"), None);
        line
    }

    on_every_stack!(Auth::Open; events_that_do_not_decode_are_set_aside);
}
