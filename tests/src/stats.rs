//! Medians and their like, honestly: each with its number of values.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A sorted set of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations(Vec<Duration>);

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }
}

impl Durations {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value below which this share of all lies (nearest rank); zero of nothing.
    #[must_use]
    pub fn quantile(&self, thousandths: usize) -> Duration {
        let rank = (self.0.len() * thousandths).div_ceil(1000).max(1) - 1;
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.quantile(500)
    }

    /// Of fewer than 100 values it is the greatest.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.quantile(990)
    }

    /// The greatest; zero of nothing.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// For a JSON file.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            n: self.count(),
            median_ms: millis(self.median()),
            p99_ms: millis(self.p99()),
            max_ms: millis(self.max()),
        }
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "median {:.2} ms, p99 {:.2} ms, max {:.2} ms (n={})",
            millis(self.median()),
            millis(self.p99()),
            millis(self.max()),
            self.count()
        )
    }
}

/// The numbers of a set of durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// The middle one.
    pub median_ms: f64,
    /// The 99th percentile; of fewer than 100 values the greatest.
    pub p99_ms: f64,
    /// The greatest.
    pub max_ms: f64,
}

/// Milliseconds with a fraction.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Durations;

    #[test]
    fn quantiles_are_values_of_the_set() {
        let durations: Durations = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(durations.median(), Duration::from_millis(100));
        assert_eq!(durations.p99(), Duration::from_millis(198));
        assert_eq!(durations.max(), Duration::from_millis(200));
    }

    #[test]
    fn the_p99_of_a_few_values_is_their_greatest() {
        let durations: Durations = [3, 1, 2].into_iter().map(Duration::from_millis).collect();
        assert_eq!(durations.p99(), durations.max());
        assert_eq!(durations.median(), Duration::from_millis(2));
        assert_eq!(Durations::default().median(), Duration::ZERO);
    }
}
