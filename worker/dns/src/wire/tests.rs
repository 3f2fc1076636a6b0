use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::message::{Parsed, Transport};

fn request(name: &str) -> Request {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    match Parsed::new(&message.to_vec().unwrap(), Transport::Udp) {
        Parsed::Request(request) => *request,
        other => panic!("{other:?}"),
    }
}

fn answer(ttls: &[u32], soa: Option<(u32, u32)>, edns: bool) -> Message {
    let name = Name::from_ascii("example.com.").unwrap();
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name.clone(), RecordType::A));
    for ttl in ttls {
        message.add_answer(Record::from_rdata(name.clone(), *ttl, RData::A(A::new(10, 0, 0, 1))));
    }
    if let Some((ttl, minimum)) = soa {
        let data = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, minimum);
        message.add_authority(Record::from_rdata(name, ttl, RData::SOA(data)));
    }
    if edns {
        message.set_edns(Edns::new());
    }
    message
}

fn relayed(message: &Message) -> Relayed {
    Relayed::new(message.to_vec().unwrap()).unwrap()
}

#[test]
fn an_answer_is_kept_as_long_as_its_records_say() {
    let seconds = |message: &Message| relayed(message).ttl.as_secs();
    assert_eq!(seconds(&answer(&[30, 20], None, true)), 20);
    assert_eq!(seconds(&answer(&[3000], None, true)), 60);
    assert_eq!(seconds(&answer(&[0], None, false)), 0);
    assert_eq!(seconds(&answer(&[], Some((3000, 7)), true)), 7);
    assert_eq!(seconds(&answer(&[], Some((5, 7)), true)), 5);
    assert_eq!(seconds(&answer(&[], Some((3000, 3000)), true)), 10);
    assert_eq!(seconds(&answer(&[], None, true)), 0);
    let mut failed = answer(&[30], None, false);
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(seconds(&failed), 0);
}

#[test]
fn it_comes_back_with_the_askers_number_and_letters_and_aged() {
    let relayed = relayed(&answer(&[30, 2], None, true));
    let bytes = relayed.to(&request("ExAmPlE.com."), Duration::from_secs(3));
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 7);
    assert_eq!(message.queries[0].name.to_string(), "ExAmPlE.com.");
    assert_eq!(message.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [27, 0]);
    assert!(message.edns.is_some());
}

#[test]
fn what_is_too_long_is_asked_again_over_tcp() {
    let relayed = relayed(&answer(&[30; 100], None, false));
    let bytes = relayed.to(&request("example.com."), Duration::ZERO);
    let message = Message::from_vec(&bytes).unwrap();
    assert!(message.metadata.truncation && message.answers.is_empty());
}

proptest! {
    #[test]
    fn damaged_answers_are_looked_through_without_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        name in "[a-z]{1,20}\\.[a-z]{1,30}",
    ) {
        let mut bytes = answer(&[30, 20], Some((1, 2)), true).to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len());
        for bytes in [bytes.clone(), bytes[..cut].to_vec()] {
            if let Some(relayed) = Relayed::new(bytes) {
                relayed.to(&request(&format!("{name}.")), Duration::from_secs(1));
            }
        }
    }
}
