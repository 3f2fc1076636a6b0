use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;

use super::*;
use crate::testing;

fn shared() -> (Arc<Shared>, NetworkId) {
    let mut set = NetworkSet::default();
    let net = testing::network(&mut set, "front", 1);
    testing::service(&mut set, net, "web", &["www"], &["10.1.1.1", "fd00:1::100"]);
    testing::service(&mut set, net, "db", &[], &[]);
    for slot in 0..100 {
        testing::task(&mut set, net, "db", slot, &[&format!("10.1.0.{slot}")]);
    }
    let before = World::default();
    let world = World::new(&set, Arc::default(), &before, &NetworkSet::default());
    let world = Arc::new(ArcSwap::from_pointee(world));
    let settings = Settings { resolv_conf: "/nonexistent".into(), ..Settings::default() };
    let shared = Shared {
        forwarder: Arc::new(Forwarder::new(&settings, world.clone())),
        settings,
        tally: Tally::default(),
        world,
        floods: Mutex::default(),
    };
    (Arc::new(shared), net)
}

fn valid(name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::from(kind)));
    if edns {
        message.set_edns(Edns::new());
    }
    message.to_vec().unwrap()
}

/// Handles a message both ways, and checks what may be said of every answer.
fn check(shared: &Shared, network: NetworkId, bytes: &[u8]) {
    let source = "10.1.0.1".parse().unwrap();
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
        match shared.handle(network, source, bytes, transport, &mut Shuffle::default()) {
            Step::Send(answer) => {
                assert!((12..=limit).contains(&answer.len()), "{} bytes", answer.len());
                assert_eq!(answer[..2], bytes[..2], "another number");
                assert_eq!((bytes[2] & 0x80, answer[2] & 0x80), (0, 0x80), "an answer to an answer");
                Message::from_vec(&answer).expect("an answer that can be read");
            }
            Step::Forward(request) => {
                let failed = request.error(ResponseCode::ServFail);
                assert!(failed.len() <= bytes.len().max(HEADER) + 11);
            }
            Step::Nothing => {}
        }
    }
}

const HEADER: usize = crate::message::HEADER_BYTES;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_is_handled(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (shared, network) = shared();
        check(&shared, network, &bytes);
        // with a header that promises a question
        let mut bytes = bytes;
        if bytes.len() >= HEADER {
            bytes[2..HEADER].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
            check(&shared, network, &bytes);
        }
    }

    #[test]
    fn damaged_questions_are_handled(
        name in prop::sample::select(vec![
            "web.", "db.", "tasks.db.", "db.7.", "_80._tcp.web.", "1.0.1.10.in-addr.arpa.", "x.example.", ".",
        ]),
        kind in prop::sample::select(vec![1u16, 28, 33, 12, 255, 6, 15, 65, 251, 252, 0, 65535]),
        edns in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        more in prop::collection::vec(any::<u8>(), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let (shared, network) = shared();
        let good = valid(name, kind, edns);
        check(&shared, network, &good);
        let mut bytes = good;
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(more);
        check(&shared, network, &bytes);
        let cut = cut.index(bytes.len());
        check(&shared, network, &bytes[..cut]);
    }
}
