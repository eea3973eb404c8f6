//! Read models that are made anew, projectors that take over from each other, and events that can't be
//! projected: as operators meet them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Output;
use std::time::Duration;

use event_log::{Expect, NewEvent};
use events::{Subject, UserId};
use hansard_tests::{
    Layout, Person, Service, Stack, Writer, eventually, on_every_stack, read_all, room_of,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use uuid::Uuid;

/// How long a rebuild, or taking over, may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Somebody's answers, by what was asked.
type Answers = Vec<(String, String)>;

/// A command that has to succeed; what it printed.
fn done(output: &Output) -> String {
    let [told, errors] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(output.status.success(), "{told}{errors}");
    told.into_owned()
}

/// People, rooms, and everything that can happen in them.
struct Town {
    people: Vec<Person>,
    rooms: Vec<String>,
}

impl Town {
    async fn new(stack: &Stack) -> Self {
        let mut people = Vec::new();
        for name in ["Ada", "Grace", "Hedy", "Mary"] {
            people.push(stack.person(name).await);
        }
        let [ada, grace, hedy, mary] = &people[..] else {
            unreachable!()
        };
        let mut rooms = vec![
            room_of(ada, &[grace]).await,
            room_of(ada, &[grace, hedy, mary]).await,
            room_of(hedy, &[mary]).await,
        ];
        for (number, room) in rooms.iter().enumerate() {
            let mut posts = Vec::new();
            for post in 0..13 {
                let author = [ada, hedy][usize::from(number == 2)];
                let posted = author
                    .client
                    .post(room, &format!("word{post} für alle"))
                    .await;
                posts.push(posted.ok()["post"]["postId"].as_str().unwrap().to_owned());
            }
            let reader = [grace, mary][usize::from(number == 2)];
            let _ = reader.client.mark_read_up_to(room, &posts[5]).await.ok();
            let _ = [ada, hedy][usize::from(number == 2)]
                .client
                .delete_message(&posts[12])
                .await
                .ok();
        }
        let doomed = room_of(ada, &[hedy]).await;
        let _ = ada.client.post(&doomed, "soon gone").await.ok();
        let _ = ada.client.delete_room(&doomed).await.ok();
        let _ = stack.operator().delete_user(&mary.id).await.ok();
        rooms.push(doomed);
        Self { people, rooms }
    }

    /// What everybody gets to read, on every route, to the byte.
    async fn answers(&self) -> Answers {
        let mut paths = vec![
            "/users".to_owned(),
            "/room".to_owned(),
            "/room?limit=1".to_owned(),
        ];
        paths.extend(self.people.iter().map(|it| format!("/users/{}", it.id)));
        for room in &self.rooms {
            for query in ["", "?limit=3", "?page=2&limit=3", "?limit=100"] {
                paths.push(format!("/room/{room}{query}"));
            }
        }
        for query in ["word3", "für alle", "word12", "absent"] {
            paths.push(format!(
                "/search?q={}",
                query.replace('ü', "%C3%BC").replace(' ', "+")
            ));
        }
        let mut answers = Vec::new();
        // The last one has been deleted.
        for person in &self.people[..3] {
            for path in &paths {
                let answer = person.client.get(path).await;
                // That of a refusal names the request.
                let text = match answer.status.is_success() {
                    true => answer.text.clone(),
                    false => answer.json["message"].to_string(),
                };
                answers.push((format!("{}: {path}", person.id), text));
            }
        }
        answers
    }
}

async fn a_rebuild_changes_no_answer_and_stops_nobody(stack: Stack) {
    let stack = stack.with_positions();
    let town = Town::new(&stack).await;
    let before = town.answers().await;
    // Others go on meanwhile.
    let [zoe, yan] = [stack.person("Zoe").await, stack.person("Yan").await];
    let room = room_of(&zoe, &[&yan]).await;
    let writer = Writer::start(&zoe.client, &room, "meanwhile");
    writer.go_on(1).await;

    let told = tokio::task::block_in_place(|| done(&stack.hansard(&["rebuild"])));
    assert!(
        told.starts_with(
            "generation 2 is live: it has the same content as generation 1 at position "
        ),
        "{told}"
    );
    writer.go_on(1).await;
    let said = writer.stop().await;
    let users = |answers: &Answers| -> Answers {
        // There are more users now.
        let others = answers
            .iter()
            .filter(|(asked, _)| !asked.ends_with("/users"));
        others.cloned().collect()
    };
    assert_eq!(users(&town.answers().await), users(&before));
    assert_eq!(read_all(&yan.client, &room).await, said);
    // The next one replaces that one.
    let told = tokio::task::block_in_place(|| done(&stack.hansard(&["rebuild"])));
    assert!(told.starts_with("generation 3 is live: "), "{told}");
}

async fn nothing_but_the_log_is_needed(mut stack: Stack) {
    let town = Town::new(&stack).await;
    eventually("everything is projected", LONG, || async {
        let answer = town.people[0]
            .client
            .conversation(&town.rooms[0], "limit=100")
            .await;
        // The last thing that happens in it.
        (answer.json["conversation"][12]["deleted"] == true).then_some(())
    })
    .await;
    let before = town.answers().await;
    let services = [Service::CommandApi, Service::QueryApi, Service::Projector];
    for service in services {
        if stack.runs(service) {
            stack.kill(service);
        }
    }
    stack.remove_read_models().await;
    let told = tokio::task::block_in_place(|| done(&stack.hansard(&["rebuild"])));
    assert!(told.contains("and it is what the log gives"), "{told}");
    for service in services {
        if !stack.runs(service) {
            stack.restart(service).await;
        }
    }
    assert_eq!(town.answers().await, before);
}

async fn another_projector_takes_over(mut stack: Stack) {
    if stack.options().layout == Layout::OneProcess {
        // There is no projector of its own to kill.
        return;
    }
    let stack = &mut stack;
    let [ada, grace] = [stack.person("Ada").await, stack.person("Grace").await];
    let room = room_of(&ada, &[&grace]).await;
    let seen = async |text: &str| {
        let posted = ada.client.post(&room, text).await;
        let position = posted.header("hansard-position").to_owned();
        let _ = posted.ok();
        let client = grace.client.with_header("hansard-position", &position);
        eventually("what was posted is seen", LONG, || async {
            let answer = client.conversation(&room, "limit=1").await;
            (answer.status == 200).then_some(())
        })
        .await;
    };
    let standby = stack.replica(Service::Projector).await;
    seen("the first leads").await;
    stack.kill(Service::Projector);
    seen("the second leads").await;
    assert_eq!(standby.get("/health/ready").await.status, 200);

    // Started again, the first stands by; then it leads again while the second is paused, and when that
    // wakes up it must do no harm.
    stack.restart(Service::Projector).await;
    seen("still the second").await;
    stack.signal_replica(Signal::SIGSTOP);
    seen("the first again").await;
    stack.signal_replica(Signal::SIGCONT);
    for number in 0..20 {
        seen(&format!("both are there {number}")).await;
    }
    eventually("both are ready", LONG, || async {
        let answers = [
            standby.get("/health/ready").await,
            stack.direct(Service::Projector).get("/health/ready").await,
        ];
        answers.iter().all(|it| it.status == 200).then_some(())
    })
    .await;
}

async fn an_event_that_cant_be_projected_is_shown_and_tried_again(mut stack: Stack) {
    stack.leave_unverified("an event that can't be projected is in the log");
    let ada = stack.person("Ada").await;
    assert_eq!(done(&stack.hansard(&["dead-letters", "list"])), "");
    let retry = done(&stack.hansard(&["dead-letters", "retry"]));
    assert_eq!(retry.trim_end(), "there are no dead letters");

    let log = stack.open_log().await;
    let event = NewEvent {
        subject: Subject::User(UserId::from_uuid(Uuid::from_u128(7))),
        deduplication_id: Uuid::now_v7(),
        payload: b"{\"no\": \"envelope\"}".as_slice().into(),
    };
    let position = log.append(event, Expect::Any).await.unwrap().position;
    // The rest goes on.
    let grace = stack.person("Grace").await;
    let room = room_of(&ada, &[&grace]).await;
    let _ = ada.client.post(&room, "after it").await.ok();
    eventually("the event is set aside", LONG, || async {
        let told = done(&stack.hansard(&["dead-letters", "list"]));
        told.starts_with(&position.to_string()).then_some(())
    })
    .await;
    let json = done(&stack.hansard(&["dead-letters", "list", "--json"]));
    let listed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed["position"], position.to_string());
    let shown = done(&stack.hansard(&["dead-letters", "show", &position.to_string()]));
    assert!(shown.contains("{\"no\": \"envelope\"}"), "{shown}");
    let missing = stack.hansard(&["dead-letters", "show", "00000000000000ff"]);
    assert_eq!(missing.status.code(), Some(1));
    let projector = stack.direct(Service::Projector);
    eventually("it is reported", LONG, || async {
        let ready = projector.get("/health/ready").await;
        assert_eq!(ready.status, 200, "{}", ready.text);
        let note = ready.json["checks"]["deadLetters"]["note"]
            .as_str()?
            .to_owned();
        note.starts_with("1 event could not be projected")
            .then_some(())
    })
    .await;
    let figures = projector.get("/metrics").await.text;
    assert!(figures.contains("hansard_dead_letters 1"), "{figures}");

    let told = tokio::task::block_in_place(|| done(&stack.hansard(&["dead-letters", "retry"])));
    assert!(told.ends_with("1 of 1 dead letters are left\n"), "{told}");
}

async fn a_rebuild_can_be_given_up(stack: Stack) {
    let _ = stack.person("Ada").await;
    let output = stack.hansard(&["rebuild", "--cancel"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("there is no unfinished rebuild"),
        "{errors}"
    );
}

on_every_stack!(
    Auth::Open;
    a_rebuild_changes_no_answer_and_stops_nobody,
    nothing_but_the_log_is_needed,
    another_projector_takes_over,
    an_event_that_cant_be_projected_is_shown_and_tried_again,
    a_rebuild_can_be_given_up,
);
