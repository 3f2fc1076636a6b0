//! The root authority of a cluster: it grants a certificate to the holder of a key.
//!
//! What is granted is decided by the caller (node, role, cluster, how long), never by the request.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, ServerName};
use swarm_types::id::{ClusterId, NodeId};
use swarm_types::time::Timestamp;
use time::OffsetDateTime;

use crate::credentials::{self, Credentials};
use crate::csr::{Csr, NodeKey};
use crate::digest::Digest;
use crate::peer::{self, PeerError};
use crate::role::Role;

/// How long before the moment of issue a certificate is valid, for nodes whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(3600);
/// The shortest life that a node's certificate may have.
pub const MIN_TTL: Duration = Duration::from_secs(3600);
/// The life of a node's certificate if nobody says otherwise: 90 days.
pub const DEFAULT_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// The life of a root: 20 years.
pub const ROOT_TTL: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// A root authority: certificate and key.
pub struct RootCa {
    cert: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    expires: Timestamp,
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Key or certificate could not be made.
    #[error("create root certificate")]
    Create(#[source] rcgen::Error),
    /// The system's generator failed.
    #[error("draw a serial number")]
    Random,
    /// A time that no certificate can hold.
    #[error("time {0} does not fit into a certificate")]
    Time(Timestamp),
    /// Not exactly one certificate.
    #[error("parse root certificate: expected one PEM certificate")]
    Pem,
    /// The certificate is damaged.
    #[error("parse root certificate")]
    Parse(#[source] PeerError),
    /// It is not an authority.
    #[error("root certificate is not that of an authority")]
    NotAuthority,
    /// The key is damaged or of an unknown kind.
    #[error("parse root key")]
    Key(#[source] rcgen::Error),
    /// Key and certificate are strangers.
    #[error("root key does not belong to the root certificate")]
    Mismatch,
}

/// Why a certificate is not granted.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A life of less than [`MIN_TTL`].
    #[error("certificate expiry must be at least 1h, got {}s", .0.as_secs())]
    TooShort(Duration),
    /// The root does not live long enough.
    #[error("root certificate expires at {0}")]
    RootExpired(Timestamp),
    /// Not something that fits into a certificate.
    #[error("malformed {attribute}: `{value}`")]
    Id { attribute: &'static str, value: String },
    /// A time that no certificate can hold.
    #[error("time {0} does not fit into a certificate")]
    Time(Timestamp),
    /// The system's generator failed.
    #[error("draw a serial number")]
    Random,
    /// The signature failed.
    #[error("sign certificate of {node}")]
    Sign {
        node: NodeId,
        #[source]
        source: rcgen::Error,
    },
}

/// What is granted.
#[derive(Debug, Clone)]
pub struct Grant {
    /// CN: the node's id, or an admin's name.
    pub node: NodeId,
    /// OU.
    pub role: Role,
    /// O.
    pub cluster: ClusterId,
    /// How long from now on; at least [`MIN_TTL`], and never beyond the root's own life.
    pub ttl: Duration,
}

impl RootCa {
    /// A new root, valid from an hour ago for 20 years. Its name holds its key's id, so that two roots never
    /// have the same name.
    pub fn create(now: Timestamp) -> Result<Self, RootError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(RootError::Create)?;
        let key_id = hex::encode(&Digest::of(&key.subject_public_key_info()).0[..8]);
        let expires = now.plus(ROOT_TTL);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("swarm-ca {key_id}"));
        params.not_before = date(backdated(now)).ok_or(RootError::Time(now))?;
        params.not_after = date(expires).ok_or(RootError::Time(expires))?;
        params.serial_number = Some(serial().ok_or(RootError::Random)?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(RootError::Create)?.der().clone();
        Ok(Self { cert, issuer: Issuer::new(params, key), expires })
    }

    /// The root from its two files.
    pub fn from_pem(cert: &str, key: &str) -> Result<Self, RootError> {
        let certs = credentials::certs_from_pem(cert).map_err(|_| RootError::Pem)?;
        let [cert] = <[_; 1]>::try_from(certs).map_err(|_| RootError::Pem)?;
        let key = KeyPair::from_pem(key).map_err(RootError::Key)?;
        let parsed = peer::parse(&cert).map_err(RootError::Parse)?;
        if !parsed.is_ca() {
            return Err(RootError::NotAuthority);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(RootError::Mismatch);
        }
        let expires = peer::millis(parsed.validity().not_after.timestamp()).map_err(RootError::Parse)?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(RootError::Create)?;
        Ok(Self { cert, issuer, expires })
    }

    /// The root's certificate.
    pub fn cert(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// The root's certificate as PEM.
    pub fn cert_pem(&self) -> String {
        credentials::certs_to_pem(std::slice::from_ref(&self.cert))
    }

    /// The root's private key as PEM. Secret: it belongs into the encrypted store of the managers only.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What join tokens pin.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.cert)
    }

    /// When the root runs out.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// A certificate for the key in `csr` that says what `grant` says, valid from an hour before `now`.
    pub fn issue(
        &self,
        csr: &Csr,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let params = self.params(grant, now)?;
        let cert = params.signed_by(&csr.key, &self.issuer);
        Ok(cert.map_err(|source| IssueError::Sign { node: grant.node, source })?.der().clone())
    }

    /// Whole credentials for `key`, made where the root's key is: at init, and for admins.
    pub fn credentials(
        &self,
        key: NodeKey,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Credentials, IssueError> {
        let leaf = self.issue(&Csr::of(&key), grant, now)?;
        Ok(Credentials { key, chain: vec![leaf], roots: vec![self.cert.clone()] })
    }

    fn params(&self, grant: &Grant, now: Timestamp) -> Result<CertificateParams, IssueError> {
        if grant.ttl < MIN_TTL {
            return Err(IssueError::TooShort(grant.ttl));
        }
        if now >= self.expires {
            return Err(IssueError::RootExpired(self.expires));
        }
        let node = label("node id", grant.node.as_str())?;
        let cluster = label("cluster id", grant.cluster.as_str())?;
        let expires = now.plus(grant.ttl).min(self.expires);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, cluster);
        params.distinguished_name.push(DnType::OrganizationalUnitName, grant.role.ou());
        params.distinguished_name.push(DnType::CommonName, node);
        params.not_before = date(backdated(now)).ok_or(IssueError::Time(now))?;
        params.not_after = date(expires).ok_or(IssueError::Time(expires))?;
        params.serial_number = Some(serial().ok_or(IssueError::Random)?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if grant.role.serves() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            let name = server_name(&grant.cluster).ok_or_else(|| malformed("cluster id", cluster))?;
            let name = name.to_str().into_owned().try_into().map_err(|_| malformed("cluster id", cluster))?;
            params.subject_alt_names = vec![SanType::DnsName(name)];
        }
        Ok(params)
    }
}

impl std::fmt::Debug for RootCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootCa({})", self.digest())
    }
}

/// The TLS name of every manager of `cluster`: `manager.<cluster id>`; `None` if the id fits into no name.
pub fn server_name(cluster: &ClusterId) -> Option<ServerName<'static>> {
    ServerName::try_from(format!("manager.{cluster}")).ok()
}

fn label<'a>(attribute: &'static str, value: &'a str) -> Result<&'a str, IssueError> {
    if peer::is_id(value) { Ok(value) } else { Err(malformed(attribute, value)) }
}

fn malformed(attribute: &'static str, value: &str) -> IssueError {
    IssueError::Id { attribute, value: value.to_owned() }
}

fn backdated(now: Timestamp) -> Timestamp {
    Timestamp(now.since(Timestamp::ZERO).saturating_sub(BACKDATE).as_secs() * 1000)
}

fn date(at: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_millis() / 1000).ok()?).ok()
}

/// 126 random bits below a set one: positive, never zero, always 16 bytes.
fn serial() -> Option<SerialNumber> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Some(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
pub(crate) mod tests;
