//! The soak: many clients that come and go, in every way that clients do, while people talk at full speed
//! and gateways are killed. At the end the log is read through the audit, and each client must have been
//! told exactly what happened in its rooms: everything, in order, nothing twice.
//!
//! `HANSARD_SOAK_SECONDS` says how long, `HANSARD_SOAK_SEED` repeats the choices of an earlier run (though
//! not what the machine made of them).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hansard_tests::{
    Auditor, Auth, Backend, Cursor, Follower, Following, Last, Layout, Lines, Options, Person,
    Plan, Said, Service, Stack, Tally, Told, Waits, Writer, run_with, until_acknowledged,
};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

const FOLLOWERS: usize = 200;
const PEOPLE: usize = 60;
const ROOMS: usize = 30;
/// Rooms that are initiated while people talk.
const LATE_ROOMS: usize = 10;
/// Rooms in which people talk at the same time.
const VOICES: usize = 8;
/// What those say at a time who say much.
const LOUD_BYTES: usize = 60 * 1024;
/// Bytes in which people have said something before anybody listens: more than a gateway remembers.
const HISTORY_BYTES: usize = 9 * 1024 * 1024;
/// People talk as fast as they are answered, but in turns: not more than this in the long run.
const POSTS_PER_SECOND: f64 = 150.0;
/// With so many bytes still to be told, over all followers, people are silent until some of them are. So the
/// soak asks of every machine all that it can do, and no more: else the followers on a slow one would be
/// further behind the longer it lasts, and hear the last word long after it.
const OWED_BYTES: usize = 150_000_000;
/// How long a follower may stay away: a multiple of the time that a gateway remembers of people at full
/// speed, which is about 10 s.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How much memory a gateway may take, in bytes. It has no reason to take more the longer this lasts.
const MOST_MEMORY: u64 = 500_000_000;
/// How often it is looked what followers have taken.
const LOOK: Duration = Duration::from_millis(100);
/// What a gateway remembers of the log: older events are replayed from the log itself.
const REMEMBERED_EVENTS: usize = 8192;
const REMEMBERED_BYTES: usize = 8 * 1024 * 1024;
/// How many events of the record are read at a time.
const PAGE: u64 = 4096;

/// How to soak.
#[derive(Debug, Clone, Copy)]
struct Settings {
    length: Duration,
    seed: u64,
}

impl Settings {
    fn from_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            let number: Result<u64, _> = text.parse();
            Some(number.unwrap_or_else(|_| panic!("{name} is no whole number: {text}")))
        };
        Self {
            length: Duration::from_secs(number("HANSARD_SOAK_SECONDS").unwrap_or(8)),
            seed: number("HANSARD_SOAK_SEED").unwrap_or_else(|| rand::rng().random()),
        }
    }
}

struct Room {
    id: String,
    /// Indexes of people.
    members: Vec<usize>,
    /// The position of each message, and how many bytes of text were said up to and with it.
    said: Vec<(u64, usize)>,
}

impl Room {
    fn bytes_after(&self, position: u64) -> usize {
        let index = self.said.partition_point(|(at, _)| *at <= position);
        let bytes_at = |index: usize| self.said.get(index).map_or(0, |(_, bytes)| *bytes);
        let last = self.said.len().wrapping_sub(1);
        bytes_at(last) - bytes_at(index.wrapping_sub(1))
    }

    fn add(&mut self, said: &[Said]) {
        for said in said {
            let before = self.said.last().map_or(0, |(_, bytes)| *bytes);
            let position = u64::from_str_radix(&said.id, 16).unwrap();
            self.said.push((position, before + said.text.len()));
        }
    }
}

/// A follower, as the people see it who talk.
struct Recipient {
    person: usize,
    following: Following,
    /// As [`Follower::start`] gives them.
    cursors: Vec<Cursor>,
}

impl Recipient {
    /// Up to where it has been told what is said in the room, if it is to be told.
    fn cursor_in(&self, room: &Room) -> Option<&Cursor> {
        let index = match &self.following {
            Following::Own { muted } => {
                let is_told = room.members.contains(&self.person) && !muted.contains(&room.id);
                is_told.then_some(0)
            }
            Following::Rooms(rooms) => rooms.iter().position(|it| *it == room.id),
        };
        self.cursors.get(index?)
    }
}

