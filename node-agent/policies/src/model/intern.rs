//! Values that many pods have in common, kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Below this nothing is looked through.
const SWEEP_MIN: usize = 256;

/// Hands out one shared value for all that are equal, and forgets those that nobody has any more.
#[derive(Debug)]
pub(super) struct Interner<T: ?Sized> {
    known: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: SWEEP_MIN,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    pub(super) fn take(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (2 * self.known.len()).max(SWEEP_MIN);
        }
        self.known.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_forgotten_ones_go() {
        let mut interner = Interner::<str>::default();
        let kept = interner.take("kept".into());
        for number in 0..10 * SWEEP_MIN {
            drop(interner.take(format!("{number}").into()));
        }
        assert!(Arc::ptr_eq(&kept, &interner.take("kept".into())));
        assert!(interner.known.len() <= SWEEP_MIN + 1, "{}", interner.known.len());
    }
}
