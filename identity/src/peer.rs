//! Who is at the other end: node, role and cluster, read from a certificate.
//!
//! Reading is strict. Whether the certificate may be believed (issuer, dates, purpose) is what the TLS
//! handshake checked before; see [`crate::tls`].

use rustls_pki_types::CertificateDer;
use swarm_types::id::{ClusterId, MAX_ID_BYTES, NodeId};
use swarm_types::time::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::role::Role;

/// What a certificate of ours says about its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// CN: the node's id; for [`Role::Admin`] the name of the person or context.
    pub node: NodeId,
    /// OU: what the holder may be.
    pub role: Role,
    /// O: the cluster that vouches for it.
    pub cluster: ClusterId,
    /// First moment at which the certificate is valid (an hour before it was issued).
    pub not_before: Timestamp,
    /// Last moment at which the certificate is valid.
    pub expires: Timestamp,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
}

/// Why a certificate says nothing that we understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a certificate, or bytes after it.
    #[error("parse certificate")]
    Parse,
    /// An attribute of the subject is absent.
    #[error("certificate subject has no {attribute}")]
    Missing { attribute: &'static str },
    /// An attribute of the subject is there twice: which one would count?
    #[error("certificate subject has more than one {attribute}")]
    Repeated { attribute: &'static str },
    /// The subject says something besides CN, OU and O.
    #[error("certificate subject has an attribute that no node has: {oid}")]
    Foreign { oid: String },
    /// An attribute is not text.
    #[error("read {attribute} of the certificate subject")]
    Text { attribute: &'static str },
    /// The OU names no role.
    #[error("certificate has the unknown role `{ou}`")]
    Role { ou: String },
    /// CN or O is not an id.
    #[error("certificate has a malformed {attribute}: `{value}`")]
    Id { attribute: &'static str, value: String },
    /// A CA's certificate does not name a node.
    #[error("certificate belongs to an authority, not to a node")]
    Authority,
    /// A date before 1970.
    #[error("certificate has dates that are out of range")]
    Dates,
}

/// Why a peer that is who it says it is may still not do what it asks for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeerRefused {
    /// It belongs to another cluster.
    #[error("node {node} belongs to cluster {cluster}")]
    Cluster { node: NodeId, cluster: ClusterId },
    /// Its certificate ran out while the connection stayed open.
    #[error("certificate of node {node} expired at {expires}")]
    Expired { node: NodeId, expires: Timestamp },
    /// Its role is not among the allowed ones.
    #[error("role {role} of node {node} is not allowed here")]
    Role { node: NodeId, role: Role },
    /// It was removed from the cluster.
    #[error("node {node} was removed from the cluster")]
    Removed { node: NodeId },
}

impl PeerIdentity {
    /// Reads the holder's identity from one certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, PeerError> {
        let cert = parse(der)?;
        if cert.is_ca() {
            return Err(PeerError::Authority);
        }
        let subject = Subject::read(cert.subject())?;
        let ou = subject.unit;
        Ok(Self {
            node: NodeId::new(checked_id("node id", subject.name)?),
            role: Role::from_ou(ou).ok_or_else(|| PeerError::Role { ou: ou.to_owned() })?,
            cluster: ClusterId::new(checked_id("cluster id", subject.organization)?),
            not_before: millis(cert.validity().not_before.timestamp())?,
            expires: millis(cert.validity().not_after.timestamp())?,
            serial: hex::encode(cert.raw_serial()),
        })
    }

    /// Reads the identity from the chain that a peer presented, leaf first; `None` if it presented nothing.
    pub fn from_chain(chain: Option<&[CertificateDer<'_>]>) -> Result<Option<Self>, PeerError> {
        chain.and_then(<[_]>::first).map(|leaf| Self::from_der(leaf)).transpose()
    }

    /// Whether this peer may make a call that is open to `allowed` roles of `cluster`.
    ///
    /// Connections outlive certificates and memberships: ask for every call, with `removed` reading the
    /// list of removed nodes as it is now.
    pub fn check(
        &self,
        cluster: &ClusterId,
        allowed: &[Role],
        now: Timestamp,
        removed: impl FnOnce(&PeerIdentity) -> bool,
    ) -> Result<(), PeerRefused> {
        let node = self.node;
        if self.cluster != *cluster {
            return Err(PeerRefused::Cluster { node, cluster: self.cluster });
        }
        if now > self.expires {
            return Err(PeerRefused::Expired { node, expires: self.expires });
        }
        if removed(self) {
            return Err(PeerRefused::Removed { node });
        }
        if !allowed.contains(&self.role) {
            return Err(PeerRefused::Role { node, role: self.role });
        }
        Ok(())
    }
}

/// True for what can be a node's or a cluster's id in a certificate: one DNS label of `0-9a-z-` (the
/// cluster's is part of a DNS name) of at most 25 characters (a longer one would be cut, and then equal
/// another).
pub fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-')
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PeerError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) | Err(_) => Err(PeerError::Parse),
    }
}

pub(crate) fn millis(seconds: i64) -> Result<Timestamp, PeerError> {
    let seconds = u64::try_from(seconds).map_err(|_| PeerError::Dates)?;
    Ok(Timestamp(seconds.saturating_mul(1000)))
}

fn checked_id<'a>(attribute: &'static str, value: &'a str) -> Result<&'a str, PeerError> {
    if is_id(value) { Ok(value) } else { Err(PeerError::Id { attribute, value: value.to_owned() }) }
}

struct Subject<'a> {
    name: &'a str,
    unit: &'a str,
    organization: &'a str,
}

impl<'a> Subject<'a> {
    fn read(subject: &'a X509Name<'_>) -> Result<Self, PeerError> {
        let known = [OID_X509_COMMON_NAME, OID_X509_ORGANIZATIONAL_UNIT, OID_X509_ORGANIZATION_NAME];
        if let Some(other) = subject.iter_attributes().find(|a| !known.contains(a.attr_type())) {
            return Err(PeerError::Foreign { oid: other.attr_type().to_id_string() });
        }
        Ok(Self {
            name: the_one(subject, &OID_X509_COMMON_NAME, "CN")?,
            unit: the_one(subject, &OID_X509_ORGANIZATIONAL_UNIT, "OU")?,
            organization: the_one(subject, &OID_X509_ORGANIZATION_NAME, "O")?,
        })
    }
}

fn the_one<'a>(
    subject: &'a X509Name<'_>,
    oid: &Oid<'_>,
    attribute: &'static str,
) -> Result<&'a str, PeerError> {
    let mut found = subject.iter_attributes().filter(|a| a.attr_type() == oid);
    let first = found.next().ok_or(PeerError::Missing { attribute })?;
    if found.next().is_some() {
        return Err(PeerError::Repeated { attribute });
    }
    first.as_str().map_err(|_| PeerError::Text { attribute })
}

#[cfg(test)]
mod tests;
