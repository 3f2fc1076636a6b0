//! Every statement, as `nft` reads it back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;

use support::*;
use swarm_worker_core::network::firewall::{
    Chain, ChainKind, Choice, Chooser, Compare::*, Family, Field, Hook, HookPoint, Map, MapElements, Rule,
    Statement::*, Table, Value, Verdict,
};
use swarm_worker_core::network::kernel::{Mac, Namespace, Place};

const NODE2: Mac = Mac([2, 0x53, 3, 0, 0, 2]);

/// Rules of one chain and what nft prints of each.
fn ip_rules() -> Vec<(Rule, &'static str)> {
    let is = |field, value| Match(field, Is, value);
    let isnt = |field, value| Match(field, IsNot, value);
    let accept = || Verdict(Verdict::Accept);
    let number = Value::Number;
    let all = vec![
        (vec![is(Field::Iifname, Value::Name("eth0".into())), accept()], "iifname \"eth0\" accept"),
        (vec![isnt(Field::Oifname, Value::Name("sw-*".into())), accept()], "oifname != \"sw-*\" accept"),
        (vec![is(Field::IpSaddr, addr("10.0.0.1")), accept()], "ip saddr 10.0.0.1 accept"),
        (
            vec![isnt(Field::IpDaddr, Value::Net(net("10.0.0.0/8"))), accept()],
            "ip daddr != 10.0.0.0/8 accept",
        ),
        (vec![is(Field::IpDaddr, Value::Net(net("10.8.0.0/13"))), accept()], "ip daddr 10.8.0.0/13 accept"),
        (vec![is(Field::L4Proto, Value::Protocol(132)), accept()], "meta l4proto sctp accept"),
        (
            vec![
                is(Field::L4Proto, Value::Protocol(17)),
                is(Field::DestinationPort, Value::Port(53)),
                accept(),
            ],
            "udp dport 53 accept",
        ),
        (
            vec![is(Field::L4Proto, Value::Protocol(6)), isnt(Field::SourcePort, Value::Port(53)), accept()],
            "tcp sport != 53 accept",
        ),
        (vec![is(Field::EtherSaddr, Value::Mac(NODE2)), accept()], "ether saddr 02:53:03:00:00:02 accept"),
        (vec![is(Field::CtState, number(6)), accept()], "ct state established,related accept"),
        (vec![isnt(Field::CtState, number(8)), accept()], "ct state ! new accept"),
        (vec![is(Field::CtStatus, number(32)), accept()], "ct status dnat accept"),
        (
            vec![is(Field::CtDirection, number(1)), isnt(Field::CtMark, number(0)), SetMarkFromConnection],
            "ct direction reply ct mark != 0x00000000 meta mark set ct mark",
        ),
        (vec![is(Field::Mark, number(0x10000)), accept()], "meta mark 0x00010000 accept"),
        (
            vec![Between(Field::Mark, Is, number(1), number(5)), accept()],
            "meta mark 0x00000001-0x00000005 accept",
        ),
        (
            vec![Between(Field::IpDaddr, IsNot, addr("10.255.1.2"), addr("10.255.1.254")), Notrack],
            "ip daddr != 10.255.1.2-10.255.1.254 notrack",
        ),
        (
            vec![Between(Field::IpDaddr, Is, addr("10.255.1.2"), addr("10.255.1.254")), accept()],
            "ip daddr 10.255.1.2-10.255.1.254 accept",
        ),
        (vec![is(Field::FibDestinationType, number(2)), accept()], "fib daddr type local accept"),
        (vec![is(Field::FibDestinationDevice, number(0)), accept()], "fib daddr . mark oif missing accept"),
        (vec![is(Field::FibDestinationDevice, number(1)), accept()], "fib daddr . mark oif exists accept"),
        (
            vec![
                is(Field::L4Proto, Value::Protocol(17)),
                is(Field::DestinationPort, Value::Port(4789)),
                InSet(vec![Field::Vni], Is, "vnis".into()),
                Verdict(Verdict::Drop),
            ],
            "udp dport 4789 @th,96,24 @vnis drop",
        ),
        (
            vec![is(Field::TcpFlags, number(2)), Counter, accept()],
            "tcp flags syn counter packets 0 bytes 0 accept",
        ),
        (vec![is(Field::IcmpType, number(8)), Verdict(Verdict::Return)], "icmp type echo-request return"),
        (
            vec![InSet(vec![Field::IpSaddr], IsNot, "nets".into()), Verdict(Verdict::Jump("s_jump".into()))],
            "ip saddr != @nets jump s_jump",
        ),
        (
            vec![
                InSet(vec![Field::Iifname, Field::IpSaddr], Is, "pairs".into()),
                Verdict(Verdict::Goto("s_jump".into())),
            ],
            "iifname . ip saddr @pairs goto s_jump",
        ),
        (
            vec![InSet(vec![Field::IpSaddr, Field::DestinationPort], Is, "doors".into()), accept()],
            "ip saddr . th dport @doors accept",
        ),
        (vec![SetMark(0)], "meta mark set 0x00000000"),
        (
            vec![SetConnectionMark(vec![Field::EtherSaddr], "marks".into())],
            "ct mark set ether saddr map @marks",
        ),
        (
            vec![SetOriginalZone(vec![Field::EtherSaddr], "zones".into())],
            "ct original zone set ether saddr map @zones",
        ),
        (
            vec![VerdictMap(vec![Field::L4Proto, Field::DestinationPort], "pub".into())],
            "meta l4proto . th dport vmap @pub",
        ),
    ];
    all.into_iter().map(|(statements, text)| (rule(statements), text)).collect()
}

