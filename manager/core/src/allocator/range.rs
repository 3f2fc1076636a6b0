//! Range: a set of numbers that remembers runs, not numbers.
//!
//! Reads:   nothing.
//! Writes:  itself.
//! Never:   walks from number to number: a full subnet is one entry.
//! Start:   [`RangeSet`].

use std::collections::BTreeMap;

/// A set of numbers: addresses, ports, blocks of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    /// First to last, both in the set; two runs never touch.
    runs: BTreeMap<u128, u128>,
}

impl RangeSet {
    /// The run that `n` is in.
    fn run_of(&self, n: u128) -> Option<(u128, u128)> {
        let (first, last) = self.runs.range(..=n).next_back().map(|(a, b)| (*a, *b))?;
        (last >= n).then_some((first, last))
    }

    /// `n` is in the set.
    pub(super) fn contains(&self, n: u128) -> bool {
        self.run_of(n).is_some()
    }

    /// Puts a number in.
    pub(super) fn insert(&mut self, n: u128) {
        self.insert_all(n, n);
    }

    /// Puts all from `first` to `last` in.
    pub(super) fn insert_all(&mut self, first: u128, last: u128) {
        let (mut first, mut last) = (first, last);
        if let Some((a, b)) = self.run_of(first.saturating_sub(1)) {
            (first, last) = (first.min(a), last.max(b));
        }
        let touched: Vec<u128> =
            self.runs.range(first..=last.saturating_add(1)).map(|(run, _)| *run).collect();
        for run in touched {
            last = last.max(self.runs.remove(&run).unwrap_or(last));
        }
        self.runs.insert(first, last);
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, n: u128) {
        let Some((first, last)) = self.run_of(n) else { return };
        self.runs.remove(&first);
        if first < n {
            self.runs.insert(first, n - 1);
        }
        if n < last {
            self.runs.insert(n + 1, last);
        }
    }

    /// The lowest number from `first` to `last` that is not in the set.
    pub(super) fn lowest_free(&self, first: u128, last: u128) -> Option<u128> {
        let free = match self.run_of(first) {
            Some((_, end)) => end.checked_add(1)?,
            None => first,
        };
        (free <= last).then_some(free)
    }

    /// The end of the last run that has a number from `first` to `last`.
    pub(super) fn last_overlap(&self, first: u128, last: u128) -> Option<u128> {
        let (_, end) = self.runs.range(..=last).next_back()?;
        (*end >= first).then_some(*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(ops in prop::collection::vec((any::<bool>(), 0u128..24, 0u128..4), 0..60)) {
            let (mut runs, mut plain) = (RangeSet::default(), BTreeSet::new());
            for (put, n, more) in ops {
                if put {
                    runs.insert_all(n, n + more);
                    plain.extend(n..=n + more);
                } else {
                    runs.remove(n);
                    plain.remove(&n);
                }
                for i in 0..30 {
                    prop_assert_eq!(runs.contains(i), plain.contains(&i));
                    prop_assert_eq!(runs.lowest_free(i, 29), (i..=29).find(|n| !plain.contains(n)));
                    prop_assert_eq!(runs.last_overlap(i, i + 2).is_some(), (i..=i + 2).any(|n| plain.contains(&n)));
                }
                let touching = runs.runs.iter().zip(runs.runs.keys().skip(1)).any(|((_, end), next)| end + 1 >= *next);
                prop_assert!(!touching, "{:?}", runs);
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers() {
        let mut set = RangeSet::default();
        set.insert(0);
        set.insert(u128::MAX);
        assert_eq!(set.lowest_free(0, u128::MAX), Some(1));
        assert_eq!(set.lowest_free(u128::MAX, u128::MAX), None);
        set.remove(0);
        assert_eq!(set.lowest_free(0, 0), Some(0));
    }
}
