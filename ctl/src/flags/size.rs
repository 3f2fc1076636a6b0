//! Sizes as Docker reads them: `512`, `64k`, `1.5g`, `10MiB`; k is 1024.

/// Reads a size in bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size: write it like 64k, 512m or 1.5g");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return Err(bad());
    }
    let whole: u128 = whole.parse().map_err(|_| bad())?;
    let places = u32::try_from(fraction.len()).map_err(|_| bad())?;
    let part = (fraction.parse::<u128>().map_err(|_| bad())? << shift) / 10u128.pow(places);
    let bytes = whole.checked_mul(1 << shift).and_then(|n| n.checked_add(part)).ok_or_else(bad)?;
    u64::try_from(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, n) in [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("1k", 1024),
            ("10m", 10 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("4 MB", 4 << 20),
        ] {
            assert_eq!(parse(text), Ok(n), "{text}");
        }
        for text in ["", "m", "-1m", "1x", "1.m", ".5m", "1.2.3m", "99999999999999p", "1,5g"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
