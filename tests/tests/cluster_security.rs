//! Who may do what: every RPC over real TLS, with every kind of certificate, and what strangers,
//! the removed and the malicious get.

use std::sync::Arc;
use std::time::Duration;

use swarm_identity::ca::{Grant, RootCa};
use swarm_identity::credentials::{Credentials, certs_from_pem};
use swarm_identity::csr::NodeKey;
use swarm_identity::role::Role;
use swarm_identity::token::JoinToken;
use swarm_proto::roles::{Caller, ROLES};
use swarm_proto::v1;
use swarm_tests::harness::{Cluster, eventually, wire};
use swarm_types::time::Clock;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Credentials of an admin of `cluster`.
async fn admin(cluster: &Cluster, ttl: Duration) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let request = v1::IssueAdminCertificateRequest {
        csr: key.request().unwrap().into(),
        name: "alice".into(),
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap(),
    };
    let answer = cluster.any().control().issue_admin_certificate(request).await.unwrap().into_inner();
    let chain = certs_from_pem(&answer.cert_pem).unwrap();
    Credentials { key, chain, roots: certs_from_pem(&answer.root_cert_pem).unwrap() }
}

const HOUR: Duration = Duration::from_secs(3600);

/// True if `status` says that the caller may not make the call at all.
fn refused(status: &Status) -> bool {
    let words = ["needs a certificate", "is not allowed to call", "is not for users"];
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
        && words.iter().any(|w| status.message().contains(w))
}

fn never_reached(status: &Status) -> bool {
    status.code() == Code::Unknown && status.message().starts_with("transport")
}

#[tokio::test]
async fn every_rpc_asks_for_the_role_in_the_certificate() {
    let cluster = Cluster::start(2, 1).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let token: JoinToken = cluster.tokens().await.worker.parse().unwrap();
    let follower = cluster.follower().await;
    let leader = cluster.leader().await;
    let manager = cluster.host(&follower).credentials();
    let worker = cluster.host("w1").credentials();
    let admin = admin(&cluster, HOUR).await;
    for at in [&leader, &follower] {
        let addr = cluster.host(at).addr();
        let connect = |credentials| wire::with_certificate(&addr, credentials, clock.clone());
        let callers: [(Caller, Channel); 4] = [
            (Caller::Anyone, wire::without_certificate(&addr, &token, clock.clone()).await.unwrap()),
            (Caller::Worker, connect(worker.clone()).await.unwrap()),
            (Caller::Manager, connect(manager.clone()).await.unwrap()),
            (Caller::Admin, connect(admin.clone()).await.unwrap()),
        ];
        for (path, allowed) in ROLES {
            for (caller, channel) in &callers {
                let status = wire::call(channel, path).await;
                assert!(!never_reached(&status), "{path} as {caller:?} at {at}: {status:?}");
                assert_eq!(
                    refused(&status),
                    !allowed.contains(caller),
                    "{path} as {caller:?} at {at}: {status:?}"
                );
                // A user from afar is not the owner of the machine.
                if path.starts_with("/swarm.v1.LocalNode/") && *caller == Caller::Admin {
                    assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
                }
            }
        }
        for (caller, channel) in &callers {
            let status = wire::call(channel, "/swarm.v1.Control/NoSuchRpc").await;
            assert!(refused(&status), "an unknown RPC as {caller:?}: {status:?}");
        }
    }
}

#[tokio::test]
async fn the_mark_of_forwarding_opens_no_door() {
    let cluster = Cluster::start(2, 1).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let token: JoinToken = cluster.tokens().await.worker.parse().unwrap();
    let worker = cluster.host("w1").credentials();
    for at in [cluster.leader().await, cluster.follower().await] {
        let addr = cluster.host(&at).addr();
        let anyone = wire::without_certificate(&addr, &token, clock.clone()).await.unwrap();
        let worker = wire::with_certificate(&addr, worker.clone(), clock.clone()).await.unwrap();
        for (caller, channel) in [(Caller::Anyone, anyone), (Caller::Worker, worker)] {
            for (path, allowed) in ROLES.iter().filter(|(_, allowed)| !allowed.contains(&caller)) {
                let mut mark = http::HeaderMap::new();
                mark.insert("swarm-forwarded", "1".parse().unwrap());
                let status = wire::call_with(&channel, path, mark, "\0\0\0\0\0".into()).await;
                assert!(refused(&status), "{path} as {caller:?} ({allowed:?}): {status:?}");
            }
        }
    }
}

