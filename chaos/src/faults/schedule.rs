//! When which fault comes, all of it from the seed.

use std::fmt;
use std::time::Duration;

use hansard_tests::{Member, Service, Trouble};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::faults::proxy::Weather;
use crate::faults::{Fault, Harm, Link};

/// How far clocks jump at most, in seconds, either way. Less than tokens of the run are valid.
const FURTHEST_JUMP: i64 = 3600;
/// How many faults come together at most.
const MOST_AT_ONCE: usize = 3;

/// What can go wrong with a stack.
#[derive(Debug, Clone)]
pub struct Menu {
    /// The processes that can be killed: servers, and Hansard's own.
    pub services: Vec<Service>,
    /// Those of them that are Hansard's own.
    pub own: Vec<Service>,
    /// The ways that can be cut.
    pub links: Vec<Link>,
    /// Whether clocks can be moved.
    pub clocks: bool,
    /// Whether the disk can be filled.
    pub disk: bool,
    /// What a cluster adds; `None` where there is none.
    pub cluster: Option<Cluster>,
}

/// What else can go wrong with a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Whether its hosts are on a network of their own, which can be troubled.
    pub network: bool,
}

/// A fault, and when it begins and ends, since the beginning of its round.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// When it begins.
    pub after: Duration,
    /// How long it lasts.
    pub lasts: Duration,
}

/// Faults that come together, or one alone. Between rounds everything recovers.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// What comes, in the order in which it begins.
    pub faults: Vec<Planned>,
}

/// Rounds without end: each fault singly, in any order, with a mixed round after each.
#[derive(Debug)]
pub struct Schedule {
    menu: Menu,
    random: StdRng,
    /// How long a fault lasts at most.
    longest: Duration,
    /// The faults still to come singly.
    singly: Vec<Fault>,
    mix_next: bool,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn new(menu: Menu, random: StdRng, longest: Duration) -> Self {
        Self {
            menu,
            random,
            longest,
            singly: Vec::new(),
            mix_next: false,
        }
    }

    /// The next round.
    pub fn next_round(&mut self) -> Round {
        let mut faults = Vec::new();
        if self.mix_next {
            let most = self.random.random_range(2..=MOST_AT_ONCE);
            let mut all = self.every_fault();
            all.shuffle(&mut self.random);
            // What takes turns goes with nothing.
            all.retain(|it| !it.takes_turns());
            for fault in all {
                let fits = faults.iter().all(|it: &Fault| !it.excludes(&fault));
                if fits && faults.len() < most {
                    faults.push(fault);
                }
            }
        } else {
            if self.singly.is_empty() {
                self.singly = self.every_fault();
                self.singly.shuffle(&mut self.random);
            }
            faults.extend(self.singly.pop());
        }
        self.mix_next = !self.mix_next;
        let mut faults: Vec<Planned> = faults.into_iter().map(|fault| self.plan(fault)).collect();
        faults.sort_by_key(|it| it.after);
        Round { faults }
    }

    fn plan(&mut self, fault: Fault) -> Planned {
        let longest = u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX);
        let lasts = self.random.random_range(longest / 10..=longest);
        Planned {
            fault,
            after: Duration::from_millis(self.random.random_range(0..longest / 3)),
            lasts: Duration::from_millis(lasts),
        }
    }

    /// Each fault once, with what is left to chance decided anew.
    fn every_fault(&mut self) -> Vec<Fault> {
        let mut all = vec![Fault::Rebuild];
        let mut order = self.menu.services.clone();
        order.shuffle(&mut self.random);
        all.push(Fault::PowerCut(order));
        // A cluster's servers are chosen by what they do, and of Hansard's own one has to stand for all.
        let single: Vec<Service> = match self.menu.cluster {
            None => self.menu.services.clone(),
            Some(_) => self
                .menu
                .own
                .choose(&mut self.random)
                .copied()
                .into_iter()
                .collect(),
        };
        for service in &single {
            all.extend([
                Fault::Kill(*service),
                Fault::Terminate(*service),
                Fault::Pause(*service),
            ]);
        }
        for link in &self.menu.links {
            let probability = *[0.2, 0.05, 0.01].choose(&mut self.random).unwrap_or(&0.05);
            all.extend([
                Fault::Weather(*link, Weather::Resets(probability)),
                Fault::Weather(*link, Weather::Cut),
                Fault::Weather(*link, Weather::Silent),
            ]);
        }
        if self.menu.clocks {
            for service in &self.menu.own {
                let seconds = self.random.random_range(-FURTHEST_JUMP..=FURTHEST_JUMP);
                all.push(Fault::ClockJump(*service, seconds));
            }
        }
        if self.menu.disk {
            all.push(Fault::FullDisk);
        }
        if let Some(cluster) = &self.menu.cluster {
            all.extend([Fault::RollServers, Fault::RollHansard]);
            all.extend(cluster.harms());
        }
        all
    }
}