/// What was done, with the messages that may still be deleted or read up to.
#[derive(Default)]
struct Done {
    posts: usize,
    deletions: usize,
    reads: usize,
    late_rooms: usize,
    /// How long people were silent because of their followers.
    waited: Duration,
    /// The room's index, the author's, and the id.
    messages: Vec<(usize, usize, String)>,
}

/// The people and rooms of the soak.
struct Town {
    people: Vec<Person>,
    rooms: Vec<Room>,
    recipients: Vec<Recipient>,
    random: StdRng,
    done: Done,
}

impl Town {
    async fn new(stack: &Stack, random: StdRng) -> Self {
        let people = (0..PEOPLE).map(|number| async move {
            let mut person = stack.person(&format!("Person {number}")).await;
            // Nobody here waits for the read models.
            person.client = person.client.with_header("prefer", "respond-async");
            person
        });
        let mut town = Self {
            people: join_all(people).await,
            rooms: Vec::new(),
            recipients: Vec::new(),
            random,
            done: Done::default(),
        };
        for _ in 0..ROOMS {
            town.initiate().await;
        }
        town
    }

    /// One more room, of people who have none of their own yet.
    async fn initiate(&mut self) {
        let members = loop {
            let size = self.random.random_range(2..=8);
            let mut members = (0..PEOPLE).choose_multiple(&mut self.random, size);
            members.sort_unstable();
            if self.rooms.iter().all(|room| room.members != members) {
                break members;
            }
        };
        let others: Vec<&str> = members[1..]
            .iter()
            .map(|member| self.people[*member].id.as_str())
            .collect();
        let body = json!({"userIds": others, "type": "consumer-to-consumer"});
        let client = &self.people[members[0]].client;
        let answer = until_acknowledged(client, Method::POST, "/room/initiate", Some(body)).await;
        let id = answer["chatRoom"]["chatRoomId"].as_str().unwrap();
        self.rooms.push(Room {
            id: id.to_owned(),
            members,
            said: Vec::new(),
        });
    }

    /// People talk in some rooms, as fast as they can, until `while_talking` is over.
    async fn talk(&mut self, loud: usize, while_talking: impl AsyncFnOnce(&mut Self)) -> usize {
        let rooms = (0..self.rooms.len()).choose_multiple(&mut self.random, VOICES);
        let mut voices = Vec::new();
        for (number, room) in rooms.into_iter().enumerate() {
            let author = *self.rooms[room].members.choose(&mut self.random).unwrap();
            let mut name = format!("voice-{number} of {}", self.done.posts);
            if number < loud {
                name += &"!".repeat(LOUD_BYTES);
            }
            let client = &self.people[author].client;
            let writer = Writer::start(client, &self.rooms[room].id, &name);
            voices.push((room, author, writer));
        }
        while_talking(self).await;
        let mut posts = 0;
        for (room, author, writer) in voices {
            let said = writer.stop().await;
            posts += said.len();
            self.rooms[room].add(&said);
            let messages = said.into_iter().map(|said| (room, author, said.id));
            self.done.messages.extend(messages);
        }
        self.done.posts += posts;
        posts
    }

    /// Messages are read and deleted until then, a few in any case.
    async fn read_and_delete(&mut self, until: Instant) {
        let mut still = 3;
        while still > 0 || Instant::now() < until {
            still = still.max(1) - 1;
            if self.random.random_bool(0.3) && !self.done.messages.is_empty() {
                let index = self.random.random_range(0..self.done.messages.len());
                let (_, author, id) = self.done.messages.swap_remove(index);
                let path = format!("/delete/message/{id}");
                let client = &self.people[author].client;
                let _ = until_acknowledged(client, Method::DELETE, &path, None).await;
                self.done.deletions += 1;
            } else {
                let messages = self.done.messages.choose(&mut self.random);
                let named = messages.filter(|_| self.done.reads.is_multiple_of(2));
                let room = named.map_or_else(
                    || self.random.random_range(0..self.rooms.len()),
                    |(room, _, _)| *room,
                );
                let body = named.map(|(_, _, id)| json!({"upTo": id}));
                let room = &self.rooms[room];
                let reader = room.members.choose(&mut self.random).unwrap();
                let path = format!("/room/{}/mark-read", room.id);
                let client = &self.people[*reader].client;
                let _ = until_acknowledged(client, Method::PUT, &path, body).await;
                self.done.reads += 1;
            }
        }
    }

