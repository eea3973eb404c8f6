//! The API's description: that it is one, has every route with its refusals, and that what it promises is
//! what is answered.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use hansard_tests::{Answer, Auth, Backend, Layout, Service, Stack, TestClient, run};
use reqwest::Method;
use serde_json::{Value, json};

/// Every route of the contract and of Hansard's own, with the statuses that the other suites see.
const OPERATIONS: [(&str, &str, &[u16]); 25] = [
    ("post", "/login/{userId}", &[200, 400, 404, 503]),
    ("get", "/users", &[200, 400, 401, 503]),
    ("post", "/users", &[200, 400, 401, 403, 413, 415, 422, 503]),
    ("get", "/users/{id}", &[200, 400, 401, 404, 503]),
    ("delete", "/users/{id}", &[200, 400, 401, 403, 422, 503]),
    (
        "post",
        "/users/{id}/erase",
        &[200, 400, 401, 403, 404, 409, 422, 503],
    ),
    (
        "post",
        "/room/initiate",
        &[200, 400, 401, 413, 415, 422, 503],
    ),
    (
        "post",
        "/room/{roomId}/message",
        &[200, 400, 401, 403, 404, 413, 415, 422, 503],
    ),
    (
        "patch",
        "/room/{roomId}/message/{messageId}",
        &[200, 400, 401, 403, 404, 413, 415, 422, 503],
    ),
    (
        "put",
        "/room/{roomId}/hold",
        &[200, 400, 401, 403, 404, 413, 415, 422, 503],
    ),
    (
        "delete",
        "/room/{roomId}/hold",
        &[200, 400, 401, 403, 404, 422, 503],
    ),
    ("get", "/room", &[200, 400, 401, 403, 404, 503]),
    ("get", "/room/{roomId}", &[200, 400, 401, 403, 404, 503]),
    ("get", "/search", &[200, 400, 401, 403, 404, 503]),
    (
        "put",
        "/room/{roomId}/mark-read",
        &[200, 400, 401, 403, 404, 413, 415, 422, 503],
    ),
    (
        "delete",
        "/delete/room/{roomId}",
        &[200, 400, 401, 403, 409, 422, 503],
    ),
    (
        "delete",
        "/delete/message/{messageId}",
        &[200, 400, 401, 403, 422, 503],
    ),
    ("get", "/ws", &[101]),
    ("get", "/changes", &[200, 400, 401, 409, 429, 503]),
    ("get", "/audit/events", &[200, 400, 401, 403, 503]),
    ("get", "/audit/export", &[200, 400, 401, 403, 404, 503]),
    ("get", "/audit/checkpoint", &[200, 401, 403, 503]),
    (
        "get",
        "/audit/proof/{messageId}",
        &[200, 400, 401, 403, 404, 503],
    ),
    ("get", "/audit/consistency", &[200, 400, 401, 403, 503]),
    (
        "get",
        "/room/{roomId}/message/{messageId}/history",
        &[200, 400, 401, 403, 404, 503],
    ),
];

#[test]
fn the_api_is_described_as_it_is() {
    run(
        Backend::Embedded,
        Layout::OneProcess,
        Auth::Open,
        async |stack: Stack| {
            let client = stack.client();
            let answer = client.get("/openapi.json").await;
            assert_eq!(answer.header("content-type"), "application/json");
            let document = answer.ok();
            assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
            assert_eq!(document["info"]["title"], "Hansard");
            every_operation_has_its_answers(&document);
            references_lead_somewhere(&document, &document);
            answers_are_as_described(&stack, &document).await;
            the_page_for_people_needs_nothing_else(&client).await;
        },
    );
}

#[test]
fn every_service_serves_the_description() {
    run(
        Backend::Embedded,
        Layout::FourProcesses,
        Auth::Open,
        async |stack: Stack| {
            let document = stack.client().get("/openapi.json").await.ok();
            for service in Service::OWN {
                let answer = stack.direct(service).get("/openapi.json").await;
                assert_eq!(answer.ok(), document, "{service:?}");
            }
            the_page_for_people_needs_nothing_else(&stack.client()).await;
        },
    );
}

