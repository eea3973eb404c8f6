//! Who the people in a transcript are: their names as they were when they were created.

use std::collections::BTreeMap;

use event_log::{Filter, LogError, Position};
use events::{Event, Names, UserId, UserType};
use futures::{StreamExt, TryStreamExt, stream};
use keys::Record;
use serde::{Deserialize, Serialize};

/// How many users are read from the log at once.
const CONCURRENT_READS: usize = 16;

/// Somebody who appears in a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    /// `None` for somebody whom the log does not know, or who has been erased.
    pub(crate) names: Option<Names>,
    /// `None` for somebody whom the log does not know: of the firm's back office.
    #[serde(rename = "type")]
    pub(crate) user_type: Option<UserType>,
    /// Whether the person has been erased.
    pub(crate) erased: bool,
}

/// The people in a transcript.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct People(BTreeMap<UserId, Person>);

impl People {
    /// What the record says of these users up to and with a position.
    pub(crate) async fn look_up(
        record: &Record,
        ids: impl IntoIterator<Item = UserId>,
        up_to: Position,
    ) -> Result<Self, LogError> {
        let people = stream::iter(ids).map(|id| person(record, id, up_to));
        let people = people.buffer_unordered(CONCURRENT_READS);
        let people: Vec<Person> = people.try_collect().await?;
        Ok(people.into_iter().collect())
    }

    /// These people, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Person> {
        self.0.values()
    }

    /// What to call somebody, as it was given: by name, and by the beginning of the id as well where the name
    /// does not tell who it is.
    pub(crate) fn name(&self, id: UserId) -> String {
        let person = self.0.get(&id);
        let Some(person) = person.filter(|person| person.user_type.is_some()) else {
            return id.to_string();
        };
        let own = full_name(person);
        let is_unique = self.iter().filter(|it| full_name(it) == own).count() == 1;
        match own {
            None => format!("[erased] ({})", short(id)),
            Some(name) if name.is_empty() => id.to_string(),
            Some(name) if is_unique => name,
            Some(name) => format!("{name} ({})", short(id)),
        }
    }

    pub(crate) fn is_erased(&self, id: UserId) -> bool {
        self.0.get(&id).is_some_and(|person| person.erased)
    }

    pub(crate) fn user_type(&self, id: UserId) -> Option<UserType> {
        self.0.get(&id)?.user_type
    }
}

impl FromIterator<Person> for People {
    fn from_iter<I: IntoIterator<Item = Person>>(people: I) -> Self {
        Self(people.into_iter().map(|it| (it.id, it)).collect())
    }
}

fn full_name(person: &Person) -> Option<String> {
    let names = person.names.as_ref()?;
    let name = format!("{} {}", names.first_name, names.last_name);
    Some(name.trim().to_owned())
}

fn short(id: UserId) -> String {
    id.to_string()[..8].to_owned()
}

async fn person(record: &Record, id: UserId, up_to: Position) -> Result<Person, LogError> {
    let mut person = Person {
        id,
        names: None,
        user_type: None,
        erased: false,
    };
    let mut events = record.log.read(Filter::User(id), Position::ZERO).await?;
    while let Some(recorded) = events.try_next().await? {
        if recorded.position > up_to {
            break;
        }
        let Ok(envelope) = record.decode(&recorded).await? else {
            continue;
        };
        match envelope.event {
            // The first counts: another one repeats a request.
            Event::UserCreated(event) if person.user_type.is_none() => {
                person.names = event.names;
                person.user_type = Some(event.user_type);
            }
            Event::UserErased(_) => person.erased = true,
            _ => {}
        }
    }
    if person.erased {
        person.names = None;
    }
    Ok(person)
}
