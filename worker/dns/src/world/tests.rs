use std::str::FromStr;

use swarm_types::endpoint::{Port, PublishMode};

use super::*;
use crate::testing::{change_network, network, publish, service, serving, task};

struct Scene {
    set: NetworkSet,
    attachments: Attachments,
    front: NetworkId,
    back: NetworkId,
}

/// `web` on `front` and `back`; a caller (10.1.0.50, 10.2.0.50) on both.
fn scene() -> Scene {
    let mut set = NetworkSet::default();
    let (front, back) = (network(&mut set, "front", 1), network(&mut set, "back", 2));
    let ingress = network(&mut set, "ingress", 255);
    change_network(&mut set, ingress, |part| part.ingress = true);
    service(&mut set, front, "web", &[], &["10.1.1.1", "fd00:1::100"]);
    service(&mut set, back, "web", &[], &["10.2.1.1"]);
    service(&mut set, back, "db", &[], &[]);
    service(&mut set, ingress, "web", &[], &[]);
    service(&mut set, ingress, "db", &[], &[]);
    let port = |protocol, published, target| Port {
        protocol,
        target,
        published,
        mode: PublishMode::Ingress,
        host_ip: None,
    };
    publish(
        &mut set,
        ingress,
        "web",
        &[port(Protocol::Tcp, 8080, 80), port(Protocol::Tcp, 8443, 443), port(Protocol::Udp, 8080, 443)],
    );
    publish(&mut set, ingress, "db", &[port(Protocol::Tcp, 0, 5432)]);
    task(&mut set, front, "web", 1, &["10.1.0.11"]);
    task(&mut set, back, "db", 1, &["10.2.0.21"]);
    task(&mut set, back, "db", 2, &["10.2.0.22"]);
    task(&mut set, front, "call", 1, &["10.1.0.50"]);
    task(&mut set, back, "call", 1, &["10.2.0.50"]);
    task(&mut set, ingress, "call", 1, &["10.255.0.50"]);
    Scene { set, attachments: Attachments::new(), front, back }
}

impl Scene {
    fn ask_at(&self, network: NetworkId, source: &str, name: &str, kind: &str) -> String {
        let world = World::new(
            &self.set,
            Arc::new(self.attachments.clone()),
            &World::default(),
            &NetworkSet::default(),
        );
        let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::from_str(kind).unwrap());
        let asker = Asker { network, source: source.parse().unwrap(), most: 100 };
        shown(world.ask(asker, &query, &mut Shuffle::default()))
    }

    fn ask(&self, name: &str, kind: &str) -> String {
        self.ask_at(self.front, "10.1.0.50", name, kind)
    }
}

