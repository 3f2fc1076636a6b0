//! First contact: a node that knows only a join token recognises the cluster by the digest in it.
//!
//! The server shows its certificate and its roots. The one whose digest the token pins becomes the only root,
//! and from there everything is checked as ever: signatures, dates, purpose, name. The token's secret is not
//! sent before.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, Error, OtherError};
use rustls_pki_types::{CertificateDer, UnixTime};
use swarm_types::time::Clock;

use crate::ca;
use crate::digest::Digest;
use crate::peer::{PeerError, PeerIdentity};
use crate::role::Role;
use crate::tls;
use crate::verifier::{Rule, Verifier};

/// A client without a certificate that trusts whoever the root with a given digest vouches for.
#[derive(Debug)]
pub struct PinnedClient {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier<Pinned>>,
}

/// Why a remote is not the cluster that the token is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It shows no root with the pinned digest.
    #[error("remote CA does not match fingerprint, expected {expected}")]
    Fingerprint { expected: Digest },
    /// Its certificate belongs to a node that is no manager.
    #[error("remote is not a manager: its certificate is for a {role}")]
    NotManager { role: Role },
    /// Its certificate says nothing that we understand.
    #[error("remote certificate is not that of a node")]
    Peer(#[source] PeerError),
}

impl PinnedClient {
    /// A client that accepts only managers whose root has the digest `pin`.
    pub fn new(pin: Digest, clock: &Arc<dyn Clock>) -> Result<Self, Error> {
        let verifier = Verifier::new(Pinned { pin, learned: OnceLock::new() });
        let config = tls::client_builder(clock)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(tls::finished(config)), verifier })
    }

    /// The settings for the next connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The root that the pin stands for, known after the first good handshake.
    pub fn root(&self) -> Option<CertificateDer<'static>> {
        self.verifier.rule.learned.get().cloned()
    }
}

struct Pinned {
    pin: Digest,
    learned: OnceLock<CertificateDer<'static>>,
}

impl Rule for Pinned {
    fn accept(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|cert| Digest::of(cert) == self.pin);
        let root =
            pinned.ok_or_else(|| refused(PinError::Fingerprint { expected: self.pin }))?.clone().into_owned();
        let peer = PeerIdentity::from_der(end_entity).map_err(|e| refused(PinError::Peer(e)))?;
        if peer.role != Role::Manager {
            return Err(refused(PinError::NotManager { role: peer.role }));
        }
        // The cluster's id is not known yet, so the certificate is held against the name that follows from
        // itself.
        let name = ca::server_name(&peer.cluster).ok_or(CertificateError::BadEncoding)?;
        let roots =
            tls::root_store(std::slice::from_ref(&root)).map_err(|_| CertificateError::BadEncoding)?;
        let verifier = tls::manager_verifier(roots).map_err(|e| Error::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)?;
        self.learned.get_or_init(|| root);
        Ok(verified)
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({})", self.pin)
    }
}

fn refused(error: PinError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The [`PinError`] inside a failed handshake's error, if that was the cause.
pub(crate) fn cause(error: &Error) -> Option<PinError> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<PinError>().cloned()
        }
        _ => None,
    }
}
