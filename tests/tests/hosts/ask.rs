//! Questions to the names of networks, as a resolver in a task asks them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use swarm_tests::hosts::Inside;

/// How long an answer may take: forwarding gives up before.
const PATIENCE: Duration = Duration::from_secs(10);
/// Docker's address for it, in every task.
pub(crate) const LOCAL: &str = "127.0.0.11:53";

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    /// The data of the answers as text, sorted.
    pub(crate) data: Vec<String>,
    /// Data of the additional records, sorted.
    pub(crate) more: Vec<String>,
    pub(crate) is_cut: bool,
    pub(crate) has_soa: bool,
    pub(crate) longest_ttl: u32,
}

impl Reply {
    fn read(bytes: &[u8]) -> Reply {
        let message = Message::from_vec(bytes).unwrap();
        let text = |records: &[hickory_proto::rr::Record]| {
            let mut all: Vec<String> = records.iter().map(|record| record.data.to_string()).collect();
            all.sort();
            all
        };
        let all = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
        Reply {
            code: message.metadata.response_code,
            data: text(&message.answers),
            more: text(&message.additionals),
            is_cut: message.metadata.truncation,
            has_soa: message.authorities.iter().any(|record| matches!(record.data, RData::SOA(_))),
            longest_ttl: all.map(|record| record.ttl).max().unwrap_or(0),
        }
    }

    /// The name is there, without such records.
    pub(crate) fn is_no_data(&self) -> bool {
        self.code == ResponseCode::NoError && self.data.is_empty() && self.has_soa
    }

    /// There is no such name.
    pub(crate) fn is_no_name(&self) -> bool {
        self.code == ResponseCode::NXDomain && self.data.is_empty() && self.has_soa
    }
}

pub(crate) fn question(id: u16, name: &str, kind: RecordType, room: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    if let Some(size) = room {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// One question over UDP; none if it is not answered.
pub(crate) fn udp(to: &str, name: &str, kind: RecordType, room: Option<u16>) -> Option<Reply> {
    // connected: an answer from another address is none
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&question(7, name, kind, room)).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(Reply::read(&buffer[..length]))
}

/// One question over TCP.
pub(crate) fn tcp(to: &str, name: &str, kind: RecordType) -> Reply {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bytes = question(7, name, kind, None);
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &bytes].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    Reply::read(&answer)
}

/// Asks Docker's address in a task, over UDP; it must be answered.
pub(crate) fn ask(task: &Inside, name: &str, kind: RecordType) -> Reply {
    let reply = task.run(|| udp(LOCAL, name, kind, Some(1232)));
    reply.unwrap_or_else(|| panic!("{name} {kind}: no answer"))
}

/// The name of an address in the tree of addresses.
pub(crate) fn reverse(addr: IpAddr) -> String {
    Name::from(addr).to_ascii().trim_end_matches('.').to_owned()
}
