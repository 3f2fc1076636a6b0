//! TLS settings from credentials: TLS 1.3, no resumption, and replaceable while connections come and go.
//!
//! - A server shows its certificate and all roots (a joining node finds the one that its token pins among
//!   them). It asks for a client certificate but does not insist: a node that joins has none. One that is
//!   shown must be good.
//! - A client accepts only a manager of its cluster: the name `manager.<cluster>` and the purpose "server",
//!   which the authority grants to managers alone. (Certificate verification itself never looks at CN, OU and
//!   O.) Only to ask its way does a client talk to any node: [`crate::any_node`].
//! - Sessions are never resumed: a resumed session would live on after its certificate or root was replaced.
//! - Dates are checked against the [`Clock`] that is handed in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use swarm_types::id::{ClusterId, NodeId};
use swarm_types::time::{Clock, Timestamp};

use crate::any_node::AnyNode;
use crate::ca;
use crate::credentials::{Credentials, CredentialsError};
use crate::peer::PeerIdentity;

/// How one node (or admin) proves itself and checks others, now. Shared by all that listen or connect.
pub struct TlsIdentity {
    clock: Arc<dyn Clock>,
    current: ArcSwap<Current>,
}

struct Current {
    credentials: Credentials,
    peer: PeerIdentity,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    asking: Arc<ClientConfig>,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The parts do not fit together.
    #[error("check credentials")]
    Credentials(#[source] CredentialsError),
    /// A root is no certificate that can vouch for others.
    #[error("use root certificate")]
    Root(#[source] rustls::Error),
    /// No verifier can be made from the roots.
    #[error("use root certificates")]
    Verifier(#[source] VerifierBuilderError),
    /// No root vouches for the certificate.
    #[error("verify own certificate against the roots")]
    Untrusted(#[source] rustls::Error),
    /// The id fits into no TLS name.
    #[error("malformed cluster id `{0}`")]
    Name(ClusterId),
    /// rustls refuses.
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
    /// New credentials are those of somebody else.
    #[error("new certificate is for node {node} of cluster {cluster}, not for this one")]
    Stranger { node: NodeId, cluster: ClusterId },
}

impl TlsIdentity {
    /// Makes the settings. Expired credentials are accepted (the holder can find out by
    /// [`TlsIdentity::own`]), those that no root vouches for are not.
    pub fn new(credentials: Credentials, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let current = Current::new(credentials, &clock)?;
        Ok(Self { clock, current: ArcSwap::from_pointee(current) })
    }

    /// Replaces certificate, key and roots for all handshakes from now on. Connections that are open stay
    /// open. If the new credentials are bad, or those of another node or cluster, the old ones stay.
    pub fn update(&self, credentials: Credentials) -> Result<(), TlsError> {
        let next = Current::new(credentials, &self.clock)?;
        let own = self.own();
        if (&next.peer.node, &next.peer.cluster) != (&own.node, &own.cluster) {
            return Err(TlsError::Stranger { node: next.peer.node, cluster: next.peer.cluster });
        }
        self.current.store(Arc::new(next));
        Ok(())
    }

    /// Who we are, by our certificate.
    pub fn own(&self) -> PeerIdentity {
        self.current.load().peer.clone()
    }

    /// What is in use.
    pub fn credentials(&self) -> Credentials {
        self.current.load().credentials.clone()
    }

    /// The name under which every manager of our cluster must prove itself.
    pub fn server_name(&self) -> ServerName<'static> {
        self.current.load().name.clone()
    }

    /// The settings for the next connection that comes in.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// The settings for the next connection that goes out.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().client)
    }
}

impl TlsIdentity {
    /// The settings for a connection on which any node is asked its way.
    pub(crate) fn asking_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().asking)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({:?})", self.current.load().peer)
    }
}

impl Current {
    fn new(credentials: Credentials, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let peer = credentials.check().map_err(TlsError::Credentials)?;
        let name = ca::server_name(&peer.cluster).ok_or_else(|| TlsError::Name(peer.cluster))?;
        let roots = root_store(&credentials.roots)?;
        let callers = client_verifier(&roots)?;
        callers
            .verify_client_cert(&credentials.chain[0], &credentials.chain[1..], unix_time(peer.not_before))
            .map_err(TlsError::Untrusted)?;
        let any = AnyNode::verifier(callers.clone(), peer.cluster);
        let server = Arc::new(server_config(&credentials, callers, clock)?);
        let managers = manager_verifier(roots).map_err(TlsError::Verifier)?;
        let client = Arc::new(client_config(&credentials, managers, clock)?);
        let asking = Arc::new(client_config(&credentials, any, clock)?);
        Ok(Self { credentials, peer, name, server, client, asking })
    }
}