fn named(table: &mut Table) {
    let words = |v: Vec<Value>| v;
    table.sets.insert("vnis".into(), set(vec![Field::Vni], false, vec![vec![Value::Number(4097)]]).into());
    let nets =
        ["10.1.0.0/24", "10.1.1.0/24", "10.3.0.0/16", "192.0.2.7/32"].map(|n| vec![Value::Net(net(n))]);
    table.sets.insert("nets".into(), set(vec![Field::IpSaddr], true, nets.to_vec()).into());
    let pair = words(vec![Value::Name("v11".into()), addr("10.0.1.11")]);
    table.sets.insert("pairs".into(), set(vec![Field::Iifname, Field::IpSaddr], false, vec![pair]).into());
    let door = words(vec![Value::Net(net("10.9.0.0/16")), Value::Port(80)]);
    table
        .sets
        .insert("doors".into(), set(vec![Field::IpSaddr, Field::DestinationPort], true, vec![door]).into());
    let mac = vec![Value::Mac(NODE2)];
    let marks = MapElements::Marks(BTreeMap::from([(mac.clone(), 0x10002)]));
    table.maps.insert("marks".into(), Map { key: vec![Field::EtherSaddr], elements: marks }.into());
    let zones = MapElements::Zones(BTreeMap::from([(mac, 2)]));
    table.maps.insert("zones".into(), Map { key: vec![Field::EtherSaddr], elements: zones }.into());
    let port = vec![Value::Protocol(6), Value::Port(80)];
    let to = Verdict::Goto("s_jump".into());
    table
        .maps
        .insert("pub".into(), vmap(vec![Field::L4Proto, Field::DestinationPort], vec![(port, to)]).into());
    table.chains.insert("s_jump".into(), chain(vec![]).into());
}