fn every_operation_has_its_answers(document: &Value) {
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.insert((method.as_str(), path.as_str()));
        }
    }
    let expected = OPERATIONS.iter().map(|(method, path, _)| (*method, *path));
    assert_eq!(described, expected.collect());

    for (method, path, statuses) in OPERATIONS {
        let operation = &document["paths"][path][method];
        let place = format!("{method} {path}");
        assert!(operation["operationId"].is_string(), "{place}");
        assert!(
            !operation["summary"].as_str().unwrap_or_default().is_empty(),
            "{place}"
        );
        let responses = operation["responses"].as_object().unwrap();
        for status in statuses {
            let response = responses.get(&status.to_string());
            let response = response.unwrap_or_else(|| panic!("{place} says nothing of {status}"));
            assert!(
                !response["description"].as_str().unwrap().is_empty(),
                "{place} {status}"
            );
            if *status < 400 {
                continue;
            }
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{place} {status}");
        }
        for parameter in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let name = parameter.trim_end_matches('}');
            let parameters = operation["parameters"].as_array().unwrap();
            let found = parameters
                .iter()
                .find(|it| it["in"] == "path" && it["name"] == name);
            assert_eq!(found.unwrap()["required"], true, "{place}");
        }
    }
    let rooms = &document["paths"]["/room"]["get"]["parameters"];
    let names: BTreeSet<&str> = rooms
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    for name in [
        "page",
        "limit",
        "before",
        "after",
        "asOf",
        "user",
        "Hansard-Position",
    ] {
        assert!(names.contains(name), "GET /room says nothing of {name}");
    }
    assert_eq!(
        document["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );
}

fn references_lead_somewhere(part: &Value, document: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                let pointer = reference
                    .strip_prefix('#')
                    .expect("references stay in the document");
                assert!(
                    document.pointer(pointer).is_some(),
                    "{reference} leads nowhere"
                );
            }
            members
                .values()
                .for_each(|part| references_lead_somewhere(part, document));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|part| references_lead_somewhere(part, document)),
        _ => {}
    }
}

