//! Who is first changes from round to round, by a seed that is printed.

use stillpoint_tests::random::Random;

/// Orders that a printed seed gives again.
#[derive(Debug)]
pub struct Order(Random);

impl Order {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// `0..count` in another order.
    pub fn of(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..count).collect();
        self.0.shuffle(&mut all);
        all
    }
}
