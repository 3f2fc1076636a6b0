//! Signals by name, as users write them: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`. Linux numbers.

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal; none if there is no such signal.
pub fn number(name: &str) -> Option<i32> {
    if let Ok(n) = name.parse::<i32>() {
        return (1..=64).contains(&n).then_some(n);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|n| *n == bare) {
        return i32::try_from(at + 1).ok();
    }
    // 34 and 64 are what the C library gives to programs; Docker names them so too.
    let real_time = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(""), _) => 34,
        (_, Some("")) => 64,
        (Some(rest), _) => {
            34 + rest.strip_prefix('+')?.parse::<i32>().ok().filter(|n| (0..=30).contains(n))?
        }
        (_, Some(rest)) => {
            64 - rest.strip_prefix('-')?.parse::<i32>().ok().filter(|n| (0..=30).contains(n))?
        }
        _ => return None,
    };
    Some(real_time)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn reads_what_users_write() {
        for (name, n) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-14", 50), ("SIGSYS", 31)]
        {
            assert_eq!(number(name), Some(n), "{name}");
        }
        for bad in ["", "SIG", "SIGFOO", "0", "65", "-1", "SIGRTMIN+99", "RTMIN3"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