fn nat_rules() -> Vec<(Rule, &'static str)> {
    let dnat = |targets: &[(&str, Option<u16>, u32)]| rule(vec![Dnat(choice(targets))]);
    let tcp = Match(Field::L4Proto, Is, Value::Protocol(6));
    let sticky = Choice {
        by: Chooser::SourceHash(0x5357_4d01),
        ..choice(&[("10.0.0.1", None, 1), ("10.0.0.2", None, 1)])
    };
    vec![
        (dnat(&[("10.0.0.1", None, 3)]), "dnat to 10.0.0.1"),
        (
            dnat(&[("10.0.0.1", None, 1), ("10.0.0.2", None, 1)]),
            "dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
        ),
        (
            dnat(&[("10.0.0.1", None, 4), ("10.0.0.2", None, 2)]),
            "dnat to numgen random mod 3 map { 0 : 10.0.0.1, 1 : 10.0.0.1, 2 : 10.0.0.2 }",
        ),
        (
            dnat(&[("10.0.0.1", None, 1999), ("10.0.0.2", None, 2)]),
            "dnat to numgen random mod 2001 map { 0-1998 : 10.0.0.1, 1999-2000 : 10.0.0.2 }",
        ),
        (
            rule(vec![Dnat(sticky)]),
            "dnat to jhash ip saddr mod 2 seed 0x53574d01 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
        ),
        (
            rule(vec![tcp.clone(), Dnat(choice(&[("10.0.0.1", Some(80), 1), ("10.0.0.2", Some(81), 1)]))]),
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }",
        ),
        (rule(vec![tcp, Dnat(choice(&[("10.0.0.1", Some(80), 1)]))]), "meta l4proto tcp dnat to 10.0.0.1:80"),
    ]
}

fn ip6_rules() -> Vec<(Rule, &'static str)> {
    let tcp = Match(Field::L4Proto, Is, Value::Protocol(6));
    let sticky =
        Choice { by: Chooser::SourceHash(7), ..choice(&[("fd00::1", None, 1), ("fd00::2", None, 1)]) };
    vec![
        (
            rule(vec![
                Match(Field::Ip6Daddr, Is, Value::Net(net("fd00::/8"))),
                Dnat(choice(&[("fd00::1", None, 1)])),
            ]),
            "ip6 daddr fd00::/8 dnat to fd00::1",
        ),
        (
            rule(vec![Match(Field::Icmp6Type, Is, Value::Number(128)), Verdict(Verdict::Accept)]),
            "icmpv6 type echo-request accept",
        ),
        (rule(vec![Dnat(sticky)]), "dnat to jhash ip6 saddr mod 2 seed 0x7 map { 0 : fd00::1, 1 : fd00::2 }"),
        (
            rule(vec![tcp, Dnat(choice(&[("fd00::1", Some(80), 1), ("fd00::2", Some(81), 1)]))]),
            "meta l4proto tcp dnat ip6 to numgen random mod 2 map { 0 : fd00::1 . 80, 1 : fd00::2 . 81 }",
        ),
    ]
}

fn take(texts: &mut Vec<&'static str>, rules: Vec<(Rule, &'static str)>) -> Vec<Rule> {
    texts.extend(rules.iter().map(|(_, text)| *text));
    rules.into_iter().map(|(rule, _)| rule).collect()
}

