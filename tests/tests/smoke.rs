//! The shortest way through everything: users, a room, a message, read back and pushed; and the harness's
//! own promises about processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use hansard_tests::{
    Auth, Backend, Layout, Options, Service, Stack, eventually, on_every_stack, run_with,
};
use reqwest::Method;

async fn a_message_is_posted_read_and_pushed(stack: Stack) {
    let ada = stack.person("Ada").await;
    let grace = stack.person("Grace").await;

    let room = ada
        .client
        .initiate(&[&grace.id], "consumer-to-consumer")
        .await
        .ok();
    assert_eq!(room["chatRoom"]["isNew"], true, "{room}");
    let room = room["chatRoom"]["chatRoomId"].as_str().unwrap().to_owned();

    let mut socket = stack.socket(&grace).await;
    socket.subscribe(&room, None).await;

    let posted = ada.client.post(&room, "Order, order!").await.ok();
    assert_eq!(posted["post"]["message"]["messageText"], "Order, order!");
    let message = posted["post"]["postId"].as_str().unwrap();

    let page = grace.client.conversation(&room, "").await.ok();
    assert_eq!(page["conversation"][0]["_id"], message, "{page}");
    assert_eq!(page["users"].as_array().unwrap().len(), 2);
    let recent = grace.client.conversations("").await.ok();
    assert_eq!(recent["conversation"][0]["messageId"], message, "{recent}");

    let pushed = socket.next_of_type("new message").await;
    assert_eq!(pushed["room"], room.as_str());
    assert_eq!(pushed["message"]["postId"], message);
}

async fn what_is_acknowledged_outlives_killed_processes(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let services = [
        Service::CommandApi,
        Service::Projector,
        Service::QueryApi,
        Service::GatewayWs,
        Service::Edge,
        Service::Nats,
    ];
    for service in services {
        if stack.has(service) {
            stack.kill(service);
            assert!(!stack.runs(service));
        }
    }
    for service in services.into_iter().rev() {
        if stack.has(service) && !stack.runs(service) {
            stack.spawn(service).await;
        }
    }
    for service in services {
        if stack.has(service) {
            stack.ready(service).await;
        }
    }
    let read = ada.client.user(&ada.id).await.ok();
    assert_eq!(read["user"]["firstName"], "Ada");
}

async fn services_stop_when_told_to(mut stack: Stack) {
    stack.leave_unverified("in the end nothing runs");
    for service in Service::OWN {
        if stack.runs(service) {
            let status = stack.terminate(service).await;
            assert!(status.success(), "{service:?}: {status}");
        }
    }
}

async fn a_body_over_hansards_limit_is_refused_by_hansard(stack: Stack) {
    let body = vec![b' '; 3 << 20];
    let answer = stack
        .client()
        .send_bytes(Method::POST, "/users", "application/json", body)
        .await;
    assert_eq!(answer.expect(413)["success"], false);
}

/// With the read models gone, commands are accepted; once they are back, everything can be read.
#[test]
fn a_killed_mongod_comes_back_with_everything() {
    let mut options = Options::new(Backend::Distributed, Layout::OneProcess, Auth::Open);
    options.own_mongod = true;
    run_with(options, async |mut stack: Stack| {
        let ada = stack.person("Ada").await;
        stack.kill(Service::Mongod);
        let grace = stack.person("Grace").await;
        stack.restart(Service::Mongod).await;
        eventually("both can be read", Duration::from_secs(60), || async {
            let read = |id: String| {
                let client = ada.client.clone();
                async move { client.user(&id).await.status == 200 }
            };
            (read(ada.id.clone()).await && read(grace.id.clone()).await).then_some(())
        })
        .await;
    });
}

on_every_stack!(
    Auth::Open;
    a_message_is_posted_read_and_pushed,
    what_is_acknowledged_outlives_killed_processes,
    services_stop_when_told_to,
    a_body_over_hansards_limit_is_refused_by_hansard,
);

mod with_tokens {
    use hansard_tests::on_every_stack;

    use super::a_message_is_posted_read_and_pushed;

    on_every_stack!(Auth::Token; a_message_is_posted_read_and_pushed);
}