#[tokio::test]
async fn strangers_and_the_expired_are_refused() {
    let cluster = Cluster::start(1, 0).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let addr = cluster.hosts[0].addr();
    let own = cluster.hosts[0].credentials();
    let identity = own.identity().unwrap();

    // Another authority that says the same of a key: the name and the purpose are right.
    let other = RootCa::create(clock.now()).unwrap();
    let grant = Grant { node: identity.node, role: Role::Manager, cluster: identity.cluster, ttl: HOUR };
    let mut forged = other.credentials(NodeKey::generate().unwrap(), &grant, clock.now()).unwrap();
    let to_forger = wire::with_certificate(&addr, forged.clone(), clock.clone()).await;
    assert!(to_forger.is_err(), "the forger does not believe us either");
    // Now it believes us, but we must not believe it. Under TLS 1.3 the client learns of it with the first call.
    forged.roots.extend(own.roots.clone());
    if let Ok(channel) = wire::with_certificate(&addr, forged, clock.clone()).await {
        let status = wire::call(&channel, "/swarm.v1.Control/ListNodes").await;
        assert!(never_reached(&status), "{status:?}");
    }

    let short = admin(&cluster, HOUR).await;
    let open = wire::with_certificate(&addr, short.clone(), clock.clone()).await.unwrap();
    assert_eq!(wire::call(&open, "/swarm.v1.Control/ListNodes").await.code(), Code::Ok);
    cluster.clock.advance(HOUR * 2);
    let status = wire::call(&open, "/swarm.v1.Control/ListNodes").await;
    assert_eq!(status.code(), Code::Unauthenticated, "on a connection that is open: {status:?}");
    if let Ok(channel) = wire::with_certificate(&addr, short, clock.clone()).await {
        let status = wire::call(&channel, "/swarm.v1.Control/ListNodes").await;
        assert!(never_reached(&status), "{status:?}");
    }
}

#[tokio::test]
async fn a_removed_node_is_refused() {
    let mut cluster = Cluster::start(1, 1).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let addr = cluster.hosts[0].addr();
    let worker = cluster.host("w1").credentials();
    let open = wire::with_certificate(&addr, worker.clone(), clock.clone()).await.unwrap();
    let id = worker.identity().unwrap().node.to_string();
    let before = wire::call(&open, "/swarm.v1.Dispatcher/Heartbeat").await;
    assert!(!before.message().contains("removed"), "{before:?}");
    let remove = |force| v1::RemoveNodeRequest { reference: id.clone(), force };
    let refused = cluster.any().control().remove_node(remove(false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    cluster.any().control().remove_node(remove(true)).await.unwrap();
    let again = wire::with_certificate(&addr, worker, clock.clone()).await.unwrap();
    for channel in [&open, &again] {
        for path in [
            "/swarm.v1.Dispatcher/Session",
            "/swarm.v1.Dispatcher/Heartbeat",
            "/swarm.v1.Ca/RenewCertificate",
        ] {
            let status = wire::call(channel, path).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status:?}");
            assert!(status.message().contains("was removed"), "{path}: {status:?}");
        }
    }
    // Nor does it come back by starting again.
    let w1 = cluster.host_mut("w1");
    w1.kill().await;
    w1.start().await;
    eventually("the node is not in the list", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        if nodes.len() == 1 { Ok(()) } else { Err(format!("{} nodes", nodes.len())) }
    })
    .await;
}
