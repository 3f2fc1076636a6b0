//! Who may call what: one line for every RPC. The managers enforce it; a test holds it against the
//! `.proto` files, so that a new RPC cannot be forgotten.

/// Who calls, as proved by the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// No certificate: someone who wants to join.
    Anyone,
    /// A worker's certificate.
    Worker,
    /// A manager's certificate.
    Manager,
    /// An admin's certificate, or the local socket (root or group `swarm`).
    Admin,
}

use Caller::{Admin, Anyone, Manager, Worker};

const NODES: &[Caller] = &[Worker, Manager];
// Managers may, because followers pass users' calls on to the leader.
const USERS: &[Caller] = &[Admin, Manager];
const MANAGERS: &[Caller] = &[Manager];
const ALL: &[Caller] = &[Anyone, Worker, Manager, Admin];

/// Path of each RPC, and who may call it.
pub const ROLES: &[(&str, &[Caller])] = &[
    ("/swarm.v1.Ca/GetRootCertificate", ALL),
    ("/swarm.v1.Ca/JoinCluster", ALL),
    ("/swarm.v1.Ca/RenewCertificate", NODES),
    ("/swarm.v1.Control/CheckNetworks", USERS),
    ("/swarm.v1.Control/CreateNetwork", USERS),
    ("/swarm.v1.Control/GetNetwork", USERS),
    ("/swarm.v1.Control/ListNetworks", USERS),
    ("/swarm.v1.Control/RemoveNetwork", USERS),
    ("/swarm.v1.Control/CreateService", USERS),
    ("/swarm.v1.Control/GetCluster", USERS),
    ("/swarm.v1.Control/GetJoinTokens", USERS),
    ("/swarm.v1.Control/GetNode", USERS),
    ("/swarm.v1.Control/GetService", USERS),
    ("/swarm.v1.Control/GetTask", USERS),
    ("/swarm.v1.Control/IssueAdminCertificate", USERS),
    ("/swarm.v1.Control/ListImages", USERS),
    ("/swarm.v1.Control/ListNodes", USERS),
    ("/swarm.v1.Control/ListServices", USERS),
    ("/swarm.v1.Control/ListTasks", USERS),
    ("/swarm.v1.Control/LoadImage", USERS),
    ("/swarm.v1.Control/Logs", USERS),
    ("/swarm.v1.Control/PullImage", USERS),
    ("/swarm.v1.Control/RemoveImage", USERS),
    ("/swarm.v1.Control/RemoveNode", USERS),
    ("/swarm.v1.Control/RemoveService", USERS),
    ("/swarm.v1.Control/UpdateCluster", USERS),
    ("/swarm.v1.Control/UpdateNode", USERS),
    ("/swarm.v1.Control/UpdateService", USERS),
    ("/swarm.v1.Control/Watch", USERS),
    ("/swarm.v1.Dispatcher/FetchArchive", NODES),
    ("/swarm.v1.Dispatcher/Goodbye", NODES),
    ("/swarm.v1.Dispatcher/Heartbeat", NODES),
    ("/swarm.v1.Dispatcher/PublishLogs", NODES),
    ("/swarm.v1.Dispatcher/ReportCommand", NODES),
    ("/swarm.v1.Dispatcher/Session", NODES),
    ("/swarm.v1.Dispatcher/UpdateNetworkStatus", NODES),
    ("/swarm.v1.Dispatcher/UpdateTaskStatus", NODES),
    // Only ever served on the local socket.
    ("/swarm.v1.LocalNode/Info", &[Admin]),
    ("/swarm.v1.LocalNode/Init", &[Admin]),
    ("/swarm.v1.LocalNode/Join", &[Admin]),
    ("/swarm.v1.LocalNode/Leave", &[Admin]),
    ("/swarm.v1.Raft/JoinGroup", MANAGERS),
    ("/swarm.v1.Raft/LeaveGroup", MANAGERS),
    ("/swarm.v1.Raft/Snapshot", MANAGERS),
    ("/swarm.v1.Raft/Step", MANAGERS),
];

/// True if `caller` may call the RPC with this path. An RPC without a line may be called by nobody.
pub fn allowed(path: &str, caller: Caller) -> bool {
    ROLES.iter().any(|(p, callers)| *p == path && callers.contains(&caller))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every `rpc` of every `.proto` file, as a path.
    fn declared() -> BTreeSet<String> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let mut paths = BTreeSet::new();
        for file in std::fs::read_dir(dir).expect("proto folder") {
            let text = std::fs::read_to_string(file.expect("entry").path()).expect("readable");
            let mut service = "";
            for line in text.lines() {
                let word =
                    |prefix| line.trim().strip_prefix(prefix).and_then(|l: &str| l.split([' ', '(']).next());
                service = word("service ").unwrap_or(service);
                if let Some(rpc) = word("rpc ") {
                    paths.insert(format!("/swarm.v1.{service}/{rpc}"));
                }
            }
        }
        paths
    }

    #[test]
    fn every_rpc_has_a_line() {
        let lines: BTreeSet<String> = ROLES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(declared(), lines);
        assert_eq!(lines.len(), ROLES.len(), "an RPC has two lines");
    }

    #[test]
    fn a_worker_is_no_manager() {
        assert!(!allowed("/swarm.v1.Control/CreateService", Worker));
        assert!(!allowed("/swarm.v1.Raft/Step", Worker));
        assert!(!allowed("/swarm.v1.Control/CreateService", Anyone));
        assert!(!allowed("/swarm.v1.Unknown/Rpc", Admin));
        assert!(allowed("/swarm.v1.Dispatcher/Session", Worker));
    }
}
