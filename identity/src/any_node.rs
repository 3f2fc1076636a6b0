//! A client that talks to any node of its cluster, for one purpose: to ask one that was a manager who the
//! managers are now.
//!
//! Everything that matters is said to managers only ([`crate::tls`]). What a worker answers is a hint: whoever
//! it names has to prove that it is a manager.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};
use swarm_types::id::ClusterId;

use crate::peer::PeerIdentity;
use crate::role::Role;
use crate::verifier::{Rule, Verifier};

/// Accepts whoever could be a client of ours and is a node of our cluster.
pub(crate) struct AnyNode {
    callers: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
}

impl AnyNode {
    /// `callers` checks the certificate; a worker's is good for calling only.
    pub(crate) fn verifier(callers: Arc<dyn ClientCertVerifier>, cluster: ClusterId) -> Arc<Verifier<Self>> {
        Verifier::new(Self { callers, cluster })
    }
}

impl Rule for AnyNode {
    fn accept(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.callers.verify_client_cert(end_entity, intermediates, now)?;
        let peer = PeerIdentity::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if peer.cluster != self.cluster || peer.role == Role::Admin {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl fmt::Debug for AnyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyNode({})", self.cluster)
    }
}