/// Calls every route, rightly and wrongly, and compares each answer with what its operation's description
/// says of that status.
async fn answers_are_as_described(stack: &Stack, document: &Value) {
    let (ada, grace, eve) = (
        stack.person("Ada").await,
        stack.person_of_type("Grace", "support").await,
        stack.person("Eve").await,
    );
    let client = &ada.client;
    let anyone = stack.client();
    let user = json!({"firstName": "A", "lastName": "B", "type": "support"});
    let room = json!({"userIds": [grace.id], "type": "consumer-to-support"});
    let initiated = client
        .send(Method::POST, "/room/initiate", Some(room))
        .await;
    let room = initiated.json["chatRoom"]["chatRoomId"]
        .as_str()
        .unwrap()
        .to_owned();
    let posted = client.post(&room, "x").await;
    let message = posted.json["post"]["postId"].as_str().unwrap().to_owned();
    let nobody = "0".repeat(32);
    let path_of_message = format!("/room/{room}/message/{message}");
    let text = json!({"messageText": "y"});
    let (hold, reason) = (format!("/room/{room}/hold"), json!({"reason": "a case"}));
    let erase = format!("/users/{}/erase", stack.person("Carl").await.id);
    let as_of = format!("asOf={message}");
    let everything = format!("after={}&wait=20", "0".repeat(16));

    let answers: Vec<(&str, &str, Vec<Answer>)> = vec![
        (
            "post",
            "/login/{userId}",
            vec![
                anyone.login(&ada.id).await,
                anyone.login(&nobody).await,
                anyone.login("%FF").await,
            ],
        ),
        (
            "post",
            "/users",
            vec![
                anyone.send(Method::POST, "/users", Some(user)).await,
                anyone.send(Method::POST, "/users", None).await,
                anyone
                    .send_bytes(Method::POST, "/users", "text/plain", "x")
                    .await,
            ],
        ),
        ("get", "/users", vec![anyone.users().await]),
        (
            "get",
            "/users/{id}",
            vec![
                anyone.user(&ada.id).await,
                anyone.user(&nobody).await,
                anyone.user("%FF").await,
            ],
        ),
        (
            "post",
            "/room/initiate",
            vec![
                initiated,
                client.initiate(&[], "x").await,
                anyone.initiate(&[], "x").await,
            ],
        ),
        (
            "post",
            "/room/{roomId}/message",
            vec![
                posted,
                client.post(&room, "").await,
                anyone.post(&room, "x").await,
                eve.client.post(&room, "x").await,
                client.post(&nobody, "x").await,
                client
                    .send_bytes(
                        Method::POST,
                        &format!("/room/{room}/message"),
                        "text/plain",
                        "x",
                    )
                    .await,
                client
                    .send(
                        Method::POST,
                        &format!("/room/{room}/message"),
                        Some(json!({"messageText": "x".repeat(1 << 20)})),
                    )
                    .await,
                client
                    .with_header("idempotency-key", "once")
                    .post(&room, "x")
                    .await,
                client
                    .with_header("idempotency-key", "once")
                    .post(&room, "y")
                    .await,
            ],
        ),
        (
            "get",
            "/room",
            vec![
                client.conversations("").await,
                client.conversations("page=-1").await,
                client.conversations(&as_of).await,
                client
                    .conversations(&format!("{as_of}&user={nobody}"))
                    .await,
                anyone.conversations("").await,
                client
                    .with_header("hansard-position", &"f".repeat(16))
                    .conversations("")
                    .await,
            ],
        ),
        (
            "get",
            "/room/{roomId}",
            vec![
                client.conversation(&room, "").await,
                client.conversation(&room, "limit=-1").await,
                client.conversation(&room, &as_of).await,
                anyone.conversation(&room, "").await,
                eve.client.conversation(&room, "").await,
                client.conversation(&nobody, "").await,
            ],
        ),
        (
            "get",
            "/room/{roomId}/message/{messageId}/history",
            vec![
                client.history(&room, &message).await,
                client
                    .with_header("hansard-position", "x")
                    .history(&room, &message)
                    .await,
                anyone.history(&room, &message).await,
                eve.client.history(&room, &message).await,
                client.history(&room, "x").await,
            ],
        ),
        (
            "get",
            "/search",
            vec![
                client.search(&[("q", "x")]).await,
                client.search(&[("q", "?")]).await,
                anyone.search(&[("q", "x")]).await,
                eve.client.search(&[("q", "x"), ("room", &room)]).await,
                client.search(&[("q", "x"), ("room", &nobody)]).await,
            ],
        ),
        (
            "put",
            "/room/{roomId}/mark-read",
            vec![
                grace.client.mark_read(&room).await,
                client.mark_read_up_to(&room, "x").await,
                anyone.mark_read(&room).await,
                eve.client.mark_read(&room).await,
                client.mark_read(&nobody).await,
            ],
        ),
        (
            "get",
            "/changes",
            vec![
                client.changes("").await,
                client.changes(&everything).await,
                client.changes("limit=0").await,
                anyone.changes("").await,
                client.changes("after=ffffffffffffffff").await,
            ],
        ),
        (
            "get",
            "/audit/events",
            vec![
                anyone.audit_events("").await,
                client.audit_events("from=x").await,
            ],
        ),
        (
            "get",
            "/audit/export",
            vec![
                anyone.get("/audit/export").await,
                client.get("/audit/export").await,
            ],
        ),
        (
            "get",
            "/audit/checkpoint",
            vec![anyone.get("/audit/checkpoint").await],
        ),
        (
            "get",
            "/audit/proof/{messageId}",
            vec![
                anyone.get("/audit/proof/x").await,
                client.get("/audit/proof/x").await,
            ],
        ),
        (
            "get",
            "/audit/consistency",
            vec![
                anyone.get("/audit/consistency").await,
                client.get("/audit/consistency?from=x").await,
            ],
        ),
        (
            "patch",
            "/room/{roomId}/message/{messageId}",
            vec![
                client
                    .send(Method::PATCH, &path_of_message, Some(text))
                    .await,
            ],
        ),
        (
            "get",
            "/room/{roomId}/message/{messageId}/history",
            vec![client.get(&format!("{path_of_message}/history")).await],
        ),
        (
            "put",
            "/room/{roomId}/hold",
            vec![client.send(Method::PUT, &hold, Some(reason)).await],
        ),
        (
            "delete",
            "/room/{roomId}/hold",
            vec![client.send(Method::DELETE, &hold, None).await],
        ),
        (
            "post",
            "/users/{id}/erase",
            vec![client.send(Method::POST, &erase, None).await],
        ),
        (
            "get",
            "/audit/export",
            vec![anyone.get("/audit/export").await],
        ),
        (
            "get",
            "/audit/checkpoint",
            vec![anyone.get("/audit/checkpoint").await],
        ),
        (
            "get",
            "/audit/proof/{messageId}",
            vec![anyone.get(&format!("/audit/proof/{message}")).await],
        ),
        (
            "get",
            "/audit/consistency",
            vec![anyone.get("/audit/consistency").await],
        ),
        (
            "delete",
            "/delete/message/{messageId}",
            vec![anyone.delete_message(&message).await],
        ),
        (
            "delete",
            "/delete/room/{roomId}",
            vec![anyone.delete_room(&room).await],
        ),
        (
            "delete",
            "/users/{id}",
            vec![anyone.delete_user(&eve.id).await],
        ),
    ];
    let mut seen: BTreeMap<(&str, &str), BTreeSet<u16>> = BTreeMap::new();
    for (method, path, answers) in &answers {
        for answer in answers {
            let status = answer.status.as_u16();
            let place = format!("{method} {path} {status}");
            let response = &document["paths"][path][method]["responses"][status.to_string()];
            let content_type = answer.header("content-type");
            let schema = &response["content"][content_type]["schema"];
            assert!(
                schema.is_object(),
                "{place} with {content_type} is not described"
            );
            fits(&answer.json, schema, document, &place);
            seen.entry((method, path)).or_default().insert(status);
        }
    }
    assert_eq!(seen.len(), OPERATIONS.len() - 1, "all but the WebSocket");
    let conversation = BTreeSet::from([200, 400, 401, 403, 404]);
    assert_eq!(seen[&("get", "/room/{roomId}")], conversation);
}

