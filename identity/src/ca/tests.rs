//! What a certificate grants, and what it does not.

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use x509_parser::extensions::GeneralName;

use super::*;
use crate::peer::PeerIdentity;

pub(crate) const CLUSTER: &str = "c0123456789abcdefghijklmn";
/// 2026-11-21T03:42:03Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_232_523_000);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn root() -> RootCa {
    RootCa::create(NOW).unwrap()
}

pub(crate) fn grant(node: &str, role: Role) -> Grant {
    Grant { node: node.into(), role, cluster: CLUSTER.into(), ttl: DEFAULT_TTL }
}

pub(crate) fn issue(ca: &RootCa, node: &str, role: Role) -> (CertificateDer<'static>, NodeKey) {
    issue_for(ca, &grant(node, role), NOW)
}

pub(crate) fn issue_for(ca: &RootCa, grant: &Grant, now: Timestamp) -> (CertificateDer<'static>, NodeKey) {
    let key = NodeKey::generate().unwrap();
    let csr = Csr::from_der(&key.request().unwrap()).unwrap();
    (ca.issue(&csr, grant, now).unwrap(), key)
}

/// What matters about a certificate, as one line: EKUs, DNS names, CA or not.
fn rights(der: &[u8]) -> String {
    let cert = peer::parse(der).unwrap();
    let eku =
        cert.extended_key_usage().unwrap().map(|e| (e.value.server_auth, e.value.client_auth, e.value.any));
    let names = cert.subject_alternative_name().unwrap().map(|san| {
        let names = san.value.general_names.iter().map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            other => format!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    });
    format!("ca={} eku={eku:?} san={names:?}", cert.is_ca())
}

#[test]
fn each_role_gets_its_rights() {
    let ca = root();
    let manager = format!("ca=false eku=Some((true, true, false)) san=Some([\"manager.{CLUSTER}\"])");
    assert_eq!(rights(&issue(&ca, "n1", Role::Manager).0), manager);
    for role in [Role::Worker, Role::Admin] {
        assert_eq!(rights(&issue(&ca, "n1", role).0), "ca=false eku=Some((false, true, false)) san=None");
    }
}

#[test]
fn a_certificate_says_what_was_granted() {
    let ca = root();
    let (cert, key) = issue(&ca, "n1", Role::Worker);
    let peer = PeerIdentity::from_der(&cert).unwrap();
    assert_eq!((peer.node.as_str(), peer.role, peer.cluster.as_str()), ("n1", Role::Worker, CLUSTER));
    assert_eq!(peer.not_before.plus(BACKDATE), NOW);
    assert_eq!(peer.expires, NOW.plus(DEFAULT_TTL));
    assert_eq!(peer::parse(&cert).unwrap().public_key().raw, key.public_key());
    let again = PeerIdentity::from_der(&issue(&ca, "n1", Role::Worker).0).unwrap();
    assert_ne!(peer.serial, again.serial);
    assert_eq!(peer.serial.len(), 32);
}

#[test]
fn a_request_for_more_gets_only_what_is_granted() {
    let mut wish = CertificateParams::new(vec![format!("manager.{CLUSTER}"), "evil.example".into()]).unwrap();
    wish.distinguished_name.push(DnType::CommonName, "somebody-else");
    wish.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    wish.distinguished_name.push(DnType::OrganizationName, "other");
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let csr = Csr::from_der(wish.serialize_request(&key).unwrap().der()).unwrap();

    let cert = root().issue(&csr, &grant("n1", Role::Worker), NOW).unwrap();
    assert_eq!(rights(&cert), "ca=false eku=Some((false, true, false)) san=None");
    let peer = PeerIdentity::from_der(&cert).unwrap();
    assert_eq!((peer.node.as_str(), peer.role, peer.cluster.as_str()), ("n1", Role::Worker, CLUSTER));
    assert_eq!(peer.expires, NOW.plus(DEFAULT_TTL));
    let usage = peer::parse(&cert)
        .unwrap()
        .key_usage()
        .unwrap()
        .map(|u| (u.value.digital_signature(), u.value.key_cert_sign()));
    assert_eq!(usage, Some((true, false)));
}

