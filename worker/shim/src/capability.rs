//! Capabilities: names to bits, and what a container gets when nobody says otherwise.

/// Docker's default fourteen.
pub const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Every capability, in the kernel's order: the index is the number.
const NAMES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// How many capabilities this code knows.
pub const COUNT: usize = NAMES.len();

/// A set of capabilities, as the kernel's 64-bit mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// The set of these names (with or without `CAP_`, any case; `ALL` is all of them).
    ///
    /// # Errors
    /// The first name that is no capability.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, String> {
        names.iter().try_fold(Self(0), |set, name| {
            let upper = name.as_ref().to_ascii_uppercase();
            if upper == "ALL" {
                return Ok(Self((1 << COUNT) - 1));
            }
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            match NAMES.iter().position(|n| *n == full) {
                Some(bit) => Ok(Self(set.0 | 1 << bit)),
                None => Err(name.as_ref().to_owned()),
            }
        })
    }

    /// True if `name` (`CAP_…`) is in it.
    pub fn has(self, name: &str) -> bool {
        NAMES.iter().position(|n| *n == name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_dockers_mask() {
        assert_eq!(Set::parse(DEFAULT).expect("known names").0, 0xa804_25fb);
    }

    #[test]
    fn names_are_read_loosely_and_checked() {
        assert_eq!(Set::parse(&["net_admin"]), Set::parse(&["CAP_NET_ADMIN"]));
        assert_eq!(Set::parse(&["CAP_FLY"]), Err("CAP_FLY".to_owned()));
        assert!(Set::parse(&["all"]).expect("all").has("CAP_BPF"));
    }
}
