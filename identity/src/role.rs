//! What a certificate lets its holder be.

use std::fmt;

/// The role in a certificate's OU. It is checked for every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A node that takes part in consensus and answers the API.
    Manager,
    /// A node that only runs tasks.
    Worker,
    /// A person's client (`swarmctl` from afar); never a node.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::Manager, Role::Worker, Role::Admin];

    /// The organizational unit that stands for this role.
    pub fn ou(self) -> &'static str {
        match self {
            Role::Manager => "swarm-manager",
            Role::Worker => "swarm-worker",
            Role::Admin => "swarm-admin",
        }
    }

    /// The role that `ou` stands for.
    pub fn from_ou(ou: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.ou() == ou)
    }

    /// Whether the holder may prove itself as a TLS server. Only managers are called by others.
    pub fn serves(self) -> bool {
        matches!(self, Role::Manager)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Manager => "manager",
            Role::Worker => "worker",
            Role::Admin => "admin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ou_and_back() {
        for role in Role::ALL {
            assert_eq!(Role::from_ou(role.ou()), Some(role));
        }
        assert_eq!(Role::from_ou("manager"), None);
        assert_eq!(Role::from_ou("swarm-manager "), None);
    }
}
