//! Who may make which call: the table of `swarm_proto::roles` and the list of removed nodes, asked
//! for every single call, because connections outlive certificates, roles and memberships.

use std::sync::Arc;

use swarm_proto::roles::{self, Caller};
use swarm_types::id::{ClusterId, NodeId};
use swarm_types::node::Role;
use swarm_types::time::Timestamp;
use tonic::Status;
use tower::Service;

use crate::gate::{Keeper, Request, Response};
use crate::peer::Peer;

/// What must be known of the cluster to let a call in.
pub trait Membership: Send + Sync + 'static {
    /// The cluster whose certificates count.
    fn cluster(&self) -> ClusterId;
    /// The time now.
    fn now(&self) -> Timestamp;
    /// The node was removed; its certificate counts no more.
    fn is_removed(&self, node: &NodeId) -> bool;
    /// The role that a node has now; none if this manager has not heard of the node yet.
    fn role(&self, node: &NodeId) -> Option<Role>;
}

/// May `peer` call `path`?
///
/// # Errors
/// The status to answer with, if not.
pub fn check(peer: &Peer, path: &str, members: &dyn Membership) -> Result<(), Status> {
    if !roles::allowed(path, peer.caller) {
        return Err(refusal(peer, path));
    }
    let Some(identity) = &peer.identity else { return Ok(()) };
    if identity.cluster != members.cluster() {
        return Err(Status::permission_denied(format!("node {} belongs to another cluster", identity.node)));
    }
    if members.now() > identity.expires {
        return Err(Status::unauthenticated(format!(
            "the certificate of node {} has expired",
            identity.node
        )));
    }
    if members.is_removed(&identity.node) {
        return Err(Status::permission_denied(format!(
            "node {} was removed from the cluster",
            identity.node
        )));
    }
    // A demoted manager holds its old certificate until it has a new one: as what it is now, may it?
    let demoted = peer.caller == Caller::Manager && members.role(&identity.node) == Some(Role::Worker);
    if demoted && !roles::allowed(path, Caller::Worker) {
        return Err(Status::permission_denied(format!("node {} is no manager any more", identity.node)));
    }
    Ok(())
}

fn refusal(peer: &Peer, path: &str) -> Status {
    match peer.caller {
        Caller::Anyone => Status::unauthenticated(format!("{path} needs a certificate of this cluster")),
        Caller::Worker => Status::permission_denied(format!("role worker is not allowed to call {path}")),
        Caller::Manager => Status::permission_denied(format!("role manager is not allowed to call {path}")),
        Caller::Admin => Status::permission_denied(format!("{path} is not for users")),
    }
}

/// Lets in what [`check`] allows.
#[derive(Clone)]
pub(crate) struct Authorize {
    pub(crate) members: Arc<dyn Membership>,
}

impl Keeper for Authorize {
    async fn answer<S>(self, mut service: S, request: Request) -> Result<Response, S::Error>
    where
        S: Service<Request, Response = Response, Future: Send, Error: Send> + Send,
    {
        let verdict = match request.extensions().get::<Peer>() {
            Some(peer) => check(peer, request.uri().path(), self.members.as_ref()),
            None => Err(Status::unauthenticated("the connection does not say who calls")),
        };
        match verdict {
            Ok(()) => service.call(request).await,
            Err(status) => Ok(status.into_http()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_identity::peer::PeerIdentity;

    struct World {
        removed: bool,
        role: Option<Role>,
    }

    impl Membership for World {
        fn cluster(&self) -> ClusterId {
            "c".into()
        }
        fn now(&self) -> Timestamp {
            Timestamp(100)
        }
        fn is_removed(&self, _: &NodeId) -> bool {
            self.removed
        }
        fn role(&self, _: &NodeId) -> Option<Role> {
            self.role
        }
    }

    fn peer(role: swarm_identity::role::Role, cluster: &str, expires: u64) -> Peer {
        let identity = PeerIdentity {
            node: "n".into(),
            role,
            cluster: cluster.into(),
            not_before: Timestamp(0),
            expires: Timestamp(expires),
            serial: "1".into(),
        };
        Peer::remote(([127, 0, 0, 1], 1).into(), Some(identity))
    }

    const STEP: &str = "/swarm.v1.Raft/Step";
    const SESSION: &str = "/swarm.v1.Dispatcher/Session";

    #[test]
    fn the_role_counts_for_every_rpc() {
        use swarm_identity::role::Role::{Manager, Worker};
        let world = World { removed: false, role: None };
        for (path, _) in roles::ROLES {
            for (role, caller) in [(Worker, Caller::Worker), (Manager, Caller::Manager)] {
                let verdict = check(&peer(role, "c", 200), path, &world);
                assert_eq!(verdict.is_ok(), roles::allowed(path, caller), "{path} {caller:?}");
            }
        }
        assert!(check(&peer(Worker, "c", 200), "/swarm.v1.New/Rpc", &world).is_err());
    }

    #[test]
    fn strangers_and_the_removed_are_refused() {
        use swarm_identity::role::Role::Manager;
        let world = World { removed: false, role: Some(Role::Manager) };
        assert!(check(&peer(Manager, "c", 200), STEP, &world).is_ok());
        assert!(check(&peer(Manager, "other", 200), STEP, &world).is_err(), "another cluster");
        assert!(check(&peer(Manager, "c", 99), STEP, &world).is_err(), "expired");
        let removed = World { removed: true, role: None };
        assert!(check(&peer(Manager, "c", 200), STEP, &removed).is_err(), "removed");
    }

    #[test]
    fn a_demoted_manager_is_a_worker_at_once() {
        let world = World { removed: false, role: Some(Role::Worker) };
        let demoted = peer(swarm_identity::role::Role::Manager, "c", 200);
        assert!(check(&demoted, STEP, &world).is_err());
        assert!(check(&demoted, SESSION, &world).is_ok());
        assert!(check(&demoted, "/swarm.v1.Ca/RenewCertificate", &world).is_ok());
    }
}
