//! The people and rooms of a run, as they are before anything goes wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use hansard_tests::Stack;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use serde_json::json;
use uuid::Uuid;

use crate::client::{Addresses, Identity, Session};
use crate::follower::Plan;
use crate::history::{Action, Answer, Recorder};
use crate::recovery::Probe;
use crate::workload::Person;

/// How many people take part.
const PEOPLE: usize = 8;
/// How many rooms they share for the whole run, besides the one that everybody is in.
const ROOMS: usize = 4;
/// Longer than any clock jumps.
const TOKENS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// All of them.
#[derive(Debug)]
pub struct Town {
    /// Who take part.
    pub people: Vec<Person>,
    /// Who tries whether everything works.
    pub probe: Probe,
    /// How followers are to be started.
    pub plans: Vec<Plan>,
    /// Each room with the index of somebody who may say the last word in it.
    pub rooms: Vec<(String, usize)>,
}

/// Where things are.
#[derive(Debug)]
pub struct Places<'a> {
    /// For requests.
    pub addresses: &'a Addresses,
    /// The WebSockets' URLs.
    pub sockets: &'a [String],
}

fn token(stack: &Stack, user: &str, user_type: &str, role: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let claims = json!({
        "userId": user,
        "userType": user_type,
        "role": role,
        "iat": now.as_secs(),
        "exp": (now + TOKENS).as_secs(),
    });
    stack.sign(&claims)
}

impl Town {
    /// Founds it, on a stack that works.
    ///
    /// # Errors
    /// A user or a room can't be created.
    pub async fn found(
        stack: &Stack,
        places: &Places<'_>,
        recorder: &Arc<Recorder>,
        random: &mut StdRng,
    ) -> anyhow::Result<Self> {
        let office_id = Uuid::from_u128(random.random()).simple().to_string();
        let office_token = token(stack, &office_id, "support", "support");
        let office = |name: String, seed| {
            let identity = Identity {
                name,
                actor: office_id.clone(),
                token: office_token.clone(),
                careful: false,
                seed,
            };
            Session::new(identity, places.addresses, recorder)
        };
        let mut founder = office("founder".to_owned(), random.random())?;
        let mut ids = Vec::new();
        for number in 0..=PEOPLE {
            let name = format!("person {number}");
            match founder.command(Action::CreateUser { name }).await {
                Some(Answer::User { user }) => ids.push(user),
                other => bail!("a user can't be created: {other:?}"),
            }
        }
        let mut sessions = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            let identity = Identity {
                name: match number == PEOPLE {
                    true => "probe".to_owned(),
                    false => format!("person {number}"),
                },
                actor: id.clone(),
                token: token(stack, id, "consumer", "member"),
                // Half of them; and the probe, which wants to know.
                careful: number % 2 == 0,
                seed: random.random(),
            };
            sessions.push(Session::new(identity, places.addresses, recorder)?);
        }

        // Rooms of two come and go; these stay.
        let mut rooms: Vec<(String, Vec<usize>)> = Vec::new();
        while rooms.len() <= ROOMS {
            let mut members: Vec<usize> = match rooms.is_empty() {
                true => (0..=PEOPLE).collect(),
                false => {
                    let size = random.random_range(3..PEOPLE);
                    sample(random, PEOPLE, size).into_vec()
                }
            };
            members.sort_unstable();
            if rooms.iter().any(|(_, other)| *other == members) {
                continue;
            }
            let mut named: Vec<String> = members.iter().map(|it| ids[*it].clone()).collect();
            named.sort_unstable();
            let initiate = Action::Initiate { members: named };
            match sessions[members[0]].command(initiate).await {
                Some(Answer::Room { room }) => rooms.push((room, members)),
                other => bail!("a room can't be initiated: {other:?}"),
            }
        }

        let mut plans = Vec::new();
        let mut plan = |name: String, person: usize, room, random: &mut StdRng| {
            plans.push(Plan {
                name,
                person: ids[person].clone(),
                token: token(stack, &ids[person], "consumer", "member"),
                room,
                urls: places.sockets.to_vec(),
                seed: random.random(),
            });
        };
        for person in 0..PEOPLE {
            plan(format!("follower of person {person}"), person, None, random);
        }
        for (number, (room, members)) in rooms.iter().enumerate() {
            let name = format!("follower of room {number}");
            plan(name, members[0], Some(room.clone()), random);
        }

        let probe = sessions.pop().context("there is a probe")?;
        let mut people = Vec::new();
        for (number, own) in sessions.into_iter().enumerate() {
            let office = office(format!("office of person {number}"), random.random())?;
            let others = ids[..PEOPLE].iter().filter(|it| **it != own.actor);
            let others: Vec<String> = others.cloned().collect();
            let own_rooms = rooms
                .iter()
                .filter(|(_, members)| members.contains(&number));
            people.push(Person::new(
                own,
                office,
                others,
                own_rooms.map(|(room, _)| room.clone()).collect(),
                random.random(),
            ));
        }
        Ok(Self {
            people,
            probe: Probe::new(probe, rooms[0].0.clone()),
            plans,
            rooms: rooms
                .into_iter()
                .map(|(room, members)| (room, members[0]))
                .collect(),
        })
    }
}
