//! What was measured in several runs, as median and spread.

use std::time::Duration;

use serde::Serialize;

/// A figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// In the order in which they were measured.
    pub runs: Vec<f64>,
    /// The median; of an even number of runs the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Figure {
    /// Of one or more runs; of none, not a number.
    pub fn of(runs: Vec<f64>) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            least: at(0),
            most: at(last),
            runs,
        }
    }

    /// How many a second, of so many that took so long in each run.
    pub fn rate(count: u64, taken: impl Iterator<Item = Duration>) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let count = count as f64;
        Self::of(taken.map(|taken| count / taken.as_secs_f64()).collect())
    }

    /// How many times `other` this is, run by run.
    pub fn over(&self, other: &Self) -> Self {
        let ratios = self.runs.iter().zip(&other.runs);
        Self::of(ratios.map(|(one, other)| one / other).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_what_was_measured_in_the_same_run() {
        let ratio = Figure::of(vec![8.0, 3.0]).over(&Figure::of(vec![2.0, 3.0]));
        assert_eq!(ratio.runs, [4.0, 1.0]);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |runs: &[f64]| {
            let figure = Figure::of(runs.to_vec());
            (figure.least, figure.median, figure.most)
        };
        assert_eq!(of(&[7.0]), (7.0, 7.0, 7.0));
        assert_eq!(of(&[9.0, 1.0, 2.0]), (1.0, 2.0, 9.0));
        assert_eq!(of(&[9.0, 1.0, 2.0, 4.0]), (1.0, 3.0, 9.0));
    }
}
