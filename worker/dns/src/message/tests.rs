use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RecordType};

use super::*;

fn question(name: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn request(bytes: &[u8], transport: Transport) -> Request {
    match Parsed::new(bytes, transport) {
        Parsed::Request(request) => *request,
        other => panic!("{other:?}"),
    }
}

fn records(count: u32) -> Vec<Record> {
    let name = Name::from_ascii("WeB.").unwrap();
    let record = |n: u32| Record::from_rdata(name.clone(), TTL, RData::A(A(Ipv4Addr::from(n))));
    (0..count).map(record).collect()
}

fn error_of(bytes: &[u8]) -> ResponseCode {
    match Parsed::new(bytes, Transport::Udp) {
        Parsed::Error(error) => {
            assert!(error.len() <= bytes.len(), "an error longer than what it answers");
            let error = Message::from_vec(&error).unwrap();
            assert_eq!((error.metadata.id, error.metadata.message_type), (7, MessageType::Response));
            error.metadata.response_code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sizes_are_the_clients_within_limits() {
    let limit = |edns, transport| request(&question("web.", edns), transport).limit;
    assert_eq!(limit(None, Transport::Udp), 512);
    assert_eq!(limit(Some(100), Transport::Udp), 512);
    assert_eq!(limit(Some(900), Transport::Udp), 900);
    assert_eq!(limit(Some(4096), Transport::Udp), 1232);
    assert_eq!(limit(None, Transport::Tcp), 65535);
}

#[test]
fn answers_fit_and_say_when_they_are_cut() {
    for (edns, count, whole) in
        [(None, 30, true), (None, 31, false), (Some(1232), 75, true), (Some(1232), 76, false)]
    {
        let request = request(&question("WeB.", edns), Transport::Udp);
        assert!(request.most_records() >= count as usize);
        let bytes = request.answer(Answer::Records(records(count), Vec::new())).unwrap();
        assert!(bytes.len() <= usize::from(request.limit));
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.truncation, !whole, "{count} records");
        assert_eq!(message.answers.len(), if whole { count } else { count - 1 } as usize);
        assert_eq!(message.edns.is_some(), edns.is_some());
        assert!(message.edns.is_none_or(|edns| edns.flags().dnssec_ok));
        assert_eq!(message.queries[0].name.to_string(), "WeB.");
        assert!(message.metadata.authoritative && message.metadata.recursion_available);
        assert!(message.metadata.recursion_desired);
    }
    let request = request(&question("WeB.", None), Transport::Tcp);
    let bytes = request.answer(Answer::Records(records(5000), Vec::new())).unwrap();
    let message = Message::from_vec(&bytes).unwrap();
    assert!(message.answers.len() >= 2000 && !message.metadata.truncation);
}

#[test]
fn additional_records_are_left_out_silently() {
    let request = request(&question("WeB.", None), Transport::Udp);
    let bytes = request.answer(Answer::Records(records(20), records(100))).unwrap();
    let message = Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() <= 512 && !message.metadata.truncation);
    assert_eq!((message.answers.len(), message.additionals.len()), (20, 10));
}

#[test]
fn negative_answers_say_how_long_they_hold() {
    let request = request(&question("web.", None), Transport::Udp);
    for (answer, code, owner) in
        [(Answer::NoData, ResponseCode::NoError, "web."), (Answer::NoName, ResponseCode::NXDomain, ".")]
    {
        let message = Message::from_vec(&request.answer(answer).unwrap()).unwrap();
        assert_eq!(message.metadata.response_code, code);
        let [soa] = &message.authorities[..] else { panic!("{message}") };
        let RData::SOA(data) = &soa.data else { panic!("{message}") };
        assert_eq!((soa.name.to_string().as_str(), soa.ttl, data.minimum), (owner, TTL, TTL));
    }
    assert_eq!(request.answer(Answer::Forward), None);
    let refused = Message::from_vec(&request.answer(Answer::Refused).unwrap()).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn what_is_no_question_is_not_answered_or_refused_briefly() {
    let good = question("web.", None);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(Parsed::new(&good[..11], Transport::Udp), Parsed::Drop);
    assert_eq!(Parsed::new(&[], Transport::Udp), Parsed::Drop);
    assert_eq!(Parsed::new(&with(2, 0x81), Transport::Udp), Parsed::Drop, "an answer");
    assert_eq!(error_of(&good[..14]), ResponseCode::FormErr);
    assert_eq!(error_of(&with(5, 0)), ResponseCode::FormErr);
    assert_eq!(error_of(&with(5, 2)), ResponseCode::FormErr);
    assert_eq!(error_of(&with(2, 0x28)), ResponseCode::NotImp, "an update");
    let mut message = Message::from_vec(&question("web.", Some(1232))).unwrap();
    message.edns.as_mut().unwrap().set_version(1);
    // 16 has two meanings: BADVERS here
    assert_eq!(u16::from(error_of(&message.to_vec().unwrap())), u16::from(ResponseCode::BADVERS));
    let mut chaos = Message::from_vec(&good).unwrap();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert!(matches!(Parsed::new(&chaos.to_vec().unwrap(), Transport::Udp), Parsed::Request(_)));
}
