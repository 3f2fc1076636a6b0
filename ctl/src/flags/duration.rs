//! Durations as Go and Compose write them: `1h5m30s`, `500ms`, `1.5s`, `0`.

use std::time::Duration;

const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration. Nothing finer than a millisecond is kept by the cluster, but it may be written.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration: write it like 1h5m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0u128);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        nanos = nanos.checked_add(scaled(number, *scale).ok_or_else(bad)?).ok_or_else(bad)?;
        rest = tail;
    }
    match u64::try_from(nanos) {
        Ok(nanos) if !text.is_empty() => Ok(Duration::from_nanos(nanos)),
        _ => Err(bad()),
    }
}

/// A decimal number times `scale`, without floats.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let part = digits(fraction)?.checked_mul(scale)? / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("1.5s", 1500),
            (".5s", 500),
            ("1h5m30s", 3_930_000),
            ("2160h", 7_776_000_000),
            ("1000us", 1),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "5", "s", "1x", "-1s", "1h5", ".s", "1 s", "99999999999999999999h", "1.2.3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
