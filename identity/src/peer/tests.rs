//! Strict reading, per-call checks, and no panic on any bytes.

use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};

use super::*;
use crate::ca::tests::{CLUSTER, DAY, NOW, issue, root};

fn self_signed(attributes: &[(DnType, &str)]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in attributes {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

const CN: DnType = DnType::CommonName;
const OU: DnType = DnType::OrganizationalUnitName;
const O: DnType = DnType::OrganizationName;

#[test]
fn refuses_incomplete_and_foreign_subjects() {
    let read = |attributes: &[(DnType, &str)]| PeerIdentity::from_der(&self_signed(attributes)).unwrap_err();
    assert_eq!(read(&[]), PeerError::Missing { attribute: "CN" });
    assert_eq!(read(&[(CN, "n1"), (O, "c1")]), PeerError::Missing { attribute: "OU" });
    assert_eq!(read(&[(CN, "n1"), (OU, "swarm-worker")]), PeerError::Missing { attribute: "O" });
    assert_eq!(
        read(&[(CN, "n1"), (OU, "boss"), (O, "c1")]).to_string(),
        "certificate has the unknown role `boss`"
    );
    let foreign = read(&[(CN, "n1"), (OU, "swarm-worker"), (O, "c1"), (DnType::CountryName, "XX")]);
    assert_eq!(foreign, PeerError::Foreign { oid: "2.5.4.6".into() });
    for bad in ["N1", "", "a b", "-a", "a/../b", &format!("{CLUSTER}a")] {
        let error = read(&[(CN, bad), (OU, "swarm-worker"), (O, "c1")]);
        assert_eq!(error, PeerError::Id { attribute: "node id", value: bad.into() });
    }
}

#[test]
fn refuses_a_repeated_attribute() {
    // rcgen cannot write an attribute twice: turn the O of a certificate into a second OU (the last byte of
    // the OID).
    let mut der = self_signed(&[(CN, "n1"), (OU, "swarm-worker"), (O, "c1")]);
    let organization = [0x06, 0x03, 0x55, 0x04, 0x0a];
    for at in 0..der.len() - organization.len() {
        if der[at..at + organization.len()] == organization {
            der[at + 4] = 0x0b;
        }
    }
    assert_eq!(PeerIdentity::from_der(&der).unwrap_err(), PeerError::Repeated { attribute: "OU" });
}

#[test]
fn refuses_an_authority_and_trailing_bytes() {
    let ca = root();
    assert_eq!(PeerIdentity::from_der(ca.cert()).unwrap_err(), PeerError::Authority);
    let mut der = issue(&ca, "n1", Role::Worker).0.to_vec();
    der.push(0);
    assert_eq!(PeerIdentity::from_der(&der).unwrap_err(), PeerError::Parse);
}

#[test]
fn check_names_the_reason() {
    let ca = root();
    let peer = PeerIdentity::from_der(&issue(&ca, "n1", Role::Worker).0).unwrap();
    let cluster = ClusterId::new(CLUSTER);
    let both = [Role::Manager, Role::Worker];
    assert_eq!(peer.check(&cluster, &both, NOW, |_| false), Ok(()));
    let say = |r: Result<(), PeerRefused>| r.unwrap_err().to_string();
    assert_eq!(
        say(peer.check(&cluster, &[Role::Manager], NOW, |_| false)),
        "role worker of node n1 is not allowed here"
    );
    assert_eq!(
        say(peer.check(&cluster, &both, NOW, |p| p.node.as_str() == "n1")),
        "node n1 was removed from the cluster"
    );
    assert_eq!(
        say(peer.check(&ClusterId::new("other"), &both, NOW, |_| false)),
        format!("node n1 belongs to cluster {CLUSTER}")
    );
    let late = NOW.plus(DAY * 91);
    assert!(
        say(peer.check(&cluster, &both, late, |_| false)).starts_with("certificate of node n1 expired at 20")
    );
}

static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| issue(&root(), "n1", Role::Manager).0.to_vec());

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(PeerIdentity::from_der(&bytes).is_err());
    }

    #[test]
    fn damaged_certificates_never_panic(at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
        let mut der = SAMPLE.clone();
        let at = at.index(der.len());
        der[at] = value;
        if let Ok(peer) = PeerIdentity::from_der(&der) {
            prop_assert!(is_id(peer.node.as_str()) && is_id(peer.cluster.as_str()));
        }
        der.truncate(cut.index(SAMPLE.len()));
        prop_assert!(PeerIdentity::from_der(&der).is_err());
    }
}