fn shown(answer: Answer) -> String {
    match answer {
        Answer::Records(records, _) => {
            assert!(records.iter().all(|r| r.ttl == TTL));
            let mut records: Vec<String> = records.iter().map(|r| r.data.to_string()).collect();
            records.sort();
            records.join(", ")
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn types_of_a_name() {
    let scene = scene();
    let table = [
        ("web.", "A", "10.1.1.1"),
        ("WeB.", "AAAA", "fd00:1::100"),
        ("web.back.", "AAAA", "NoData"),
        ("web.back.", "A", "10.2.1.1"),
        ("web.", "MX", "NoData"),
        ("web.", "HTTPS", "NoData"),
        ("web.", "ANY", "RFC8482 "),
        ("example.com.", "ANY", "RFC8482 "),
        ("db.", "A", "10.2.0.21, 10.2.0.22"),
        ("db.7.", "A", "NoName"),
        ("example.com.", "A", "Forward"),
        ("single.", "A", "Forward"),
        (".", "NS", "Forward"),
        ("web.", "AXFR", "Refused"),
        (r"we\.b.", "A", "Forward"),
        ("11.0.1.10.in-addr.arpa.", "PTR", "web.1.0001webxxxxxxxxxxxxxxxxxx.front."),
        ("1.1.2.10.in-addr.ARPA.", "PTR", "web.back."),
        ("1.1.2.10.in-addr.arpa.", "A", "NoData"),
        ("99.0.1.10.in-addr.arpa.", "PTR", "NoName"),
        ("99.0.77.10.in-addr.arpa.", "PTR", "Forward"),
        ("1.10.in-addr.arpa.", "PTR", "Forward"),
        ("a.0.1.10.in-addr.arpa.", "PTR", "Forward"),
        ("0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.D.f.ip6.arpa.", "PTR", "web.front."),
        ("0.0.x.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.D.f.ip6.arpa.", "PTR", "Forward"),
    ];
    for (name, kind, answer) in table {
        assert_eq!(scene.ask(name, kind), answer, "{name} {kind}");
    }
}

#[test]
fn service_locations() {
    let scene = scene();
    let table = [
        ("_80._tcp.web.", "0 0 80 web.front."),
        ("_8080._tcp.web.", "0 0 80 web.front."),
        ("_8080._UDP.web.", "0 0 443 web.front."),
        ("_tcp.web.", "0 0 443 web.front., 0 0 80 web.front."),
        ("_tcp.web.back.", "0 0 443 web.back., 0 0 80 web.back."),
        ("_80._udp.web.", "NoName"),
        ("_0._tcp.db.", "NoName"),
        ("_http._tcp.web.", "NoName"),
        ("_http._tcp.example.com.", "Forward"),
        ("_dmarc.example.com.", "Forward"),
        (
            "_5432._tcp.db.",
            "0 1 5432 db.1.0001dbxxxxxxxxxxxxxxxxxxx.back., 0 1 5432 db.2.0002dbxxxxxxxxxxxxxxxxxxx.back.",
        ),
        ("_tcp.db.2.", "0 1 5432 db.2.0002dbxxxxxxxxxxxxxxxxxxx.back."),
        (
            "_tcp.tasks.web.",
            "0 1 443 web.1.0001webxxxxxxxxxxxxxxxxxx.front., 0 1 80 web.1.0001webxxxxxxxxxxxxxxxxxx.front.",
        ),
        ("web.", "NoData"),
    ];
    for (name, answer) in table {
        assert_eq!(scene.ask(name, "SRV"), answer, "{name}");
    }
    assert_eq!(scene.ask("_80._tcp.web.", "A"), "NoData");
    assert_eq!(scene.ask("_80._tcp.web.", "ANY"), "RFC8482 ");
}

#[test]
fn networks_are_tried_in_the_order_of_attachments() {
    let mut scene = scene();
    assert_eq!(scene.ask("web.", "A"), "10.1.1.1", "the network asked");
    assert_eq!(scene.ask_at(scene.back, "10.2.0.50", "web.", "A"), "10.2.1.1");
    let call =
        *scene.set.networks[&scene.front].endpoints.iter().find(|(_, t)| t.name == "call.1").unwrap().0;
    scene.attachments.insert(call, vec![scene.back, scene.front]);
    assert_eq!(scene.ask("web.", "A"), "10.2.1.1");
    assert_eq!(scene.ask("web.front.", "A"), "10.1.1.1");
    scene.attachments.insert(call, vec![NetworkId::new("gone")]);
    assert_eq!(scene.ask("web.", "A"), "10.1.1.1");
    // who is no task of ours has the network asked, and no other
    assert_eq!(scene.ask_at(scene.front, "10.1.0.99", "db.", "A"), "Forward");
}

#[test]
fn internal_networks_ask_nobody() {
    let mut scene = scene();
    change_network(&mut scene.set, scene.front, |part| part.internal = true);
    assert_eq!(scene.ask("example.com.", "A"), "Forward", "it is on another network, which has a way out");
    assert_eq!(scene.ask_at(scene.front, "10.1.0.99", "example.com.", "A"), "NoName");
    change_network(&mut scene.set, scene.back, |part| part.internal = true);
    for kind in ["A", "ANY", "PTR", "SRV"] {
        assert_eq!(scene.ask("example.com.", kind), "NoName", "the ingress network is no way out");
    }
    assert_eq!(scene.ask("web.", "A"), "10.1.1.1");
    assert_eq!(scene.ask_at(NetworkId::new("gone"), "10.1.0.50", "example.com.", "A"), "NoName");
    // a task without networks of its own has a way out
    let ingress = scene.set.ingress().unwrap().network.id;
    task(&mut scene.set, ingress, "alone", 1, &["10.255.0.60"]);
    assert_eq!(scene.ask_at(ingress, "10.255.0.60", "example.com.", "A"), "Forward");
    assert_eq!(scene.ask_at(ingress, "10.255.0.60", "web.", "A"), "Forward");
}

#[test]
fn zones_that_stay_as_they_were_are_kept() {
    let mut scene = scene();
    let none = Arc::new(Attachments::new());
    let before = World::new(&scene.set, none.clone(), &World::default(), &NetworkSet::default());
    let old = scene.set.clone();
    let web = task(&mut scene.set, scene.front, "web", 1, &["10.1.0.11"]);
    serving(&mut scene.set, scene.front, web, false);
    let after = World::new(&scene.set, none, &before, &old);
    assert!(Arc::ptr_eq(&before.zones[&scene.back], &after.zones[&scene.back]));
    assert!(!Arc::ptr_eq(&before.zones[&scene.front], &after.zones[&scene.front]));
}
