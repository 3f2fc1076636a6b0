//! A client that talks to any node of its cluster, for one purpose: to ask one that was a manager who the
//! managers are now.
//!
//! Everything that matters is said to managers only ([`crate::tls`]). What a worker answers is a hint: whoever
//! it names has to prove that it is a manager.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use swarm_types::id::ClusterId;

use crate::peer::PeerIdentity;
use crate::role::Role;
use crate::tls;

/// Accepts whoever could be a client of ours and is a node of our cluster.
pub(crate) struct AnyNode {
    callers: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    provider: Arc<CryptoProvider>,
}

impl AnyNode {
    /// `callers` checks the certificate; a worker's is good for calling only.
    pub(crate) fn new(callers: Arc<dyn ClientCertVerifier>, cluster: ClusterId) -> Arc<Self> {
        Arc::new(Self { callers, cluster, provider: tls::provider() })
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for AnyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyNode({})", self.cluster)
    }
}
