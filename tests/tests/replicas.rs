//! Two gateways side by side: what holds at one holds at the other, and what one leaves behind when it
//! ends, killed or not, the other makes good.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hansard_tests::{
    Auth, Backend, Layout, Options, Person, Service, Stack, WsClient, eventually, room_of, run_with,
};
use serde_json::{Value, json};

/// How long a gateway may take to come to what has just happened, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(60);

/// The position before the first event.
const BEGINNING: &str = "0000000000000000";

const GATEWAYS: [Service; 2] = [Service::GatewayWs, Service::SecondGatewayWs];

macro_rules! with_two_gateways {
    ($($module:ident $backend:ident: $($scenario:ident),+;)+) => {
        $(mod $module {
            $(
                #[test]
                fn $scenario() {
                    super::two_gateways(super::Backend::$backend, super::$scenario);
                }
            )+
        })+
    };
}

with_two_gateways! {
    embedded Embedded:
        what_ends_a_subscription_ends_it_everywhere,
        a_shutdown_sends_the_clients_to_the_other_gateway_one_by_one;
    distributed Distributed:
        what_ends_a_subscription_ends_it_everywhere,
        a_shutdown_sends_the_clients_to_the_other_gateway_one_by_one,
        typing_is_seen_at_the_other_gateway,
        presence_is_right_again_after_a_gateway_was_killed;
}

fn two_gateways<F: Future<Output = ()>>(backend: Backend, scenario: impl FnOnce(Stack) -> F) {
    let mut options = Options::new(backend, Layout::FourProcesses, Auth::Token);
    options.second_gateway = true;
    run_with(options, scenario);
}

async fn at(stack: &Stack, gateway: Service, person: &Person) -> WsClient {
    WsClient::connect(&stack.ws_url_of(gateway), Some(&person.token)).await
}

/// Subscribes to everything of the person; gives the answer.
async fn follow(socket: &mut WsClient, more: Value) -> Value {
    let mut frame = more;
    frame["type"] = json!("subscribe");
    socket.send(frame).await;
    socket.next_of_type("subscribed").await
}

/// A room of two that both gateways have come to: before that, whoever subscribes to all rooms is still told
/// that it was created.
async fn known_room(stack: &Stack, one: &Person, other: &Person) -> String {
    let room = room_of(one, &[other]).await;
    for gateway in GATEWAYS {
        eventually("the gateway knows the room", RECOVERY, || async {
            let mut socket = at(stack, gateway, other).await;
            follow(&mut socket, json!({"room": room, "after": BEGINNING})).await;
            let replayed = socket.next_of_type("replayed").await;
            (replayed["count"] == 1).then_some(())
        })
        .await;
    }
    room
}

async fn what_ends_a_subscription_ends_it_everywhere(stack: Stack) {
    let [ada, grace] = [stack.person("Ada").await, stack.person("Grace").await];
    let room = known_room(&stack, &ada, &grace).await;
    let mut sockets = Vec::new();
    for gateway in GATEWAYS {
        let mut one_room = at(&stack, gateway, &grace).await;
        one_room.subscribe(&room, None).await;
        let mut all_rooms = at(&stack, gateway, &grace).await;
        follow(&mut all_rooms, json!({})).await;
        sockets.extend([one_room, all_rooms]);
    }
    // A token that is about to expire, on each gateway.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({
        "userId": grace.id, "userType": "consumer", "iat": now.as_secs(), "exp": now.as_secs() + 5,
    });
    let short = stack.sign(&claims);
    let [mut here, mut there] = [
        WsClient::connect(&stack.ws_url_of(GATEWAYS[0]), Some(&short)).await,
        WsClient::connect(&stack.ws_url_of(GATEWAYS[1]), Some(&short)).await,
    ];
    for socket in [&mut here, &mut there] {
        follow(socket, json!({})).await;
    }
    for socket in [&mut here, &mut there] {
        assert_eq!(socket.closed().await, Some(4001));
    }

    let _ = stack.operator().delete_room(&room).await.ok();
    for socket in &mut sockets {
        let frame = socket.next().await;
        assert_eq!(frame["type"], "room deleted", "{frame}");
        socket
            .send(json!({"type": "subscribe", "room": room}))
            .await;
        assert_eq!(socket.next().await["code"], "unknown_room");
    }
    let _ = grace.client.delete_user(&grace.id).await.ok();
    for socket in &mut sockets {
        assert_eq!(socket.closed().await, Some(4003));
    }
    for gateway in GATEWAYS {
        let mut socket = at(&stack, gateway, &grace).await;
        assert_eq!(socket.closed().await, Some(4001));
    }
}

