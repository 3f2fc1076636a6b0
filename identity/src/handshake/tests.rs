//! Real handshakes over an in-memory pipe, and one over loopback.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{CertificateError, HandshakeKind};
use swarm_types::time::{Clock, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::ca::tests::{DAY, NOW, grant, issue_for, root};
use crate::ca::{BACKDATE, RootCa};
use crate::credentials::Credentials;
use crate::credentials::tests::credentials;
use crate::digest::Digest;
use crate::role::Role;

const LIMIT: Duration = Duration::from_secs(20);

/// A clock that a test sets.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(now: Timestamp) -> Arc<dyn Clock> {
        Self::settable(now)
    }

    fn settable(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now.as_millis())))
    }

    fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

fn identity(ca: &RootCa, node: &str, role: Role) -> TlsIdentity {
    TlsIdentity::new(credentials(ca, node, role), TestClock::at(NOW)).unwrap()
}

type Accepted = Result<server::TlsStream<DuplexStream>, AcceptError>;
type Connected = Result<(client::TlsStream<DuplexStream>, PeerIdentity), ConnectError>;

/// Both sides of one handshake.
async fn meet(server: &TlsIdentity, client: &TlsIdentity) -> (Accepted, Connected) {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(accept(near, server, LIMIT), connect(far, client, LIMIT))
}

async fn meet_pinned(server: &TlsIdentity, client: &PinnedClient) -> (Accepted, Connected) {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(accept(near, server, LIMIT), connect_pinned(far, client, LIMIT))
}

fn certificate_error(result: Connected) -> CertificateError {
    match result {
        Err(ConnectError::Certificate(error)) => error,
        Err(other) => panic!("another error: {other}"),
        Ok((_, peer)) => panic!("accepted {peer:?}"),
    }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = root();
    let manager = identity(&ca, "m1", Role::Manager);
    for role in Role::ALL {
        let (accepted, connected) = meet(&manager, &identity(&ca, "n1", role)).await;
        let (mut accepted, (mut stream, server)) = (accepted.unwrap(), connected.unwrap());
        assert_eq!((server.node.as_str(), server.role), ("m1", Role::Manager));
        let client = client_of(&accepted).unwrap().unwrap();
        assert_eq!((client.node.as_str(), client.role), ("n1", role));
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }
}

#[tokio::test]
async fn the_right_pin_learns_the_root() {
    let ca = root();
    let clock = TestClock::at(NOW);
    let client = PinnedClient::new(ca.digest(), &clock).unwrap();
    assert_eq!(client.root(), None);
    let (accepted, connected) = meet_pinned(&identity(&ca, "m1", Role::Manager), &client).await;
    assert_eq!(client_of(&accepted.unwrap()).unwrap(), None);
    assert_eq!(connected.unwrap().1.node.as_str(), "m1");
    assert_eq!(client.root().as_ref(), Some(ca.cert()));
}

#[tokio::test]
async fn the_wrong_pin_is_refused() {
    let (ca, other) = (root(), root());
    let manager = identity(&ca, "m1", Role::Manager);
    let leaf = Digest::of(&manager.credentials().chain[0]);
    for pin in [other.digest(), leaf] {
        let client = PinnedClient::new(pin, &TestClock::at(NOW)).unwrap();
        let (accepted, connected) = meet_pinned(&manager, &client).await;
        assert!(matches!(accepted, Err(AcceptError::Handshake(_))));
        let error = connected.unwrap_err();
        assert_eq!(error.to_string(), format!("remote CA does not match fingerprint, expected {pin}"));
        assert_eq!(client.root(), None);
    }
}

/// Showing the right root is not enough: the certificate must come from it.
#[tokio::test]
async fn a_borrowed_root_does_not_satisfy_the_pin() {
    let (ca, mallory) = (root(), root());
    let mut borrowed = credentials(&mallory, "m1", Role::Manager);
    borrowed.roots.push(ca.cert().clone());
    let server = TlsIdentity::new(borrowed, TestClock::at(NOW)).unwrap();
    let client = PinnedClient::new(ca.digest(), &TestClock::at(NOW)).unwrap();
    let (_, connected) = meet_pinned(&server, &client).await;
    assert_eq!(certificate_error(connected), CertificateError::UnknownIssuer);
    assert_eq!(client.root(), None);
}

#[tokio::test]
async fn any_node_of_the_cluster_may_be_asked_its_way() {
    let (ca, other) = (root(), root());
    let asks = identity(&ca, "w2", Role::Worker);
    let ask = async |server: &TlsIdentity| {
        let (near, far) = duplex(64 * 1024);
        tokio::join!(accept(near, server, LIMIT), connect_to_any(far, &asks, LIMIT)).1
    };
    for role in [Role::Worker, Role::Manager] {
        let (_, peer) = ask(&identity(&ca, "n1", role)).await.unwrap();
        assert_eq!((peer.node.as_str(), peer.role), ("n1", role));
    }
    let refused = certificate_error(ask(&identity(&ca, "admin", Role::Admin)).await);
    assert_eq!(refused, CertificateError::ApplicationVerificationFailure);
    let refused = certificate_error(ask(&identity(&other, "n1", Role::Worker)).await);
    assert_eq!(refused, CertificateError::UnknownIssuer, "another cluster's");
}