    /// How many bytes of texts all followers together have still to be told.
    fn owed(&self) -> usize {
        let owed = self.recipients.iter().flat_map(|recipient| {
            self.rooms.iter().filter_map(|room| {
                let cursor = recipient.cursor_in(room)?;
                Some(room.bytes_after(cursor.position()))
            })
        });
        owed.sum()
    }

    /// Waits until the followers have taken so much that there is more to be said, or until then.
    async fn wait_for_followers(&mut self, until: Instant) {
        let begun = Instant::now();
        while self.owed() > OWED_BYTES && Instant::now() < until {
            sleep(LOOK).await;
        }
        self.done.waited += begun.elapsed();
    }

    /// Everything that people do, until then.
    async fn live(&mut self, length: Duration) {
        let begun = Instant::now();
        let mut allowed_posts = 0.0;
        while begun.elapsed() < length {
            let turn = Duration::from_millis(self.random.random_range(200..1000));
            let until = Instant::now() + turn;
            let loud = match self.random.random_range(0..8) {
                0 => VOICES,
                1..5 => 1,
                _ => 0,
            };
            let turn = async |town: &mut Self| town.read_and_delete(until).await;
            #[allow(clippy::cast_precision_loss)]
            let posts = self.talk(loud, turn).await as f64;
            allowed_posts += posts;
            let share = begun.elapsed().as_secs_f64() / length.as_secs_f64();
            #[allow(clippy::cast_precision_loss)]
            while self.done.late_rooms < LATE_ROOMS
                && (self.done.late_rooms as f64) < share * LATE_ROOMS as f64
            {
                self.initiate().await;
                self.done.late_rooms += 1;
            }
            sleep_until(begun + Duration::from_secs_f64(allowed_posts / POSTS_PER_SECOND)).await;
            self.wait_for_followers(begun + length).await;
        }
    }

    /// A last message in each room; gives the position of the last of all.
    async fn last_words(&self) -> u64 {
        let posts = self.rooms.iter().map(|room| async move {
            let path = format!("/room/{}/message", room.id);
            let body = json!({"messageText": "the last word"});
            let client = &self.people[room.members[0]].client;
            let answer = until_acknowledged(client, Method::POST, &path, Some(body)).await;
            let id = answer["post"]["postId"].as_str().unwrap();
            u64::from_str_radix(id, 16).unwrap()
        });
        join_all(posts).await.into_iter().max().unwrap()
    }

    /// How a follower is to behave: those with even numbers have one subscription for all rooms.
    fn plan(&mut self, number: usize, urls: &[String], length: Duration) -> Plan {
        let person = number % PEOPLE;
        let own = self.rooms.iter().filter(|it| it.members.contains(&person));
        let own: Vec<String> = own.map(|room| room.id.clone()).collect();
        let following = if number.is_multiple_of(2) || own.is_empty() {
            let mut muted = BTreeSet::new();
            if number.is_multiple_of(8) && own.len() > 1 {
                muted.extend(own.choose(&mut self.random).cloned());
            }
            Following::Own { muted }
        } else {
            Following::Rooms(own)
        };
        Plan {
            name: format!("client {number} (of person {person})"),
            person: self.people[person].clone(),
            following,
            urls: urls.to_vec(),
            with_history: self.random.random_bool(0.25),
            reads_slowly: self.random.random_bool(0.2),
            longest_sleep: (length / 3).min(LONGEST_SLEEP),
            seed: self.random.random(),
        }
    }
}

/// What gateways went through.
#[derive(Debug, Default)]
struct Killed {
    gateways: usize,
    /// The most memory that one had, in bytes.
    memory: u64,
}

impl Killed {
    fn look_at(&mut self, stack: &Stack, gateway: Service) {
        self.memory = self
            .memory
            .max(stack.peak_memory(gateway).unwrap_or_default());
    }
}

