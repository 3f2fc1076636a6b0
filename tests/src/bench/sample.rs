//! What repetitions gave.

/// Some values, sorted. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    /// Panics if there are none: a bench that measured nothing has failed before.
    pub(crate) fn of(mut values: Vec<f64>) -> Sample {
        assert!(!values.is_empty(), "a sample holds at least one value");
        values.sort_by(f64::total_cmp);
        Sample { sorted: values }
    }

    pub(crate) fn one(value: f64) -> Sample {
        Sample::of(vec![value])
    }

    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        if self.sorted.len().is_multiple_of(2) {
            f64::midpoint(self.sorted[middle - 1], self.sorted[middle])
        } else {
            self.sorted[middle]
        }
    }

    /// The least value that so many percent are not above.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted[rank - 1]
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        (self.sorted[0], self.sorted[self.sorted.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        let sample = Sample::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert!((sample.median() - 2.5).abs() < 1e-9);
        assert!((sample.percentile(50) - 2.0).abs() < 1e-9);
        assert!((sample.percentile(99) - 4.0).abs() < 1e-9);
        assert_eq!(sample.range(), (1.0, 4.0));
        assert!((Sample::one(7.0).median() - 7.0).abs() < 1e-9);
    }
}
