//! Points in time: a duration ago (`10m`), RFC 3339, a date, or seconds since 1970.

use swarm_types::time::Timestamp;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::duration;

/// Reads a point in time; a time without an offset is in UTC.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = duration::parse(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(Timestamp(now.0.saturating_sub(ago)));
    }
    if let Some(at) = seconds(text).or_else(|| dated(text)) {
        return Ok(at);
    }
    Err(format!("`{text}` is not a time: write it like 10m (ago), 2026-01-02T15:04:05Z or 1700000000"))
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(ms).map(Timestamp)
}

fn dated(text: &str) -> Option<Timestamp> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let plain = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let at = OffsetDateTime::parse(&full, &Rfc3339)
        .ok()
        .or_else(|| Some(PrimitiveDateTime::parse(&full, plain).ok()?.assume_utc()))?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now = Timestamp(1_700_000_000_000);
        for (text, ms) in [
            ("10s", 1_699_999_990_000),
            ("1700000000", 1_700_000_000_000),
            ("1700000000.25", 1_700_000_000_250),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14T22:13:20", 1_700_000_000_000),
            ("2023-11-14T22:13", 1_699_999_980_000),
            ("2023-11-14", 1_699_920_000_000),
        ] {
            assert_eq!(parse(text, now), Ok(Timestamp(ms)), "{text}");
        }
        assert!(parse("yesterday", now).is_err() && parse("", now).is_err());
    }
}
