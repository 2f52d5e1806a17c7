//! Random numbers of a seed, each use with a stream of its own.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A stream of random numbers. Clones draw from the same one.
#[derive(Clone, Debug)]
pub(crate) struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// The stream of a seed for one use.
    pub(crate) fn new(seed: u64, usage: &str) -> Chance {
        let usage = u64::from(crc32fast::hash(usage.as_bytes()));
        Chance(Arc::new(Mutex::new(StdRng::seed_from_u64(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ usage,
        ))))
    }

    /// A number in a range that is not empty.
    pub(crate) fn number(&self, range: Range<u64>) -> u64 {
        self.draw(|rng| rng.random_range(range))
    }

    /// True once in so many times.
    pub(crate) fn one_in(&self, times: u64) -> bool {
        self.number(0..times.max(1)) == 0
    }

    /// True so often of a thousand times.
    pub(crate) fn permille(&self, chance: u64) -> bool {
        self.number(0..1000) < chance
    }

    /// One of several; none of none.
    pub(crate) fn pick<T: Clone>(&self, choices: &[T]) -> Option<T> {
        if choices.is_empty() {
            return None;
        }
        Some(choices[self.number(0..choices.len() as u64) as usize].clone())
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