fn server_config(
    credentials: &Credentials,
    callers: Arc<dyn ClientCertVerifier>,
    clock: &Arc<dyn Clock>,
) -> Result<ServerConfig, TlsError> {
    let chain = credentials.chain.iter().chain(&credentials.roots).cloned().collect();
    let builder = ServerConfig::builder_with_details(provider(), time_of(clock));
    let mut config = builder
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(callers)
        .with_single_cert(chain, credentials.key.to_rustls())
        .map_err(TlsError::Setup)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn client_config(
    credentials: &Credentials,
    servers: Arc<dyn ServerCertVerifier>,
    clock: &Arc<dyn Clock>,
) -> Result<ClientConfig, TlsError> {
    let config = client_builder(clock)
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.to_rustls())
        .map_err(TlsError::Setup)?;
    Ok(finished(config))
}

fn client_verifier(roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)
}

/// HTTP/2: all that is spoken between nodes.
const ALPN: &[u8] = b"h2";

pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(TlsError::Root)?;
    }
    Ok(Arc::new(store))
}

pub(crate) fn manager_verifier(
    roots: Arc<RootCertStore>,
) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    WebPkiServerVerifier::builder_with_provider(roots, provider()).build()
}

pub(crate) fn client_builder(
    clock: &Arc<dyn Clock>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_details(provider(), time_of(clock)).with_protocol_versions(&[&TLS13])
}

/// A client's settings with what is common to all of them.
pub(crate) fn finished(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Named explicitly everywhere: a process-wide default could be another one, or two.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(at.as_millis()))
}

fn time_of(clock: &Arc<dyn Clock>) -> Arc<dyn TimeProvider> {
    Arc::new(ClockTime(Arc::clone(clock)))
}

/// Our clock as rustls reads one.
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClockTime({})", self.0.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::tests::{NOW, grant, issue_for, root};
    use crate::credentials::tests::credentials;
    use crate::handshake::tests::TestClock;
    use crate::role::Role;

    #[test]
    fn no_resumption_and_only_tls13() {
        let identity =
            TlsIdentity::new(credentials(&root(), "n1", Role::Manager), TestClock::at(NOW)).unwrap();
        let server = identity.server_config();
        assert_eq!(server.send_tls13_tickets, 0);
        assert!(!server.session_storage.can_cache());
        assert!(!server.ticketer.enabled());
        assert_eq!(server.alpn_protocols, [b"h2"]);
        assert_eq!(identity.server_name(), ca::server_name(&identity.own().cluster).unwrap());
    }

    #[test]
    fn bad_credentials_are_refused_and_the_old_stay() {
        let (ca, other) = (root(), root());
        let clock = TestClock::at(NOW);
        let identity = TlsIdentity::new(credentials(&ca, "n1", Role::Worker), clock.clone()).unwrap();
        let before = identity.own();

        let mut untrusted = credentials(&ca, "n1", Role::Worker);
        untrusted.roots = vec![other.cert().clone()];
        assert!(matches!(identity.update(untrusted), Err(TlsError::Untrusted(_))));
        let stranger = identity.update(credentials(&ca, "n2", Role::Worker)).unwrap_err();
        assert!(stranger.to_string().starts_with("new certificate is for node n2 of cluster"));
        let mut elsewhere = grant("n1", Role::Worker);
        elsewhere.cluster = "other".into();
        let (leaf, key) = issue_for(&ca, &elsewhere, NOW);
        let elsewhere = Credentials { key, chain: vec![leaf], roots: vec![ca.cert().clone()] };
        assert!(matches!(identity.update(elsewhere), Err(TlsError::Stranger { .. })));
        let mut mixed = credentials(&ca, "n1", Role::Worker);
        mixed.key = credentials(&ca, "n1", Role::Worker).key;
        assert!(matches!(identity.update(mixed), Err(TlsError::Credentials(CredentialsError::Mismatch(_)))));
        assert_eq!(identity.own(), before);

        identity.update(credentials(&ca, "n1", Role::Manager)).unwrap();
        assert_eq!(identity.own().role, Role::Manager);
    }

    #[test]
    fn expired_credentials_can_be_looked_at() {
        let late = NOW.plus(ca::DEFAULT_TTL * 2);
        let identity =
            TlsIdentity::new(credentials(&root(), "n1", Role::Worker), TestClock::at(late)).unwrap();
        assert!(identity.own().expires < late);
    }
}
