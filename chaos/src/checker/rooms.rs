//! Which rooms there were at each time.

use std::collections::{HashMap, HashSet};

use crate::checker::About;
use crate::evidence::{Evidence, Happening};

pub(super) fn one_room(evidence: &Evidence) -> Vec<(String, About)> {
    let mut of_members: HashMap<&[String], (&str, u64)> = HashMap::new();
    let mut ever: HashSet<&str> = HashSet::new();
    let mut broken = Vec::new();
    for logged in &evidence.log {
        let position = logged.position;
        match &logged.happening {
            Happening::RoomInitiated { room, members } => {
                if !ever.insert(room) {
                    broken.push((
                        format!("room {room} is initiated again at {position}"),
                        About::position(position).and_room(Some(room)),
                    ));
                } else if let Some((other, since)) = of_members.get(members.as_slice()) {
                    broken.push((
                        format!(
                            "room {room} is initiated at {position}, and its members have room {other} since {since}"
                        ),
                        About::position(position).and_positions([*since]),
                    ));
                }
                of_members.insert(members, (room, position));
            }
            Happening::RoomDeleted { room } => {
                of_members.retain(|_, (live, _)| live != room);
            }
            _ => {}
        }
    }
    broken
}
