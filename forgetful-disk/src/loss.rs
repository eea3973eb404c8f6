//! What becomes of what was not synced.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// How often a page that reaches the disk does so in part.
const TORN: f64 = 0.1;

/// What a power cut takes. What was not synced is not gone for sure: kernel and disk write it in their own
/// time and order, so any of it may be there.
#[derive(Debug, Clone)]
pub enum Loss {
    /// Everything that was not synced.
    Everything,
    /// Some of it, by chance: whole pages, single sectors, changes of names, lengths without content.
    Some(Box<Chance>),
}

/// The choices of one power cut.
#[derive(Debug, Clone)]
pub struct Chance {
    random: StdRng,
    /// How likely each piece is to have reached the disk.
    kept: f64,
}

impl Loss {
    /// The power cut of a seed: every fourth takes everything, the others some of it.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        if random.random_ratio(1, 4) {
            return Self::Everything;
        }
        let kept = random.random();
        Self::Some(Box::new(Chance { random, kept }))
    }

    /// Whether something that was not synced is there.
    pub(crate) fn keeps(&mut self) -> bool {
        match self {
            Self::Everything => false,
            Self::Some(chance) => chance.random.random_bool(chance.kept),
        }
    }

    /// Whether a page that is there is there in part only.
    pub(crate) fn tears(&mut self) -> bool {
        match self {
            Self::Everything => false,
            Self::Some(chance) => chance.random.random_bool(TORN),
        }
    }

    /// How many of so many things that reach the disk in their order are there.
    pub(crate) fn first_of(&mut self, number: usize) -> usize {
        match self {
            Self::Everything => 0,
            Self::Some(chance) => chance.random.random_range(0..=number),
        }
    }
}