impl Cluster {
    /// What can happen to each member. Whoever leads suffers everything.
    fn harms(&self) -> impl Iterator<Item = Fault> {
        let troubles = move |member| match (self.network, member) {
            (false, _) => &[][..],
            (true, Member::LogLeader | Member::Primary) => &Trouble::ALL[..],
            (true, Member::LogFollower | Member::Secondary) => &Trouble::ALL[..1],
        };
        Member::ALL.into_iter().flat_map(move |member| {
            let troubles = troubles(member).iter().map(|it| Harm::Trouble(*it));
            let harms = [Harm::Kill, Harm::Pause].into_iter().chain(troubles);
            harms.map(move |harm| Fault::Member(member, harm))
        })
    }
}

impl Round {
    /// A fault alone, at once and for so long.
    #[must_use]
    pub fn single(fault: Fault, lasts: Duration) -> Self {
        let after = Duration::ZERO;
        Self {
            faults: vec![Planned {
                fault,
                after,
                lasts,
            }],
        }
    }

    /// When what begins and ends, in this order: `true` with what begins.
    #[must_use]
    pub fn turns(&self) -> Vec<(Duration, bool, &Fault)> {
        let turns = self.faults.iter().flat_map(|it| {
            [
                (it.after, true, &it.fault),
                (it.after + it.lasts, false, &it.fault),
            ]
        });
        let mut turns: Vec<_> = turns.collect();
        turns.sort_by_key(|(at, _, _)| *at);
        turns
    }
}

impl fmt::Display for Round {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, planned) in self.faults.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            let (from, to) = (planned.after, planned.after + planned.lasts);
            let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
            write!(
                formatter,
                "{separator}{} ({from:.1} to {to:.1} s)",
                planned.fault
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn schedule(seed: u64, cluster: Option<Cluster>) -> Schedule {
        let menu = Menu {
            services: vec![Service::Nats, Service::CommandApi, Service::Projector],
            own: vec![Service::CommandApi, Service::Projector],
            links: vec![Link::Clients, Link::Log],
            clocks: true,
            disk: true,
            cluster,
        };
        Schedule::new(menu, StdRng::seed_from_u64(seed), Duration::from_secs(8))
    }

    fn rounds(mut schedule: Schedule) -> Vec<Round> {
        (0..100).map(|_| schedule.next_round()).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same() {
        let rounds = |seed| rounds(schedule(seed, None));
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn every_fault_comes_singly_and_mixed_ones_never_exclude_each_other() {
        for cluster in [None, Some(Cluster { network: true })] {
            let mut all = schedule(7, cluster.clone());
            // Which of Hansard's own stands for all is left to chance.
            let of_own = |fault: &Fault| {
                cluster.is_some()
                    && matches!(
                        fault,
                        Fault::Kill(_) | Fault::Terminate(_) | Fault::Pause(_)
                    )
            };
            let mut missing: Vec<Fault> = all.every_fault();
            missing.retain(|it| !of_own(it));
            let mut missing: Vec<String> = missing.iter().map(Fault::kind).collect();
            for round in rounds(schedule(7, cluster.clone())) {
                if let [single] = &round.faults[..] {
                    missing.retain(|it| *it != single.fault.kind());
                } else {
                    assert!((2..=MOST_AT_ONCE).contains(&round.faults.len()), "{round}");
                }
                for (index, one) in round.faults.iter().enumerate() {
                    for other in &round.faults[index + 1..] {
                        assert!(!one.fault.excludes(&other.fault), "{round}");
                    }
                }
            }
            assert!(missing.is_empty(), "{missing:?}");
        }
    }
}