#[tokio::test]
async fn a_worker_posing_as_a_manager_is_refused() {
    let ca = root();
    for role in [Role::Worker, Role::Admin] {
        let mallory = identity(&ca, "w1", role);
        let (_, connected) = meet(&mallory, &identity(&ca, "w2", Role::Worker)).await;
        let error = certificate_error(connected);
        assert!(
            matches!(
                error,
                CertificateError::InvalidPurposeContext { .. }
                    | CertificateError::NotValidForNameContext { .. }
            ),
            "{error:?}"
        );
        let client = PinnedClient::new(ca.digest(), &TestClock::at(NOW)).unwrap();
        let (_, connected) = meet_pinned(&mallory, &client).await;
        let text = format!("remote is not a manager: its certificate is for a {role}");
        assert_eq!(connected.unwrap_err().to_string(), text);
        assert_eq!(client.root(), None);
    }
}

#[tokio::test]
async fn a_manager_of_another_authority_is_refused() {
    let (ours, theirs) = (root(), root());
    let (_, connected) =
        meet(&identity(&theirs, "m1", Role::Manager), &identity(&ours, "w1", Role::Worker)).await;
    assert_eq!(certificate_error(connected), CertificateError::UnknownIssuer);
}

/// Same authority, other cluster id: cannot come from a correct manager, is refused all the same.
#[tokio::test]
async fn another_cluster_under_the_same_root_is_refused() {
    let ca = root();
    let elsewhere = |role| {
        let mut grant = grant("n9", role);
        grant.cluster = "othercluster".into();
        let (leaf, key) = issue_for(&ca, &grant, NOW);
        let credentials = Credentials { key, chain: vec![leaf], roots: vec![ca.cert().clone()] };
        TlsIdentity::new(credentials, TestClock::at(NOW)).unwrap()
    };
    let ours = identity(&ca, "m1", Role::Manager);
    let (_, connected) = meet(&elsewhere(Role::Manager), &ours).await;
    assert!(matches!(certificate_error(connected), CertificateError::NotValidForNameContext { .. }));

    let mut client = elsewhere(Role::Worker).client_config();
    Arc::make_mut(&mut client).alpn_protocols.clear();
    let (near, far) = duplex(64 * 1024);
    let name = ours.server_name();
    let (accepted, connected) = tokio::join!(accept(near, &ours, LIMIT), start(far, client, name, LIMIT));
    assert!(connected.is_ok());
    assert_eq!(accepted.unwrap_err().to_string(), "client n9 belongs to cluster othercluster");
}

/// TLS 1.3 clients are done before the server has judged their certificate: they hear of it when they read.
#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ours, theirs) = (root(), root());
    let manager = identity(&ours, "m1", Role::Manager);
    let mut stolen = credentials(&theirs, "w1", Role::Worker);
    stolen.roots.push(ours.cert().clone());
    let client = TlsIdentity::new(stolen, TestClock::at(NOW)).unwrap();
    let (accepted, connected) = meet(&manager, &client).await;
    let error = accepted.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let heard = connected.unwrap().0.read(&mut [0; 1]).await;
    assert!(heard.unwrap_err().to_string().contains("received fatal alert"));
}

#[tokio::test]
async fn dates_follow_the_clock_of_the_one_who_checks() {
    let ca = root();
    let clock = TestClock::settable(NOW);
    let manager = identity(&ca, "m1", Role::Manager);
    let client = TlsIdentity::new(credentials(&ca, "w1", Role::Worker), clock.clone()).unwrap();
    let pinned = PinnedClient::new(ca.digest(), &(clock.clone() as Arc<dyn Clock>)).unwrap();

    // Up to an hour behind is fine: certificates are valid from an hour before they are issued.
    clock.set(Timestamp(NOW.as_millis() - 59 * 60_000));
    assert!(meet(&manager, &client).await.1.is_ok());
    assert!(meet_pinned(&manager, &pinned).await.1.is_ok());

    let behind = BACKDATE + Duration::from_secs(60);
    clock.set(Timestamp(NOW.as_millis() - u64::try_from(behind.as_millis()).unwrap()));
    for connected in [meet(&manager, &client).await.1, meet_pinned(&manager, &pinned).await.1] {
        assert!(matches!(certificate_error(connected), CertificateError::NotValidYetContext { .. }));
    }

    clock.set(NOW.plus(DAY * 89));
    assert!(meet(&manager, &client).await.1.is_ok());
    clock.set(NOW.plus(DAY * 91));
    for connected in [meet(&manager, &client).await.1, meet_pinned(&manager, &pinned).await.1] {
        assert!(matches!(certificate_error(connected), CertificateError::ExpiredContext { .. }));
    }
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let ca = root();
    let late = NOW.plus(DAY * 91);
    let (leaf, key) = issue_for(&ca, &grant("m1", Role::Manager), late);
    let fresh = Credentials { key, chain: vec![leaf], roots: vec![ca.cert().clone()] };
    let manager = TlsIdentity::new(fresh, TestClock::at(late)).unwrap();
    let stale = TlsIdentity::new(credentials(&ca, "w1", Role::Worker), TestClock::at(late)).unwrap();
    let (accepted, _) = meet(&manager, &stale).await;
    let error = accepted.unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    // Without its certificate it can still ask to join again.
    let client = PinnedClient::new(ca.digest(), &TestClock::at(late)).unwrap();
    assert!(meet_pinned(&manager, &client).await.0.is_ok());
}

