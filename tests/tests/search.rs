//! Searching: who finds what, in which order, and that nothing that is searched for does any harm.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use hansard_tests::{Layout, Person, Service, Shapes, Stack, eventually, on_every_stack, room_of};
use serde_json::{Value, json};

const NO_ROOM: &str = "No room exists for this id";
const NOT_A_MEMBER: &str = "only members of the room may do this";

async fn said(person: &Person, room: &str, text: &str) -> String {
    let answer = person.client.post(room, text).await.ok();
    answer["post"]["postId"].as_str().unwrap().to_owned()
}

fn ids(answer: &Value) -> Vec<String> {
    let messages = answer["messages"].as_array().unwrap();
    let ids = messages.iter().map(|it| it["_id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

async fn found(person: &Person, query: &str) -> Vec<String> {
    ids(&person.client.search(&[("q", query)]).await.ok())
}

async fn found_in(person: &Person, query: &str, room: &str) -> Vec<String> {
    let parameters = [("q", query), ("room", room)];
    ids(&person.client.search(&parameters).await.ok())
}

async fn members_find_what_is_there_and_nobody_else_does(stack: Stack) {
    let stack = stack.with_positions();
    // Given Ada, who talks with Grace and with Eve; they don't know each other.
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let eve = stack.person("Eve").await;
    let with_grace = room_of(&ada, &[&grace]).await;
    let with_eve = room_of(&ada, &[&eve]).await;
    let first = said(&ada, &with_grace, "Das Gespräch, Frau Hopper: morgen?").await;
    let second = said(&eve, &with_eve, "GESPRACH mit Ada").await;
    let third = said(&grace, &with_grace, "gespräch\tüber 東京の天気 (morgen)").await;
    let _ = ada.client.mark_read(&with_grace).await.ok();

    // Then each finds what is said in their own rooms, newest first.
    assert_eq!(found(&ada, "gespräch").await, [&*third, &second, &first]);
    assert_eq!(found(&ada, " Gesprach  MORGEN ").await, [&*third, &first]);
    assert_eq!(found(&ada, "東京").await, [&*third]);
    assert_eq!(found(&ada, "gespr").await, [""; 0]);
    assert_eq!(found(&grace, "gespräch").await, [&*third, &first]);
    assert_eq!(found(&eve, "gespräch").await, [&*second]);
    assert_eq!(found(&eve, "morgen").await, [""; 0]);
    assert_eq!(found_in(&ada, "gespräch", &with_eve).await, [&*second]);
    let answer = |room: &str| {
        let (client, room) = (eve.client.clone(), room.to_owned());
        async move { client.search(&[("q", "gespräch"), ("room", &room)]).await }
    };
    answer(&with_grace).await.refused(403, NOT_A_MEMBER);
    answer(&"0".repeat(32)).await.refused(404, NO_ROOM);
    answer("no id").await.refused(404, NO_ROOM);

    // A message is shown as in its conversation.
    let shown = ada.client.search(&[("q", "hopper")]).await.ok();
    let page = ada.client.conversation(&with_grace, "limit=2").await.ok();
    let expected = json!({
        "success": true,
        "messages": [page["conversation"][0]],
        "users": shown["users"],
    });
    assert_eq!(shown, expected);
    let shown = ada.client.search(&[("q", "東京")]).await.ok();
    assert_eq!(shown["messages"][0], page["conversation"][1]);
    assert_eq!(shown["users"], page["users"]);

    // When a message is deleted, and then a room, neither is found any more.
    let _ = grace.client.delete_message(&third).await.ok();
    assert_eq!(found(&ada, "gespräch").await, [&*second, &first]);
    let _ = eve.client.delete_room(&with_eve).await.ok();
    assert_eq!(found(&ada, "gespräch").await, [&*first]);
    assert_eq!(found(&eve, "gespräch").await, [""; 0]);
    answer(&with_eve).await.refused(404, NO_ROOM);

    // Nor when the same people meet again.
    let again = room_of(&ada, &[&eve]).await;
    let fourth = said(&ada, &again, "noch ein Gespräch").await;
    assert_eq!(found(&eve, "gespräch").await, [&*fourth]);
    // A deleted author's messages stay.
    let last = said(&grace, &with_grace, "Adieu").await;
    let _ = stack.operator().delete_user(&grace.id).await.ok();
    let shown = ada.client.search(&[("q", "adieu")]).await.ok();
    assert_eq!(ids(&shown), [&*last]);
    assert_eq!(shown["messages"][0]["postedByUser"]["deleted"], true);
    assert_eq!(shown["users"], json!([]));
}

async fn a_search_is_read_on_without_gap_or_repetition(stack: Stack) {
    let stack = stack.with_positions();
    let ada = stack.person("Ada").await;
    let mut rooms = Vec::new();
    for name in ["Grace", "Eve", "Mary"] {
        let other = stack.person(name).await;
        rooms.push(room_of(&ada, &[&other]).await);
    }
    let mut all = Vec::new();
    for number in 0..23 {
        let text = format!("needle {number}");
        all.push(said(&ada, &rooms[number % 3], &text).await);
        let _ = said(&ada, &rooms[number % 2], "hay").await;
    }
    all.reverse();
    for limit in ["1", "4", "23", "100"] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let before = seen.last().cloned();
            let mut parameters = vec![("q", "needle"), ("limit", limit)];
            parameters.extend(before.as_deref().map(|id| ("before", id)));
            let page = ids(&ada.client.search(&parameters).await.ok());
            assert!(page.len() <= limit.parse().unwrap());
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, all, "limit {limit}");
    }
    assert_eq!(found(&ada, "needle").await, all[..10]);
}

async fn a_search_waits_for_the_position_that_its_client_has_seen(mut stack: Stack) {
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let before = said(&ada, &room, "early word").await;
    let found_late = async |position: &str| {
        let client = grace.client.with_header("hansard-position", position);
        client.search(&[("q", "word")]).await
    };
    assert_eq!(ids(&found_late(&before).await.ok()), [&*before]);
    let far = "0fffffffffffffff";
    let late = "the read models have not reached the Hansard-Position yet; try again";
    found_late(far).await.refused(503, late);
    if stack.options().layout == Layout::OneProcess {
        return;
    }
    // Without a projector what is posted is not found; with one again, it is.
    stack.kill(Service::Projector);
    let after = said(&ada, &room, "late word").await;
    found_late(&after).await.refused(503, late);
    stack.restart(Service::Projector).await;
    let seen = eventually("the late word", Duration::from_secs(20), async || {
        let answer = found_late(&after).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(ids(&seen.ok()), [&*after, &before]);
}

async fn whatever_is_searched_for_is_words_and_nothing_else(stack: Stack) {
    let stack = stack.with_positions();
    let (ada, grace) = (stack.person("Ada").await, stack.person("Grace").await);
    let room = room_of(&ada, &[&grace]).await;
    let text = "alpha \"beta\" NEAR(gamma) $where: {delta} words:epsilon 👍 C:\\zeta\u{0}eta";
    let message = said(&ada, &room, text).await;
    for query in [
        "\"alpha",
        "\"alpha beta\"",
        "\"beta alpha\"",
        "alpha*",
        "NEAR(alpha gamma)",
        "-beta",
        "^alpha",
        "words:epsilon",
        "words : (alpha)",
        "$where",
        "{\"$where\": \"delta\"}",
        "alpha' -- beta",
        "alpha\" \"beta\"",
        "zeta\u{0}eta",
        "👍 alpha 👎",
        "\\zeta%_",
        "+alpha & beta;",
    ] {
        assert_eq!(found(&ada, query).await, [&*message], "{query}");
    }
    for query in [
        "alph*",
        "alp",
        "alpha OR nothing",
        "alpha NOT beta",
        "beta AND alpha",
        "room:1",
        "0",
        "$ne",
        "alphabeta",
        ".*a",
        "alpha\u{0}nothing",
    ] {
        assert_eq!(found(&ada, query).await, [""; 0], "{query}");
    }

    // What has no word in it, or too much, is refused, each with its reason.
    let wrong = async |parameters: &[(&str, &str)]| {
        let answer = ada.client.search(parameters).await;
        answer.wrong_fields()
    };
    let no_word = json!({"q": "please provide a word: letters or digits"});
    for query in ["\"", "*", "-", "()", "👍", "\u{0}", "\u{301}"] {
        assert_eq!(wrong(&[("q", query)]).await, no_word, "{query:?}");
    }
    assert_eq!(wrong(&[]).await, json!({"q": "please provide a string"}));
    assert_eq!(
        wrong(&[("q", " \t")]).await,
        json!({"q": "string cannot be empty"})
    );
    assert_eq!(
        wrong(&[("q", &"x".repeat(1025))]).await,
        json!({"q": "string cannot be longer than 1024 bytes"})
    );
    assert_eq!(found(&ada, &"x".repeat(1024)).await, [""; 0]);
    let many: Vec<String> = (0..65).map(|number| format!("w{number}")).collect();
    assert_eq!(
        wrong(&[("q", &many.join(" "))]).await,
        json!({"q": "string cannot have more than 64 words"})
    );
    assert_eq!(found(&ada, &many[1..].join(" ")).await, [""; 0]);
    for (name, value, reason) in [
        ("before", "x", "please provide a message id"),
        ("before", "", "please provide a message id"),
        (
            "after",
            message.as_str(),
            "a search goes back in time: use before",
        ),
        ("page", "1", "a search has no pages: use before"),
        ("page", "-1", "please provide a whole number, 0 or more"),
        ("limit", "1.5", "please provide a whole number, 0 or more"),
    ] {
        let errors = wrong(&[("q", "alpha"), (name, value)]).await;
        assert_eq!(errors, json!({name: reason}), "{name}={value}");
    }
    let both = wrong(&[("limit", "-1")]).await;
    assert_eq!(both.as_object().unwrap().len(), 2, "{both}");

    // So large that the edge refuses it before any service does.
    let answer = ada.client.search(&[("q", &"\"* ".repeat(4 << 10))]).await;
    let message = answer.json["message"].as_str().unwrap().to_owned();
    answer.refused(400, &message);
    let anybody = stack.client().search(&[("q", "alpha")]).await;
    anybody.refused(401, "No access token provided");
    assert_eq!(found(&grace, "alpha").await.len(), 1);
    Shapes::new().check(
        &grace.client.search(&[("q", "nothing")]).await.ok(),
        &json!({"success": true, "messages": [], "users": []}),
    );
}

on_every_stack!(
    Auth::Token;
    members_find_what_is_there_and_nobody_else_does,
    a_search_is_read_on_without_gap_or_repetition,
    a_search_waits_for_the_position_that_its_client_has_seen,
    whatever_is_searched_for_is_words_and_nothing_else,
);
