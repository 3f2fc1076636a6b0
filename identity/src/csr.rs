//! A node's key, and the request that asks for a certificate for it.
//!
//! A request proves that the asker holds the key, and nothing else: whatever it wishes for is ignored.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;

/// The private key (ECDSA P-256) of a node or an admin. Never printed.
#[derive(Clone)]
pub struct NodeKey(Arc<KeyPair>);

/// Why there is no key or no request.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The generator or the signature failed.
    #[error("generate a P-256 key")]
    Generate(#[source] rcgen::Error),
    /// Not a PKCS#8 P-256 key.
    #[error("parse private key: not a PKCS#8 P-256 key")]
    Parse,
    /// The request could not be signed.
    #[error("sign certificate request")]
    Request(#[source] rcgen::Error),
}

/// Why a request is not honoured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsrError {
    /// Not a request, or bytes after it.
    #[error("parse certificate request")]
    Parse,
    /// The asker does not hold the key.
    #[error("verify the signature of the certificate request")]
    Signature,
    /// Another kind of key than ECDSA P-256.
    #[error("certificate request has a key that is not ECDSA P-256")]
    Algorithm,
}

impl NodeKey {
    /// A new key from the system's generator.
    pub fn generate() -> Result<Self, KeyError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        Ok(Self(Arc::new(key)))
    }

    /// The key from its PKCS#8 DER form.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        Ok(Self(Arc::new(key.map_err(|_| KeyError::Parse)?)))
    }

    /// The key in PKCS#8 DER form. Secret.
    pub fn to_pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The key as rustls takes it.
    pub fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.to_pkcs8().to_vec()))
    }

    /// The public half, as SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A request (PKCS#10, DER) for a certificate for this key. It asks for nothing: the manager decides.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&*self.0).map_err(KeyError::Request)?;
        Ok(csr.der().to_vec())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(secret)")
    }
}

/// A request whose signature was verified, reduced to its public key.
pub struct Csr {
    pub(crate) key: SubjectPublicKeyInfo,
}

impl Csr {
    /// The request of one who needs none, because it is the authority itself that asks (at init, for an
    /// admin).
    pub fn of(key: &NodeKey) -> Self {
        let key = SubjectPublicKeyInfo::from_der(&key.public_key())
            .expect("the generator made it, so it can be read");
        Self { key }
    }

    /// Reads a PKCS#10 request and verifies that the asker holds the key.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else { return Err(CsrError::Parse) };
        let key = &request.certification_request_info.subject_pki;
        if !is_p256(key) {
            return Err(CsrError::Algorithm);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Algorithm)?;
        Ok(Self { key })
    }
}

impl fmt::Debug for Csr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Csr({})", hex::encode(self.key.der_bytes()))
    }
}

fn is_p256(key: &ParsedKey<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(OID_EC_P256)
        && matches!(&*key.subject_public_key.data, [4, point @ ..] if point.len() == 64)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_survives_its_file_form() {
        let key = NodeKey::generate().unwrap();
        let again = NodeKey::from_pkcs8(key.to_pkcs8()).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert_eq!(format!("{key:?}"), "NodeKey(secret)");
        assert!(NodeKey::from_pkcs8(b"no key").is_err());
    }

    #[test]
    fn request_carries_the_public_key() {
        let key = NodeKey::generate().unwrap();
        assert_eq!(Csr::of(&key).key.subject_public_key_info(), key.public_key());
        let csr = Csr::from_der(&key.request().unwrap()).unwrap();
        assert_eq!(csr.key.subject_public_key_info(), key.public_key());
    }

    #[test]
    fn refuses_other_keys_and_false_signatures() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let csr = CertificateParams::default().serialize_request(&other).unwrap();
        assert_eq!(Csr::from_der(csr.der()).unwrap_err(), CsrError::Algorithm);
        let large = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let csr = CertificateParams::default().serialize_request(&large).unwrap();
        assert_eq!(Csr::from_der(csr.der()).unwrap_err(), CsrError::Algorithm);

        let mut der = NodeKey::generate().unwrap().request().unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert_eq!(Csr::from_der(&der).unwrap_err(), CsrError::Signature);
        assert_eq!(Csr::from_der(b"").unwrap_err(), CsrError::Parse);
    }

    static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| NodeKey::generate().unwrap().request().unwrap());

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Csr::from_der(&bytes).is_err());
        }

        #[test]
        fn a_changed_byte_never_changes_the_key(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut der = SAMPLE.clone();
            let at = at.index(der.len());
            der[at] ^= flip;
            // The parser forgives some tags around what is signed; it forgives nothing in it.
            if let Ok(csr) = Csr::from_der(&der) {
                prop_assert_eq!(csr.key, Csr::from_der(&SAMPLE).unwrap().key);
            }
        }
    }
}