/// Kills gateways and starts them again, until then.
async fn kill(
    stack: &mut Stack,
    gateways: &[Service],
    until: Instant,
    mut random: StdRng,
) -> Killed {
    let mut killed = Killed::default();
    loop {
        let pause = Duration::from_millis(random.random_range(500..3000));
        sleep_until((Instant::now() + pause).min(until)).await;
        if Instant::now() >= until {
            return killed;
        }
        // Sometimes all at once.
        let all = gateways.len() > 1 && random.random_bool(0.2);
        let victims: Vec<Service> = match all {
            true => gateways.to_vec(),
            false => gateways.choose(&mut random).copied().into_iter().collect(),
        };
        for victim in &victims {
            killed.look_at(stack, *victim);
            stack.kill(*victim);
            killed.gateways += 1;
        }
        sleep(Duration::from_millis(random.random_range(0..500))).await;
        for victim in &victims {
            stack.spawn(*victim).await;
        }
        for victim in &victims {
            stack.ready(*victim).await;
        }
    }
}

/// The log as the audit has it.
#[derive(Default)]
struct Record {
    events: usize,
    /// What each person is to be told, by the person's id.
    happened: HashMap<String, Vec<Told>>,
    /// The position and size of each event of a room.
    sizes: Vec<(u64, usize)>,
}

impl Record {
    async fn read(auditor: &Auditor, end: u64, lines: &Lines) -> Self {
        let mut record = Self::default();
        let mut members: HashMap<String, Vec<String>> = HashMap::new();
        let mut from = 1;
        while from <= end {
            let to = end.min(from + PAGE - 1);
            let page = auditor
                .events(&format!("from={from:016x}&to={to:016x}"))
                .await;
            for event in page {
                record.events += 1;
                if event["event"]["type"] == "room.initiated" {
                    let data = &event["event"]["data"];
                    let of_room = data["members"].as_array().unwrap().iter();
                    let of_room = of_room.map(text).collect();
                    members.insert(text(&data["roomId"]), of_room);
                }
                if let Some(told) = lines.of_record(&event) {
                    let bytes = event["event"].to_string().len();
                    record.sizes.push((told.position, bytes));
                    for member in &members[&*told.room] {
                        let happened = record.happened.entry(member.clone()).or_default();
                        happened.push(told.clone());
                    }
                }
            }
            from = to + 1;
        }
        record
    }

    fn last(&self) -> Last {
        let of_people = self.happened.iter().map(|(person, happened)| {
            let of_rooms = happened
                .iter()
                .map(|told| (told.room.to_string(), told.position));
            let of_rooms: BTreeMap<String, u64> = of_rooms.collect();
            (person.clone(), of_rooms)
        });
        Some(Arc::new(of_people.collect()))
    }

