//! Questions as they come in, and answers as they go out.
//!
//! Nothing is sent in answer to what is not a question, and no error is longer than what it answers.

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::world::{Answer, TTL};

/// Bytes of an answer over UDP to who says nothing (RFC 1035).
const PLAIN_UDP: u16 = 512;
/// Most bytes of an answer over UDP, also what we say we take: fits into a packet of every network
/// (<https://www.dnsflagday.net/2020/>).
pub(crate) const MAX_UDP: u16 = 1232;
/// Most bytes of an answer over TCP.
pub(crate) const MAX_TCP: u16 = u16::MAX;
/// Bytes of an OPT record without options.
const OPT_BYTES: u16 = 11;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 12;
/// Bytes of the shortest record: an A record whose name was named before.
const LEAST_RECORD: usize = 16;

/// Bytes of a name that is written out.
pub(crate) fn name_bytes(name: &Name) -> usize {
    name.iter().map(|label| label.len() + 1).sum::<usize>() + 1
}

/// How a message came, which limits the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// What answers carry over from it.
    pub(crate) metadata: Metadata,
    /// The one question.
    pub(crate) query: Query,
    /// It speaks EDNS, and wants signatures or not.
    pub(crate) edns: Option<bool>,
    /// Most bytes of an answer.
    pub(crate) limit: u16,
}

/// What to do with a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parsed {
    /// Answer it.
    Request(Box<Request>),
    /// Send this, an error.
    Error(Vec<u8>),
    /// Nothing: not a question.
    Drop,
}

impl Parsed {
    /// Reads a message that came in.
    pub(crate) fn new(bytes: &[u8], transport: Transport) -> Self {
        // ours to answer are questions only: an answer to an answer might go on for ever
        if bytes.len() < HEADER_BYTES || bytes[2] & 0x80 != 0 {
            return Parsed::Drop;
        }
        let Ok(message) = Message::from_vec(bytes) else {
            return Parsed::Error(bare(bytes, ResponseCode::FormErr));
        };
        if message.metadata.op_code != OpCode::Query {
            return Parsed::Error(bare(bytes, ResponseCode::NotImp));
        }
        let [query] = message.queries.as_slice() else {
            return Parsed::Error(bare(bytes, ResponseCode::FormErr));
        };
        if !message.answers.is_empty() || !message.authorities.is_empty() {
            return Parsed::Error(bare(bytes, ResponseCode::FormErr));
        }
        let asked = message.edns.as_ref().map_or(PLAIN_UDP, |edns| edns.max_payload());
        let request = Request {
            metadata: message.metadata,
            query: query.clone(),
            edns: message.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
            limit: match transport {
                Transport::Udp => asked.clamp(PLAIN_UDP, MAX_UDP),
                Transport::Tcp => MAX_TCP,
            },
        };
        match message.edns.is_some_and(|edns| edns.version() > 0) {
            true => Parsed::Error(request.error(ResponseCode::BADVERS)),
            false => Parsed::Request(Box::new(request)),
        }
    }
}

impl Request {
    /// So many records may fit into the answer, and one more.
    pub(crate) fn most_records(&self) -> usize {
        usize::from(self.limit).saturating_sub(HEADER_BYTES + name_bytes(&self.query.name)) / LEAST_RECORD + 1
    }

    /// The answer as it is sent; records that do not fit are left out and the answer is marked. None
    /// if it is to be had elsewhere.
    pub(crate) fn answer(&self, answer: Answer) -> Option<Vec<u8>> {
        let mut metadata = self.response(ResponseCode::NoError);
        metadata.authoritative = true;
        metadata.recursion_available = true;
        let (answers, authorities, additionals) = match answer {
            Answer::Records(answers, additionals) => (answers, Vec::new(), additionals),
            Answer::NoData => (Vec::new(), vec![negative(self.query.name.clone())], Vec::new()),
            Answer::NoName => {
                metadata.response_code = ResponseCode::NXDomain;
                (Vec::new(), vec![negative(Name::root())], Vec::new())
            }
            Answer::Refused => return Some(self.error(ResponseCode::Refused)),
            Answer::Forward => return None,
        };
        let encoded = self.encode(metadata, &answers, &authorities, &additionals);
        Some(encoded.unwrap_or_else(|_| self.error(ResponseCode::ServFail)))
    }