#[tokio::test]
async fn a_new_certificate_is_shown_at_once_and_open_connections_live_on() {
    let ca = root();
    let (manager, worker) = (identity(&ca, "m1", Role::Manager), identity(&ca, "w1", Role::Worker));
    let (accepted, connected) = meet(&manager, &worker).await;
    let (mut accepted, (mut stream, before)) = (accepted.unwrap(), connected.unwrap());

    manager.update(credentials(&ca, "m1", Role::Manager)).unwrap();
    worker.update(credentials(&ca, "w1", Role::Manager)).unwrap();
    let (again, connected) = meet(&manager, &worker).await;
    assert_ne!(connected.unwrap().1.serial, before.serial);
    assert_eq!(client_of(&again.unwrap()).unwrap().unwrap().role, Role::Manager);

    stream.write_all(b"still here").await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = [0; 10];
    accepted.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_replaced_root_counts_at_once() {
    let (old, new) = (root(), root());
    let manager = identity(&old, "m1", Role::Manager);
    let worker = identity(&old, "w1", Role::Worker);
    assert!(meet(&manager, &worker).await.0.is_ok());
    manager.update(credentials(&new, "m1", Role::Manager)).unwrap();
    let (accepted, connected) = meet(&manager, &worker).await;
    assert!(accepted.is_err());
    assert_eq!(certificate_error(connected), CertificateError::UnknownIssuer);
}

#[tokio::test]
async fn two_roots_are_believed_while_one_replaces_the_other() {
    let (old, new) = (root(), root());
    let both = |ca: &RootCa, node, role| {
        let mut credentials = credentials(ca, node, role);
        credentials.roots = vec![old.cert().clone(), new.cert().clone()];
        TlsIdentity::new(credentials, TestClock::at(NOW)).unwrap()
    };
    let (accepted, connected) = meet(&both(&new, "m1", Role::Manager), &both(&old, "w1", Role::Worker)).await;
    assert!(connected.is_ok());
    assert_eq!(client_of(&accepted.unwrap()).unwrap().unwrap().node.as_str(), "w1");
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let ca = root();
    let (manager, worker) = (identity(&ca, "m1", Role::Manager), identity(&ca, "w1", Role::Worker));
    // A client of bad will: it would resume if it could.
    let mut eager = worker.client_config();
    Arc::make_mut(&mut eager).resumption = rustls::client::Resumption::in_memory_sessions(8);
    for _ in 0..3 {
        let (near, far) = duplex(64 * 1024);
        let connecting = start(far, Arc::clone(&eager), manager.server_name(), LIMIT);
        let (accepted, connected) = tokio::join!(accept(near, &manager, LIMIT), connecting);
        let (mut accepted, mut stream) = (accepted.unwrap(), connected.unwrap().0);
        accepted.write_all(b"x").await.unwrap();
        accepted.flush().await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(accepted.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn silence_and_noise_end_the_handshake() {
    let ca = root();
    let manager = identity(&ca, "m1", Role::Manager);
    let (near, _far) = duplex(1024);
    let error = accept(near, &manager, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.to_string(), "TLS handshake took longer than 20ms");
    let (near, _far) = duplex(1024);
    let error = connect(near, &manager, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout(_)));
    let (near, mut far) = duplex(1024);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(accept(near, &manager, LIMIT).await, Err(AcceptError::Handshake(_))));
    let (near, far) = duplex(1024);
    drop(far);
    assert!(matches!(connect(near, &manager, LIMIT).await, Err(ConnectError::Handshake(_))));
}

#[tokio::test]
async fn over_loopback() {
    let ca = root();
    let (manager, worker) = (identity(&ca, "m1", Role::Manager), identity(&ca, "w1", Role::Worker));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async { accept(listener.accept().await.unwrap().0, &manager, LIMIT).await.unwrap() };
    let call = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        connect(stream, &worker, LIMIT).await.unwrap()
    };
    let (accepted, (_, server)) = tokio::join!(serve, call);
    assert_eq!(server.node.as_str(), "m1");
    assert_eq!(client_of(&accepted).unwrap().unwrap().node.as_str(), "w1");
}