    /// Whether it takes more than a gateway remembers to replay this.
    fn is_beyond_memory(&self, (after, end): (u64, u64)) -> bool {
        let first = self.sizes.partition_point(|(at, _)| *at <= after);
        let last = self.sizes.partition_point(|(at, _)| *at <= end);
        let between = &self.sizes[first..last.max(first)];
        let bytes: usize = between.iter().map(|(_, bytes)| bytes).sum();
        between.len() > REMEMBERED_EVENTS || bytes > REMEMBERED_BYTES
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn nothing_is_missed(mut stack: Stack, gateways: &[Service]) {
    let Settings { length, seed } = Settings::from_environment();
    println!("HANSARD_SOAK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let begun = Instant::now();
    let auditor = Auditor::new(&stack).await;
    let mut town = Town::new(&stack, StdRng::seed_from_u64(random.random())).await;
    let mut history = 0;
    while history < HISTORY_BYTES {
        let until = Instant::now() + Duration::from_millis(200);
        let turn = async |_: &mut Town| sleep_until(until).await;
        history += LOUD_BYTES * town.talk(VOICES, turn).await;
    }

    let urls: Vec<String> = gateways.iter().map(|it| stack.ws_url_of(*it)).collect();
    let lines = Arc::new(Lines::default());
    let (tell_last, last) = watch::channel(None);
    let mut followers = Vec::new();
    for number in 0..FOLLOWERS {
        let plan = town.plan(number, &urls, length);
        let following = plan.following.clone();
        let (follower, cursors) = Follower::start(plan, &lines, &last);
        followers.push(follower);
        town.recipients.push(Recipient {
            person: number % PEOPLE,
            following,
            cursors,
        });
    }
    let prepared = begun.elapsed();
    let until = Instant::now() + length;
    let of_kills = StdRng::seed_from_u64(random.random());
    let ((), mut killed) = tokio::join!(
        town.live(length),
        kill(&mut stack, gateways, until, of_kills)
    );
    let end = town.last_words().await;
    let record = Record::read(&auditor, end, &lines).await;
    tell_last.send_replace(record.last());
    let told = begun.elapsed();
    let followers: Vec<Follower> = join_all(followers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for gateway in gateways {
        killed.look_at(&stack, *gateway);
    }

    let mut waits = Waits::default();
    let mut tally = Tally::default();
    let mut compared = 0;
    let mut from_log = 0;
    let mut differences = Vec::new();
    for follower in &followers {
        tally += follower.tally;
        waits.extend(&follower.waits);
        let resumptions = follower.resumptions.iter();
        from_log += resumptions
            .filter(|it| record.is_beyond_memory(**it))
            .count();
        let happened = record.happened.get(follower.person());
        let happened: Vec<&Told> = happened.into_iter().flatten().collect();
        match follower.compare(&happened) {
            Ok(events) => compared += events,
            Err(difference) => differences.push(difference),
        }
    }
    let done = &town.done;
    println!(
        "{:?}: {} clients, {} connections ({} closed by the client, {} hung up, {} broken, {} too slow; \
         {} more refused), {} subscriptions resumed, {} of them beyond a gateway's memory\n\
         {} gateways killed with -9 in {} s; one had up to {} MB of memory\n\
         subscribed after {}; replayed after {} more\n\
         {} messages posted, {} deleted, {} readings, {} rooms ({} of them late); {} events in the log\n\
         {:.1} s of silence because too much was still to be told\n\
         {} frames received ({} replayed), {} bytes; {compared} events compared, {} clients differ\n\
         {:.1} s to prepare, {:.1} s until the last word, {:.1} s in all",
        stack.options().backend,
        followers.len(),
        tally.connections,
        tally.closed,
        tally.hung_up,
        tally.broken,
        tally.too_slow,
        tally.refused,
        tally.resumed,
        from_log,
        killed.gateways,
        length.as_secs(),
        killed.memory / 1_000_000,
        spread(waits.answers),
        spread(waits.replays),
        done.posts + town.rooms.len(),
        done.deletions,
        done.reads,
        town.rooms.len(),
        done.late_rooms,
        record.events,
        done.waited.as_secs_f64(),
        tally.frames,
        tally.replayed,
        tally.bytes,
        differences.len(),
        prepared.as_secs_f64(),
        told.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
    );
    assert!(
        killed.memory < MOST_MEMORY,
        "a gateway had {} bytes of memory",
        killed.memory
    );
    // The shortest says it best.
    if let Some(shortest) = differences.iter().min_by_key(|it| it.len()) {
        panic!(
            "{} of {FOLLOWERS} clients were not told what happened (HANSARD_SOAK_SEED={seed}); {shortest}",
            differences.len(),
        );
    }
}

/// How long things took, in milliseconds.
fn spread(mut waits: Vec<Duration>) -> String {
    waits.sort_unstable();
    let at = |percent: usize| {
        let index = (waits.len() * percent / 100).min(waits.len().saturating_sub(1));
        waits.get(index).map_or(0, Duration::as_millis)
    };
    format!(
        "{} ms (half of {}), {} ms (99 %), {} ms (all)",
        at(50),
        waits.len(),
        at(99),
        at(100)
    )
}

#[test]
fn two_gateways_are_killed() {
    let mut options = Options::new(Backend::Distributed, Layout::FourProcesses, Auth::Open);
    options.second_gateway = true;
    run_with(options, |stack| {
        nothing_is_missed(stack, &[Service::GatewayWs, Service::SecondGatewayWs])
    });
}

#[test]
fn the_one_process_is_killed() {
    let options = Options::new(Backend::Embedded, Layout::OneProcess, Auth::Open);
    run_with(options, |stack| {
        nothing_is_missed(stack, &[Service::GatewayWs])
    });
}
