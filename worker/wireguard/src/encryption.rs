//! Who encrypts: the kernel or we.

use std::fmt;
use std::io;

use crate::kernel::FAMILY;
use crate::netlink;

/// Who encrypts what goes through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// The kernel's WireGuard ([`crate::KernelTunnel`]).
    Kernel,
    /// A process, over a TUN device ([`crate::Tunnel`]).
    UserSpace,
}

impl Encryption {
    /// What this machine has: the kernel's, if the kernel has it. Asks the kernel, which loads its module if
    /// there is one.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn detect() -> io::Result<Self> {
        Ok(if netlink::family_id(FAMILY)?.is_some() { Encryption::Kernel } else { Encryption::UserSpace })
    }
}

/// For a person, in logs.
impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encryption::Kernel => "WireGuard of the kernel",
            Encryption::UserSpace => "WireGuard in user space",
        })
    }
}
