//! Credentials: a key, the certificate for it, and the roots it believes in. They are valid only together, so
//! they are kept, stored and replaced together.

use std::fmt;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;

use crate::csr::NodeKey;
use crate::peer::{self, PeerError, PeerIdentity};

/// All that its holder needs to prove itself and to check others.
#[derive(Clone)]
pub struct Credentials {
    /// The private key.
    pub key: NodeKey,
    /// The certificate for `key` first, then certificates that lead to a root (none, except while the root
    /// changes).
    pub chain: Vec<CertificateDer<'static>>,
    /// The authorities that vouch for this cluster's nodes. More than one only while the root changes.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why a text holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Not PEM.
    #[error("parse PEM")]
    Pem(#[source] pem::PemError),
    /// PEM of something else.
    #[error("unexpected `{0}` among the credentials")]
    Unexpected(String),
    /// No private key, or more than one.
    #[error("expected one private key, found {0}")]
    Keys(usize),
    /// The key is damaged.
    #[error("read private key")]
    Key(#[source] crate::csr::KeyError),
    /// A certificate is damaged.
    #[error("read certificate")]
    Cert(#[source] PeerError),
    /// There is no certificate of a node.
    #[error("found no node certificate")]
    NoLeaf,
    /// There is no root.
    #[error("found no root certificate")]
    NoRoot,
    /// The certificate is for another key.
    #[error("certificate of {0} does not belong to the private key")]
    Mismatch(swarm_types::id::NodeId),
}

impl Credentials {
    /// Who the certificate says its holder is.
    pub fn identity(&self) -> Result<PeerIdentity, CredentialsError> {
        let leaf = self.chain.first().ok_or(CredentialsError::NoLeaf)?;
        PeerIdentity::from_der(leaf).map_err(CredentialsError::Cert)
    }

    /// Checks that the parts fit together: a node's certificate, for this key, and at least one root.
    pub fn check(&self) -> Result<PeerIdentity, CredentialsError> {
        let identity = self.identity()?;
        let leaf = peer::parse(&self.chain[0]).map_err(CredentialsError::Cert)?;
        if leaf.public_key().raw != self.key.public_key() {
            return Err(CredentialsError::Mismatch(identity.node));
        }
        if self.roots.is_empty() {
            return Err(CredentialsError::NoRoot);
        }
        Ok(identity)
    }

    /// One text with everything in it: key, chain, roots. Secret.
    pub fn to_pem(&self) -> String {
        let key = pem::encode_config(&Pem::new(KEY, self.key.to_pkcs8()), config());
        key + &certs_to_pem(&self.chain) + &certs_to_pem(&self.roots)
    }

    /// The credentials from [`Credentials::to_pem`]. Certificates that issued themselves are the roots.
    pub fn from_pem(text: &str) -> Result<Self, CredentialsError> {
        let (mut keys, mut chain, mut roots) = (Vec::new(), Vec::new(), Vec::new());
        for part in pem::parse_many(text).map_err(CredentialsError::Pem)? {
            match part.tag() {
                KEY => keys.push(NodeKey::from_pkcs8(part.contents()).map_err(CredentialsError::Key)?),
                CERT if is_root(part.contents())? => roots.push(part.into_contents().into()),
                CERT => chain.push(part.into_contents().into()),
                other => return Err(CredentialsError::Unexpected(other.to_owned())),
            }
        }
        let [key] = <[_; 1]>::try_from(keys).map_err(|keys| CredentialsError::Keys(keys.len()))?;
        let credentials = Self { key, chain, roots };
        credentials.check()?;
        Ok(credentials)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, {} roots)", self.identity().ok(), self.roots.len())
    }
}

/// The certificates in a PEM text that holds nothing else.
pub fn certs_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let parts = pem::parse_many(text).map_err(CredentialsError::Pem)?;
    let cert = |part: Pem| match part.tag() {
        CERT => Ok(CertificateDer::from(part.into_contents())),
        other => Err(CredentialsError::Unexpected(other.to_owned())),
    };
    parts.into_iter().map(cert).collect()
}

/// The certificates as PEM, in order.
pub fn certs_to_pem(certs: &[CertificateDer<'_>]) -> String {
    certs.iter().map(|der| pem::encode_config(&Pem::new(CERT, der.to_vec()), config())).collect()
}

const KEY: &str = "PRIVATE KEY";
const CERT: &str = "CERTIFICATE";

fn config() -> EncodeConfig {
    EncodeConfig::new().set_line_ending(LineEnding::LF)
}

fn is_root(der: &[u8]) -> Result<bool, CredentialsError> {
    let cert = peer::parse(der).map_err(CredentialsError::Cert)?;
    Ok(cert.is_ca() && cert.subject().as_raw() == cert.issuer().as_raw())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ca::RootCa;
    use crate::ca::tests::{issue, root};
    use crate::role::Role;

    pub(crate) fn credentials(ca: &RootCa, node: &str, role: Role) -> Credentials {
        let (leaf, key) = issue(ca, node, role);
        Credentials { key, chain: vec![leaf], roots: vec![ca.cert().clone()] }
    }

    #[test]
    fn pem_round_trip() {
        let (old, new) = (root(), root());
        let mut before = credentials(&old, "n1", Role::Manager);
        before.roots.push(new.cert().clone());
        let after = Credentials::from_pem(&before.to_pem()).unwrap();
        assert_eq!(after.chain, before.chain);
        assert_eq!(after.roots, before.roots);
        assert_eq!(after.key.to_pkcs8(), before.key.to_pkcs8());
        assert!(!format!("{before:?}").contains("BEGIN"));
    }

    #[test]
    fn parts_must_fit() {
        let ca = root();
        let (good, other) = (credentials(&ca, "n1", Role::Worker), credentials(&ca, "n2", Role::Worker));
        let fail = |text: &str| Credentials::from_pem(text).unwrap_err().to_string();
        let mixed = Credentials { key: other.key.clone(), ..good.clone() };
        assert_eq!(fail(&mixed.to_pem()), "certificate of n1 does not belong to the private key");
        assert_eq!(
            fail(&Credentials { roots: vec![], ..good.clone() }.to_pem()),
            "found no root certificate"
        );
        assert_eq!(fail(&certs_to_pem(&good.chain)), "expected one private key, found 0");
        assert_eq!(fail(&(other.to_pem() + &good.to_pem())), "expected one private key, found 2");
        assert_eq!(
            fail(&Credentials { chain: vec![], ..good.clone() }.to_pem()),
            "found no node certificate"
        );
        assert_eq!(
            fail(&good.to_pem().replace("PRIVATE", "PUBLIC")),
            "unexpected `PUBLIC KEY` among the credentials"
        );
        let text = good.to_pem();
        // without its last line end it is whole
        for end in (0..text.trim_end().len()).step_by(97) {
            assert!(Credentials::from_pem(&text[..end]).is_err(), "cut at {end}");
        }
    }
}