/// Whether a value is what a schema says, as far as this API's schemas go: types, members, items, and no
/// member that is not described.
fn fits(value: &Value, schema: &Value, document: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        return fits(value, schema, document, place);
    }
    let alternatives = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if let Some(alternatives) = alternatives {
        // Objects are told apart by their `type`, as frames are.
        let is_meant = |it: &&Value| match &it["properties"]["type"]["enum"] {
            Value::Array(names) => names.contains(&value["type"]),
            _ => it["type"] != "null",
        };
        let fitting = alternatives.iter().find(is_meant);
        if !value.is_null() {
            fits(value, fitting.unwrap(), document, place);
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&found), "{place}: {value} is no {types:?}");
    if let Value::Array(items) = value {
        for (index, item) in items.iter().enumerate() {
            fits(
                item,
                &schema["items"],
                document,
                &format!("{place}[{index}]"),
            );
        }
    }
    if let Value::Object(members) = value {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            assert!(
                members.contains_key(name),
                "{place}: {name} is missing in {value}"
            );
        }
        for (name, member) in members {
            let place = format!("{place}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Null) => panic!("{place} is not described"),
                (Value::Null, others) => fits(member, others, document, &place),
                (described, _) => fits(member, described, document, &place),
            }
        }
    }
}

/// The page and everything it loads come from Hansard itself.
async fn the_page_for_people_needs_nothing_else(client: &TestClient) {
    let page = client.get("/docs/").await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(
        page.header("content-type").starts_with("text/html"),
        "{:?}",
        page.headers
    );
    let mut parts = vec![page.text.clone()];
    let mut loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for rest in page.text.split(attribute).skip(1) {
            let target = rest.split('"').next().unwrap();
            assert!(!target.contains("//"), "the page refers to {target}");
            let path = target.trim_start_matches("./");
            let answer = client.get(&format!("/docs/{path}")).await;
            assert_eq!(answer.status, 200, "{target}");
            loaded += 1;
            if target.ends_with("initializer.js") || target.ends_with("index.css") {
                parts.push(answer.text);
            }
        }
    }
    assert!(loaded >= 3, "the page loads its styles and programs");
    for part in parts {
        assert!(
            !part.contains("://"),
            "the page refers to another host: {part}"
        );
    }
    // Also without the slash, and what it shows is the description.
    let answer = client.get("/docs").await;
    assert_eq!(
        answer.status, 200,
        "a client that follows redirects gets the page"
    );
    let initializer = client.get("/docs/swagger-initializer.js").await;
    assert!(
        initializer.text.contains("/openapi.json"),
        "{}",
        initializer.text
    );
}
