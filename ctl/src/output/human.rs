//! Times and sizes as people say them, in Docker's words.

use std::time::Duration;

/// `3 minutes`, `About an hour`, `2 weeks`.
pub(crate) fn duration(d: Duration) -> String {
    let s = d.as_secs();
    let (m, h) = (s / 60, (s + 1800) / 3600);
    match () {
        () if s < 1 => "Less than a second".into(),
        () if s == 1 => "1 second".into(),
        () if s < 60 => format!("{s} seconds"),
        () if m == 1 => "About a minute".into(),
        () if m < 60 => format!("{m} minutes"),
        () if h == 1 => "About an hour".into(),
        () if h < 48 => format!("{h} hours"),
        () if h < 24 * 14 => format!("{} days", h / 24),
        () if h < 24 * 60 => format!("{} weeks", h / 24 / 7),
        () if h < 24 * 730 => format!("{} months", h / 24 / 30),
        () => format!("{} years", h / 24 / 365),
    }
}

/// Sizes in steps of 1000, three digits: `7.95MB`.
pub(crate) fn size(bytes: u64) -> String {
    steps(bytes, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Sizes in steps of 1024: `15.5GiB`.
pub(crate) fn binary(bytes: u64) -> String {
    steps(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn steps(bytes: u64, step: u64, units: &[&str]) -> String {
    let (mut unit, mut scale) = (0, 1u64);
    while bytes / scale >= step && unit + 1 < units.len() {
        unit += 1;
        scale = scale.saturating_mul(step);
    }
    let whole = bytes / scale;
    let hundredths = u128::from(bytes % scale) * 100 / u128::from(scale);
    let text = match whole {
        _ if hundredths == 0 => whole.to_string(),
        0..10 => format!("{whole}.{hundredths:02}"),
        10..100 => format!("{whole}.{}", hundredths / 10),
        _ => whole.to_string(),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// Go's way to write a duration: `1h5m30s`, `500ms`, `0s`.
pub(crate) fn go_duration(d: Duration) -> String {
    let (s, nanos) = (d.as_secs(), d.subsec_nanos());
    if s == 0 && nanos > 0 {
        return match nanos % 1_000_000 {
            0 => format!("{}ms", nanos / 1_000_000),
            _ => format!("{}µs", nanos / 1000),
        };
    }
    let fraction = match nanos {
        0 => String::new(),
        n => format!(".{n:09}").trim_end_matches('0').to_owned(),
    };
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}{fraction}s"),
        (0, m, s) => format!("{m}m{s}{fraction}s"),
        (h, m, s) => format!("{h}h{m}m{s}{fraction}s"),
    }
}

/// CPUs from billionths: `0.5`.
pub(crate) fn cpus(nano: u64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The first letter large: `Running`.
pub(crate) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// At most `max` characters, the last of them `…` if something was cut.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.chars().count() > max {
        true => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let words = [0, 1, 59, 60, 119, 120, 3599, 3600, 7200, 47 * 3600, 48 * 3600, 20 * 86400, 800 * 86400]
            .map(|s| duration(Duration::from_secs(s)));
        assert_eq!(
            words,
            [
                "Less than a second",
                "1 second",
                "59 seconds",
                "About a minute",
                "About a minute",
                "2 minutes",
                "59 minutes",
                "About an hour",
                "2 hours",
                "47 hours",
                "2 days",
                "2 weeks",
                "2 years"
            ]
        );
        for (ms, text) in
            [(0, "0s"), (500, "500ms"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn amounts() {
        assert_eq!(
            [0, 999, 1000, 7_950_000, 123_456_789].map(size),
            ["0B", "999B", "1kB", "7.95MB", "123MB"]
        );
        assert_eq!([1024, 3 << 29, 1 << 30].map(binary), ["1KiB", "1.5GiB", "1GiB"]);
        assert_eq!([500_000_000, 2_000_000_000].map(cpus), ["0.5", "2"]);
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
