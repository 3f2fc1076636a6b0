//! Who is at the other end of a connection: proved once, when it is made, and carried with every
//! call that comes in over it.

use std::net::SocketAddr;

use swarm_identity::peer::PeerIdentity;
use swarm_identity::role::Role;
use swarm_proto::roles::Caller;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What the connection proves: a role, or nothing.
    pub caller: Caller,
    /// What its certificate says, if it has one.
    pub identity: Option<PeerIdentity>,
    /// Its address, on a network connection.
    pub remote: Option<SocketAddr>,
}

impl Peer {
    /// Somebody on the local socket: the file's permissions let in root and group `swarm` only.
    pub fn local() -> Self {
        Peer { caller: Caller::Admin, identity: None, remote: None }
    }

    /// Somebody on the network, with the certificate that the handshake verified, if any.
    pub fn remote(addr: SocketAddr, identity: Option<PeerIdentity>) -> Self {
        let caller = match identity.as_ref().map(|i| i.role) {
            None => Caller::Anyone,
            Some(Role::Worker) => Caller::Worker,
            Some(Role::Manager) => Caller::Manager,
            Some(Role::Admin) => Caller::Admin,
        };
        Peer { caller, identity, remote: Some(addr) }
    }
}