async fn a_shutdown_sends_the_clients_to_the_other_gateway_one_by_one(mut stack: Stack) {
    const SOCKETS: usize = 20;
    let [ada, grace] = [stack.person("Ada").await, stack.person("Grace").await];
    let room = known_room(&stack, &ada, &grace).await;
    let mut sockets = Vec::new();
    let mut cursor = String::new();
    for _ in 0..SOCKETS {
        let mut socket = at(&stack, Service::SecondGatewayWs, &grace).await;
        let position = follow(&mut socket, json!({})).await["position"].clone();
        cursor = format!("{}-{}", position.as_str().unwrap(), socket.log);
        sockets.push(socket);
    }
    let before = ada.client.post(&room, "before").await.ok()["post"]["postId"].clone();
    let expected = &before;
    let closing = sockets.into_iter().map(|mut socket| async move {
        assert_eq!(socket.next().await["message"]["postId"], *expected);
        assert_eq!(socket.closed().await, Some(1001));
        Instant::now()
    });
    let closed = futures::future::join_all(closing.collect::<Vec<_>>());
    let (closed, status) = tokio::join!(closed, stack.terminate(Service::SecondGatewayWs));
    assert!(status.success(), "{status}");
    let first = closed.iter().min().unwrap();
    let spread = closed.iter().max().unwrap().duration_since(*first);
    // They are told to come back one by one, within a few seconds.
    assert!(spread > Duration::from_millis(1000), "{spread:?}");

    let mut socket = at(&stack, Service::GatewayWs, &grace).await;
    let subscribed = follow(&mut socket, json!({"after": cursor})).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    assert_eq!(socket.next().await["message"]["postId"], before);
    assert_eq!(socket.next().await["count"], 1);
}

async fn typing_is_seen_at_the_other_gateway(stack: Stack) {
    let [ada, grace] = [stack.person("Ada").await, stack.person("Grace").await];
    let room = room_of(&ada, &[&grace]).await;
    let mut of_ada = at(&stack, Service::GatewayWs, &ada).await;
    let mut of_grace = at(&stack, Service::SecondGatewayWs, &grace).await;
    follow(&mut of_grace, json!({})).await;
    // What is not in the log is told once the subscription has caught up with it.
    let _ = ada.client.post(&room, "hello").await.ok();
    of_grace.next_of_type("new message").await;
    for state in ["start", "stop"] {
        of_ada
            .send(json!({"type": "typing", "room": room, "state": state}))
            .await;
        let expected = json!({"type": "typing", "room": room, "user": ada.id, "state": state});
        assert_eq!(of_grace.next().await, expected);
    }
}

async fn presence_is_right_again_after_a_gateway_was_killed(mut stack: Stack) {
    let ada = stack.person("Ada").await;
    let [grace, hedy] = [stack.person("Grace").await, stack.person("Hedy").await];
    room_of(&ada, &[&grace, &hedy]).await;
    let status = |frame: &Value| (frame["user"].clone(), frame["status"].clone());
    let [here, there] = GATEWAYS;
    let mut of_ada = at(&stack, here, &ada).await;
    follow(&mut of_ada, json!({"presence": true})).await;
    for _ in [&grace, &hedy] {
        assert_eq!(of_ada.next().await["status"], "offline");
    }
    let _of_grace = at(&stack, there, &grace).await;
    let (grace_is, hedy_is) = (json!(grace.id), json!(hedy.id));
    assert_eq!(
        status(&of_ada.next().await),
        (grace_is.clone(), json!("online"))
    );
    let _of_hedy = at(&stack, there, &hedy).await;
    assert_eq!(
        status(&of_ada.next().await),
        (hedy_is.clone(), json!("online"))
    );

    stack.kill(there);
    let killed = Instant::now();
    // One comes back at once, to the other gateway: nobody sees that it was away.
    let mut of_grace = at(&stack, here, &grace).await;
    let frame = of_ada.next().await;
    assert_eq!(status(&frame), (hedy_is.clone(), json!("offline")));
    assert!(frame["lastSeen"].is_string(), "{frame}");
    assert!(
        killed.elapsed() < Duration::from_secs(15),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(of_ada.frames_until_pong().await, Vec::<Value>::new());

    // The gateway that is back learns who is connected to the other one, and since when who is not.
    stack.restart(there).await;
    let mut also_ada = at(&stack, there, &ada).await;
    let mut seen = Vec::new();
    follow(&mut also_ada, json!({"presence": true})).await;
    while seen.len() < 2
        || seen
            .iter()
            .any(|(user, is)| *user == grace_is && is == "offline")
    {
        let (user, is) = status(&also_ada.next().await);
        seen.retain(|(known, _)| *known != user);
        seen.push((user, is));
    }
    assert!(
        seen.contains(&(hedy_is.clone(), json!("offline"))),
        "{seen:?}"
    );
    let _of_hedy = at(&stack, there, &hedy).await;
    assert_eq!(status(&of_ada.next().await), (hedy_is, json!("online")));
    of_grace.send(json!({"type": "ping"})).await;
    assert_eq!(of_grace.next().await["type"], "pong");
}
