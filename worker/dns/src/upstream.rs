//! One question to one server: over UDP, and over TCP if the answer is cut.
//!
//! Each question has a socket, and so a port, and a number of its own, which whoever forges an answer
//! would have to guess; what does not fit the question is not an answer to it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::forward::Question;
use crate::message::{HEADER_BYTES, MAX_UDP, name_bytes};
use crate::wire::Relayed;

/// Unpredictable numbers for questions.
fn number() -> u16 {
    u16::try_from(RandomState::new().hash_one(0u8) >> 48).expect("sixteen bits")
}

/// Asks `server`, and waits at most `patience` for each transport.
pub(crate) async fn ask(server: SocketAddr, question: &Question, patience: Duration) -> io::Result<Relayed> {
    let (id, bytes) = encode(question)?;
    let answer = timeout(patience, over_udp(server, question, id, &bytes)).await??;
    let cut = answer[2] & 0x02 != 0;
    let answer = match cut {
        true => timeout(patience, over_tcp(server, question, id, &bytes)).await??,
        false => answer,
    };
    Relayed::new(answer).ok_or_else(|| io::Error::other("the answer is damaged"))
}

fn encode(question: &Question) -> io::Result<(u16, Vec<u8>)> {
    let id = number();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = question.recursion;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.authentic_data = question.authentic_data;
    let mut query = Query::query(question.name.clone(), question.kind);
    query.set_query_class(question.class);
    message.add_query(query);
    if let Some(dnssec_ok) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP).set_dnssec_ok(dnssec_ok);
        message.set_edns(edns);
    }
    Ok((id, message.to_vec().map_err(io::Error::other)?))
}

async fn over_udp(server: SocketAddr, question: &Question, id: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // connected: the kernel passes only what comes from there, and says at once if nobody listens
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let got = socket.recv(&mut buffer).await?;
        if is_answer(&buffer[..got], question, id, bytes) {
            buffer.truncate(got);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question, id: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    let mut buffer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut buffer).await?;
    match is_answer(&buffer, question, id, bytes) {
        true => Ok(buffer),
        false => Err(io::Error::other("the answer does not fit the question")),
    }
}

/// An answer, with our number and our question, byte for byte but for upper and lower case.
fn is_answer(answer: &[u8], question: &Question, id: u16, asked: &[u8]) -> bool {
    let name = HEADER_BYTES + name_bytes(&question.name);
    let parts = |of: &[u8]| {
        Some((
            *of.first_chunk::<HEADER_BYTES>()?,
            of.get(12..name)?.to_ascii_lowercase(),
            of.get(name..name + 4)?.to_vec(),
        ))
    };
    let (Some((head, echo, kind)), Some((_, our_name, our_kind))) = (parts(answer), parts(asked)) else {
        return false;
    };
    let one_question = head[4..6] == [0, 1];
    let is_answer = head[..2] == id.to_be_bytes() && head[2] & 0xf8 == 0x80 && one_question;
    is_answer && echo == our_name && kind == our_kind
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{DNSClass, Name, RecordType};

    use super::*;

    fn question(name: &str) -> Question {
        let name = Name::from_ascii(name).unwrap();
        let (kind, class, edns) = (RecordType::A, DNSClass::IN, Some(false));
        let (recursion, checking_disabled, authentic_data) = (true, false, false);
        Question { name, kind, class, edns, recursion, checking_disabled, authentic_data }
    }

    #[test]
    fn only_what_fits_the_question_is_an_answer() {
        let question = question("example.com.");
        let (id, asked) = encode(&question).unwrap();
        let mut answer = asked.clone();
        answer[2] |= 0x80;
        assert!(is_answer(&answer, &question, id, &asked));
        assert!(!is_answer(&asked, &question, id, &asked), "a question is no answer");
        assert!(!is_answer(&answer, &question, id ^ 1, &asked));
        for at in [4, 5, 13, 20, 26, 28] {
            let mut other = answer.clone();
            other[at] ^= 1;
            assert!(!is_answer(&other, &question, id, &asked), "byte {at}");
        }
        for len in 0..29 {
            assert!(!is_answer(&answer[..len], &question, id, &asked));
        }
    }

    #[test]
    fn numbers_are_not_alike() {
        let numbers: std::collections::BTreeSet<u16> = (0..100).map(|_| number()).collect();
        assert!(numbers.len() > 80);
    }
}
