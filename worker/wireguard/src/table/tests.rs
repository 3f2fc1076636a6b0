use super::*;

fn key(number: u8) -> KeyPair {
    let mut secret = [1; 32];
    secret[1] = number;
    KeyPair::from_secret(&secret)
}

fn peer(keys: &[u8], host: u8) -> Peer {
    Peer {
        keys: keys.iter().map(|number| key(*number).public()).collect(),
        endpoint: (IpAddr::from([192, 0, 2, host]), 51820).into(),
        tunnel_addrs: vec![IpAddr::from([10, 199, 0, host])],
    }
}

fn wanted(own: &[u8]) -> Wanted {
    let networks = vec![(IpAddr::from([10, 199, 0, 1]), 16)];
    Wanted::new(networks, own.iter().map(|number| key(*number)).collect(), 7).unwrap()
}

fn keys(table: &Table, host: u8) -> Vec<Keys> {
    table.to(IpAddr::from([10, 199, 0, host])).unwrap().pairs.iter().map(|pair| pair.keys()).collect()
}

#[test]
fn what_is_ambiguous_is_refused_and_changes_nothing() {
    let mut wanted = wanted(&[1]);
    wanted.set_peers(vec![peer(&[2], 2)]).unwrap();
    let edited = |edit: fn(&mut Peer)| {
        let mut changed = peer(&[3], 3);
        edit(&mut changed);
        vec![peer(&[2], 2), changed]
    };
    let zero = PublicKey([0; 32]);
    let cases = [
        (edited(|p| p.keys.clear()), TableError::NoKey(peer(&[3], 3).endpoint)),
        (edited(|p| p.keys = vec![PublicKey([0; 32])]), TableError::BadKey(zero)),
        (edited(|p| p.keys.push(key(2).public())), TableError::KeyTwice(key(2).public())),
        (edited(|p| p.keys.push(key(1).public())), TableError::OwnKeyOfPeer(key(1).public())),
        (
            edited(|p| p.tunnel_addrs = vec![[10, 199, 0, 2].into()]),
            TableError::AddressTwice([10, 199, 0, 2].into()),
        ),
        (
            edited(|p| p.tunnel_addrs = vec![[10, 199, 0, 1].into()]),
            TableError::OwnAddress([10, 199, 0, 1].into()),
        ),
        (
            edited(|p| p.endpoint.set_ip([10, 199, 7, 7].into())),
            TableError::EndpointInside("10.199.7.7:51820".parse().unwrap()),
        ),
        (edited(|p| p.endpoint.set_port(0)), TableError::BadEndpoint("192.0.2.3:0".parse().unwrap())),
    ];
    for (peers, expected) in cases {
        assert_eq!(wanted.set_peers(peers), Err(expected));
    }
    assert_eq!(wanted.set_own(vec![]), Err(TableError::NoOwnKey));
    assert_eq!(wanted.set_own(vec![key(1), key(1)]), Err(TableError::OwnKeyTwice(key(1).public())));
    assert_eq!(wanted.set_own(vec![key(2)]), Err(TableError::OwnKeyOfPeer(key(2).public())));
    let table = wanted.table(&Table::default(), Instant::now());
    assert_eq!((table.entries.len(), table.own.len()), (1, 1));
}

#[test]
fn pairs_go_by_our_order_and_then_by_the_peers() {
    let mut wanted = wanted(&[1, 2]);
    wanted.set_peers(vec![peer(&[3, 4], 2)]).unwrap();
    let table = wanted.table(&Table::default(), Instant::now());
    let expected = [(1, 3), (1, 4), (2, 3), (2, 4)];
    assert_eq!(keys(&table, 2), expected.map(|(own, theirs)| (key(own).public(), key(theirs).public())));
}

#[test]
fn what_stays_is_kept_and_what_goes_drains() {
    let now = Instant::now();
    let mut wanted = wanted(&[1]);
    wanted.set_peers(vec![peer(&[2], 2), peer(&[3], 3)]).unwrap();
    let first = wanted.table(&Table::default(), now);
    let (two, three) = (Arc::clone(&first.entries[0].pairs[0]), Arc::clone(&first.entries[1].pairs[0]));
    assert_ne!(two.id, three.id);
    first.entries.iter().for_each(|entry| assert!(entry.pairs[0].lock().confirm()));

    // the peer at 2 has a new key, in another place of the list
    wanted.set_peers(vec![peer(&[3], 3), peer(&[5, 2], 2)]).unwrap();
    let second = wanted.table(&first, now);
    assert_eq!(second.to([10, 199, 0, 2].into()).unwrap().pairs[1].id, two.id);
    assert_eq!(second.to([10, 199, 0, 3].into()).unwrap().pairs[0].id, three.id);
    assert!(second.retired.is_empty());

    // its old key goes: what is on its way is taken, handshakes are not
    wanted.set_peers(vec![peer(&[5], 2), peer(&[3], 3)]).unwrap();
    let third = wanted.table(&second, now);
    assert_eq!(third.session(two.id << 8).unwrap().1.peer, peer(&[5], 2));
    assert!(third.pair(two.keys()).is_none());
    assert!(!third.has_expired(now) && third.has_expired(now + DRAINS));
    let fourth = wanted.table(&third, now + DRAINS);
    assert!(fourth.session(two.id << 8).is_none());

    // a peer that is gone is gone at once
    wanted.set_peers(vec![peer(&[5], 2)]).unwrap();
    let fifth = wanted.table(&fourth, now);
    assert!(fifth.session(three.id << 8).is_none() && fifth.pair(three.keys()).is_none());
    assert!(fifth.to([10, 199, 0, 3].into()).is_none());
}

#[test]
fn ids_wrap_and_are_not_given_twice() {
    let table = Table::default();
    let mut next = ID_MASK;
    assert_eq!((free_id(&mut next, &table), free_id(&mut next, &table)), (ID_MASK, 0));
    let mut wanted = wanted(&[1]);
    wanted.set_peers(vec![peer(&[2], 2)]).unwrap();
    let table = wanted.table(&Table::default(), Instant::now());
    let mut next = 7;
    assert_eq!(free_id(&mut next, &table), 8);
}

#[test]
fn networks_hold_their_addresses() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(holds((ip("10.199.0.1"), 16), ip("10.199.255.1")));
    assert!(!holds((ip("10.199.0.1"), 16), ip("10.198.0.1")));
    assert!(!holds((ip("10.199.0.1"), 32), ip("10.199.0.0")));
    assert!(holds((ip("fd99::1"), 64), ip("fd99::2:1")));
    assert!(!holds((ip("fd99::1"), 64), ip("fd99:0:0:1::1")));
    assert!(!holds((ip("0.0.0.0"), 0), ip("fd99::1")));
}