    /// An answer that says what went wrong, and nothing else.
    pub(crate) fn error(&self, code: ResponseCode) -> Vec<u8> {
        let mut metadata = self.response(code);
        metadata.recursion_available = true;
        let encoded = self.encode(metadata, &[], &[], &[]);
        encoded.unwrap_or_default() // a header and a question that fitted when they came in
    }

    /// "Ask again over TCP."
    pub(crate) fn truncated(&self) -> Vec<u8> {
        let mut metadata = self.response(ResponseCode::NoError);
        metadata.recursion_available = true;
        metadata.truncation = true;
        self.encode(metadata, &[], &[], &[]).unwrap_or_default()
    }

    fn response(&self, code: ResponseCode) -> Metadata {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = code;
        metadata
    }

    fn encode(
        &self,
        mut metadata: Metadata,
        answers: &[Record],
        authorities: &[Record],
        additionals: &[Record],
    ) -> Result<Vec<u8>, ProtoError> {
        let mut bytes = Vec::with_capacity(usize::from(self.limit.min(PLAIN_UDP)));
        let mut encoder = BinEncoder::new(&mut bytes);
        let opt_bytes = self.edns.map_or(0, |_| OPT_BYTES);
        encoder.set_max_size(self.limit - opt_bytes);
        let place = encoder.place::<Header>()?;
        self.query.emit(&mut encoder)?;
        let (answers, cut) = emit(&mut encoder, answers)?;
        let (authorities, cut_authorities) = emit(&mut encoder, authorities)?;
        // these only save questions: what does not fit is no reason to ask again (RFC 2181, 9)
        let (mut additionals, _) = emit(&mut encoder, additionals)?;
        // over TCP there is nothing to ask again by
        metadata.truncation |= (cut || cut_authorities) && self.limit != MAX_TCP;
        encoder.set_max_size(self.limit);
        if let Some(dnssec_ok) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP).set_dnssec_ok(dnssec_ok);
            edns.set_rcode_high(metadata.response_code.high());
            Record::from(&edns).emit(&mut encoder)?;
            additionals += 1;
        }
        let count = |n: usize| u16::try_from(n).expect("a message of 64 KiB holds less");
        let counts = HeaderCounts {
            queries: 1,
            answers: count(answers),
            authorities: count(authorities),
            additionals: count(additionals),
        };
        place.replace(&mut encoder, Header { metadata, counts })?;
        Ok(bytes)
    }
}

/// Writes as many as fit: how many, and whether some did not.
fn emit(encoder: &mut BinEncoder<'_>, records: &[Record]) -> Result<(usize, bool), ProtoError> {
    match encoder.emit_all(records.iter()) {
        Ok(count) => Ok((count, false)),
        Err(ProtoError::NotAllRecordsWritten { count, .. }) => Ok((count, true)),
        Err(error) => Err(error),
    }
}

/// Says how long "there is nothing" may be kept (RFC 2308).
fn negative(owner: Name) -> Record {
    let soa = SOA::new(Name::root(), Name::root(), 1, 60, 60, 60, TTL);
    Record::from_rdata(owner, TTL, RData::SOA(soa))
}

/// An error in answer to something whose question may not be readable: a header only.
fn bare(bytes: &[u8], code: ResponseCode) -> Vec<u8> {
    let op_code = OpCode::from_u8(bytes[2] >> 3 & 0x0f);
    let mut metadata =
        Metadata::new(u16::from_be_bytes([bytes[0], bytes[1]]), MessageType::Response, op_code);
    metadata.response_code = code;
    let header = Header { metadata, counts: HeaderCounts::default() };
    header.to_bytes().expect("a header has twelve bytes")
}

#[cfg(test)]
mod tests;
