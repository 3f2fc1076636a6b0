//! Order by chance: spreads clients that take the first address over all of them.

use std::hash::{BuildHasher, RandomState};

/// A small generator (xorshift64*), seeded by the process. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Shuffle(u64);

impl Default for Shuffle {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0u8) | 1)
    }
}

impl Shuffle {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        usize::try_from((high * limit as u64) >> 32).expect("below the limit")
    }

    /// Leaves at most `most` of the items, any of them, in any order.
    pub(crate) fn front<T>(&mut self, items: &mut Vec<T>, most: usize) {
        let len = items.len();
        for at in 0..most.min(len) {
            items.swap(at, at + self.below(len - at));
        }
        items.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_first_as_often() {
        let mut shuffle = Shuffle::default();
        let mut first = [0; 10];
        for _ in 0..10_000 {
            let mut items: Vec<usize> = (0..10).collect();
            shuffle.front(&mut items, 3);
            assert_eq!(items.len(), 3);
            first[items[0]] += 1;
        }
        assert!(first.iter().all(|n| (800..1200).contains(n)), "{first:?}");
    }

    #[test]
    fn fewer_items_than_wanted_stay_all() {
        let mut items = vec![1, 2];
        Shuffle::default().front(&mut items, 5);
        items.sort_unstable();
        assert_eq!(items, [1, 2]);
    }
}
