//! Decimal numbers as integers of a fixed scale: CPUs in billionths, ratios in thousandths.

/// CPUs as billionths: `0.5`, `2`, `.25`.
pub(crate) fn cpus(text: &str) -> Result<u64, String> {
    parse(text, 9).ok_or_else(|| format!("`{text}` is not a number of CPUs: write it like 0.5 or 2"))
}

/// A ratio between 0 and 1, as thousandths.
pub(crate) fn permille(text: &str) -> Result<u32, String> {
    let thousandths = parse(text, 3).filter(|n| *n <= 1000).and_then(|n| u32::try_from(n).ok());
    thousandths.ok_or_else(|| format!("`{text}` is not a ratio between 0 and 1 (in steps of 0.001)"))
}

fn parse(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if text.trim_matches('.').is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > places {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, n) in
            [("0.5", 500_000_000), ("2", 2_000_000_000), (".25", 250_000_000), ("1.50", 1_500_000_000)]
        {
            assert_eq!(cpus(text), Ok(n), "{text}");
        }
        assert_eq!(permille("0.25"), Ok(250));
        assert_eq!(permille("1"), Ok(1000));
        for text in ["", ".", "-1", "1e3", "0.0000000001", "x", "1.2.3"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        assert!(permille("1.1").is_err() && permille("0.0001").is_err());
    }
}
