//! Medians and their like, honestly: each with its number of values, and ratios with their spread.

/// Fewer values than this have no 99th percentile: it would be the greatest under another name.
const ENOUGH_FOR_P99: usize = 100;
/// How often a ratio is worked out again from values drawn anew.
const RESAMPLES: usize = 2000;

/// What can be said of a set of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) median: u64,
    /// `None` of fewer than 100 values.
    pub(super) p99: Option<u64>,
    pub(super) max: u64,
}

/// Of a set that may be empty: then all is zero.
pub(super) fn summary(values: &[u64]) -> Summary {
    let sorted = sorted(values);
    Summary {
        median: quantile(&sorted, 500),
        p99: (sorted.len() >= ENOUGH_FOR_P99).then(|| quantile(&sorted, 990)),
        max: sorted.last().copied().unwrap_or_default(),
    }
}

pub(super) fn sorted(values: &[u64]) -> Vec<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
}

/// The value below which this share of all lies (nearest rank: always one of the values); zero of
/// nothing.
pub(super) fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    let rank = (sorted.len() * thousandths).div_ceil(1000).max(1) - 1;
    sorted.get(rank).copied().unwrap_or_default()
}

/// How many times as long one took as the other, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The ratio of the medians.
    pub(super) ratio: f64,
    /// 95 of 100 ratios of rounds drawn anew lie between this
    pub(super) low: f64,
    /// and this.
    pub(super) high: f64,
}

/// The ratio of the medians of two sets that were taken in the same rounds, with its spread: rounds
/// are drawn again and again, with replacement, both values of a round together (a bootstrap of
/// pairs: what disturbed a round disturbed both). `None` if there is nothing to divide by.
pub(super) fn ratio(of: &[u64], to: &[u64], random: &mut Random) -> Option<Spread> {
    let rounds = of.len().min(to.len());
    let ratio = divide(summary(of).median, summary(to).median)?;
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let drawn: Vec<usize> = (0..rounds).map(|_| random.below(rounds)).collect();
        let median = |set: &[u64]| {
            let values: Vec<u64> = drawn.iter().map(|&round| set[round]).collect();
            summary(&values).median
        };
        ratios.extend(divide(median(of), median(to)));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |thousandths: usize| {
        let rank = (ratios.len() * thousandths).div_ceil(1000).max(1) - 1;
        ratios.get(rank).copied().unwrap_or(ratio)
    };
    Some(Spread { ratio, low: at(25), high: at(975) })
}

fn divide(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| to_f64(of) / to_f64(to))
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn to_f64(ns: u64) -> f64 {
    ns as f64
}

/// Numbers that are the same for the same seed (SplitMix64): for orders and draws, not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or_default()
    }

    /// Puts things into another order.
    pub(super) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_set() {
        let values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(summary(&values), Summary { median: 100, p99: Some(198), max: 200 });
    }

    #[test]
    fn a_few_values_have_no_p99() {
        let values: Vec<u64> = (1..=99).collect();
        assert_eq!(summary(&values), Summary { median: 50, p99: None, max: 99 });
        assert_eq!(summary(&[7]), Summary { median: 7, p99: None, max: 7 });
        assert_eq!(summary(&[]), Summary { median: 0, p99: None, max: 0 });
    }

    #[test]
    fn a_ratio_lies_within_its_spread_and_is_the_same_for_the_same_seed() {
        let ours: Vec<u64> = (0..25).map(|n| 1_000 + n * 17 % 300).collect();
        let theirs: Vec<u64> = (0..25).map(|n| 30_000 + n * 911 % 9_000).collect();
        let one = ratio(&theirs, &ours, &mut Random::seeded(7)).unwrap();
        let same = ratio(&theirs, &ours, &mut Random::seeded(7)).unwrap();
        assert_eq!(one, same);
        assert!(one.low <= one.ratio && one.ratio <= one.high, "{one:?}");
        assert!(one.low > 25.0 && one.high < 40.0 && one.high > one.low, "{one:?}");
        let other = ratio(&theirs, &ours, &mut Random::seeded(8)).unwrap();
        assert_eq!(other.ratio, one.ratio, "the ratio itself is not drawn");
    }

    #[test]
    fn what_does_not_vary_has_no_spread_and_nothing_is_divided_by_nothing() {
        let random = &mut Random::seeded(1);
        let spread = ratio(&[10, 10], &[5, 5], random).unwrap();
        assert_eq!(spread, Spread { ratio: 2.0, low: 2.0, high: 2.0 });
        assert_eq!(ratio(&[10], &[], random), None);
        assert_eq!(ratio(&[10], &[0], random), None);
    }

    #[test]
    fn every_order_comes_and_each_thing_stays_once() {
        let random = &mut Random::seeded(42);
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut things = [0, 1, 2];
            random.shuffle(&mut things);
            orders.insert(things);
        }
        assert_eq!(orders.len(), 6, "{orders:?}");
    }
}