#[test]
fn credentials_made_by_the_authority_fit() {
    let made = root().credentials(NodeKey::generate().unwrap(), &grant("admin-1", Role::Admin), NOW).unwrap();
    let peer = made.check().unwrap();
    assert_eq!((peer.node.as_str(), peer.role), ("admin-1", Role::Admin));
    assert_eq!(Credentials::from_pem(&made.to_pem()).unwrap().chain, made.chain);
}

#[test]
fn a_root_survives_its_files_and_has_a_name_of_its_own() {
    let ca = root();
    let again = RootCa::from_pem(&ca.cert_pem(), &ca.key_pem()).unwrap();
    assert_eq!((again.digest(), again.expires()), (ca.digest(), NOW.plus(ROOT_TTL)));
    let subject = |der: &[u8]| peer::parse(der).unwrap().subject().to_string();
    assert!(subject(ca.cert()).starts_with("CN=swarm-ca "));
    assert_ne!(subject(ca.cert()), subject(root().cert()));
    let issuer = |der: &[u8]| peer::parse(der).unwrap().issuer().as_raw().to_vec();
    assert_eq!(issuer(&issue(&again, "n1", Role::Worker).0), issuer(ca.cert()));
    let leaf = issue(&again, "n1", Role::Worker).0;
    let root_key = peer::parse(ca.cert()).unwrap();
    assert!(peer::parse(&leaf).unwrap().verify_signature(Some(root_key.public_key())).is_ok());
    assert_eq!(format!("{ca:?}"), format!("RootCa({})", ca.digest()));
}

#[test]
fn a_root_needs_its_own_key() {
    let (ca, other) = (root(), root());
    let load = |cert: &str, key: &str| RootCa::from_pem(cert, key).unwrap_err().to_string();
    assert_eq!(load(&ca.cert_pem(), &other.key_pem()), "root key does not belong to the root certificate");
    assert_eq!(load("", &ca.key_pem()), "parse root certificate: expected one PEM certificate");
    assert_eq!(load(&ca.cert_pem(), "x"), "parse root key");
    let (leaf, key) = issue(&ca, "n1", Role::Manager);
    let pem = credentials::certs_to_pem(&[leaf]);
    let key = pem::encode(&pem::Pem::new("PRIVATE KEY", key.to_pkcs8()));
    assert_eq!(load(&pem, &key), "root certificate is not that of an authority");
}

#[test]
fn limits() {
    let ca = root();
    let csr = Csr::from_der(&NodeKey::generate().unwrap().request().unwrap()).unwrap();
    let try_issue = |change: &dyn Fn(&mut Grant), now| {
        let mut grant = grant("n1", Role::Manager);
        change(&mut grant);
        ca.issue(&csr, &grant, now)
    };
    let refused = |change: &dyn Fn(&mut Grant), now| try_issue(change, now).unwrap_err().to_string();
    assert_eq!(
        refused(&|g| g.ttl = Duration::from_secs(3599), NOW),
        "certificate expiry must be at least 1h, got 3599s"
    );
    assert_eq!(refused(&|g| g.node = "N1".into(), NOW), "malformed node id: `N1`");
    assert_eq!(refused(&|g| g.cluster = "".into(), NOW), "malformed cluster id: ``");
    assert_eq!(refused(&|g| g.cluster = ClusterId::MAX, NOW), "malformed cluster id: ``");
    assert!(refused(&|_| (), NOW.plus(ROOT_TTL)).starts_with("root certificate expires at 2046-"));
    assert!(matches!(RootCa::create(Timestamp::MAX), Err(RootError::Time(_))));

    assert!(try_issue(&|g| g.ttl = MIN_TTL, NOW).is_ok());
    let capped = try_issue(&|g| g.ttl = Duration::MAX, NOW).unwrap();
    assert_eq!(PeerIdentity::from_der(&capped).unwrap().expires, ca.expires());
}