fn all_tables() -> (Vec<Table>, Vec<&'static str>) {
    let mut texts = Vec::new();
    let mut one = table(Family::Ip, "sw_one");
    named(&mut one);
    one.chains.insert(
        "c_pre".into(),
        base(ChainKind::Filter, HookPoint::Prerouting, -300, take(&mut texts, ip_rules())).into(),
    );
    one.chains.insert(
        "c_nat".into(),
        base(ChainKind::Nat, HookPoint::Prerouting, -100, take(&mut texts, nat_rules())).into(),
    );
    let post = vec![
        (
            rule(vec![Match(Field::CtStatus, Is, Value::Number(32)), Snat(ip("10.0.1.1"))]),
            "ct status dnat snat to 10.0.1.1",
        ),
        (
            rule(vec![Match(Field::Oifname, Is, Value::Name("eth0".into())), Masquerade]),
            "oifname \"eth0\" masquerade",
        ),
    ];
    one.chains.insert(
        "c_post".into(),
        base(ChainKind::Nat, HookPoint::Postrouting, 100, take(&mut texts, post)).into(),
    );
    let mut forward = base(ChainKind::Filter, HookPoint::Forward, 0, vec![]);
    forward.hook.as_mut().unwrap().drop_by_default = true;
    let said = Rule { statements: vec![Reject], comment: "no way \"here\", für alle".into() };
    forward.rules.push(said);
    texts.extend([
        "reject with tcp reset comment \"no way 'here', für alle\"",
        "reject comment \"no way",
        "type filter hook forward priority filter; policy drop;",
    ]);
    one.chains.insert("c_fwd".into(), forward.into());
    one.chains.insert(
        "c_mark".into(),
        base(ChainKind::Route, HookPoint::Output, -150, vec![rule(vec![SetMarkFromConnection])]).into(),
    );
    texts.push("type route hook output priority mangle; policy accept;");
    let mut six = table(Family::Ip6, "sw_six");
    six.chains.insert(
        "c_pre".into(),
        base(ChainKind::Nat, HookPoint::Prerouting, -100, take(&mut texts, ip6_rules())).into(),
    );
    let mut both = table(Family::Inet, "sw_both");
    let v6 = Match(Field::NfProto, Is, Value::Number(10));
    let mixed = vec![
        (
            rule(vec![Match(Field::IpSaddr, Is, addr("10.0.0.1")), Verdict(Verdict::Accept)]),
            "ip saddr 10.0.0.1 accept",
        ),
        (
            rule(vec![v6.clone(), Match(Field::Ip6Saddr, IsNot, addr("fd00::1")), Verdict(Verdict::Drop)]),
            "ip6 saddr != fd00::1 drop",
        ),
        (rule(vec![v6, Counter]), "meta nfproto ipv6 counter packets 0 bytes 0"),
        (rule(vec![Match(Field::L4Proto, Is, Value::Protocol(17)), Reject]), "meta l4proto udp reject"),
    ];
    both.chains
        .insert("c_in".into(), base(ChainKind::Filter, HookPoint::Input, 0, take(&mut texts, mixed)).into());
    let mut device = table(Family::Netdev, "sw_out");
    let macs = MapElements::Macs(BTreeMap::from([(vec![Value::Number(0x10002)], NODE2)]));
    device.maps.insert("macs".into(), Map { key: vec![Field::Mark], elements: macs }.into());
    let out = vec![
        (
            rule(vec![SetEtherDestination(vec![Field::Mark], "macs".into())]),
            "ether daddr set meta mark map @macs",
        ),
        (
            rule(vec![Match(Field::IpSaddr, Is, addr("10.0.0.1")), Verdict(Verdict::Drop)]),
            "ip saddr 10.0.0.1 drop",
        ),
        (
            rule(vec![Match(Field::Ip6Saddr, Is, addr("fd00::1")), Verdict(Verdict::Drop)]),
            "ip6 saddr fd00::1 drop",
        ),
    ];
    let hook = Hook {
        kind: ChainKind::Filter,
        point: HookPoint::Egress,
        priority: 0,
        device: Some("lo".into()),
        drop_by_default: false,
    };
    device.chains.insert("c_out".into(), Chain { hook: Some(hook), rules: take(&mut texts, out) }.into());
    (vec![one, six, both, device], texts)
}

/// Each statement reads as nft writes it; what was written compares as the same; and looking at it again
/// changes nothing.
#[tokio::test]
async fn nft_reads_what_we_write() {
    let world = World::new();
    let kernel = world.kernel();
    let (tables, texts) = all_tables();
    let wanted = plan(vec![(sandbox(), Namespace { tables, ..Namespace::default() })]);
    let applied = kernel.apply(wanted.clone()).await.unwrap();
    assert_eq!(applied.problems, []);
    let listed = world.at(sandbox(), "nft list ruleset");
    let lines: Vec<&str> = listed.lines().map(str::trim).collect();
    let missing: Vec<_> =
        texts.iter().filter(|text| !lines.iter().any(|line| line.starts_with(**text))).collect();
    assert!(missing.is_empty(), "not printed: {missing:#?}\nin {listed}");
    assert_eq!(kernel.check(None).await.unwrap(), []);
    let json = world.at(sandbox(), "nft -j list ruleset");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["nftables"].as_array().unwrap().len() > 60);
    // a driver that starts finds nothing to do
    let before = world.at(sandbox(), "nft -a list ruleset");
    drop(kernel);
    let kernel = world.kernel();
    assert_eq!(kernel.apply(wanted).await.unwrap().problems, []);
    assert_eq!(world.at(sandbox(), "nft -a list ruleset"), before);
    assert_eq!(kernel.check(Some(Place::Host)).await.unwrap(), []);
}
