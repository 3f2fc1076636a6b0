//! Who encrypts: the kernel or we.

use std::fmt;
use std::io;

use crate::netlink;

/// Who encrypts what goes through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// The kernel's WireGuard. No tunnel of this version reports it (see `docs/adr`, number 10).
    Kernel,
    /// This process, over a TUN device.
    UserSpace {
        /// Whether the kernel of this machine has WireGuard, too.
        kernel_has_it: bool,
    },
}

impl Encryption {
    /// What tunnels on this machine will use. Asks the kernel, which loads its module if there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn detect() -> io::Result<Self> {
        Ok(Encryption::UserSpace { kernel_has_it: netlink::has_family("wireguard")? })
    }
}

/// For a person, in the inspection of a node.
impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encryption::Kernel => "WireGuard of the kernel",
            Encryption::UserSpace { kernel_has_it: false } => {
                "WireGuard in user space: the kernel of this machine has none"
            }
            Encryption::UserSpace { kernel_has_it: true } => {
                "WireGuard in user space: the kernel of this machine has it, this version does not use it"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_text_of_its_own() {
        let all = [
            Encryption::Kernel,
            Encryption::UserSpace { kernel_has_it: false },
            Encryption::UserSpace { kernel_has_it: true },
        ];
        let texts: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), all.len());
    }

    #[test]
    fn detection_answers() {
        assert!(matches!(Encryption::detect().unwrap(), Encryption::UserSpace { .. }));
    }
}
