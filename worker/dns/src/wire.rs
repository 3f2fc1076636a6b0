//! Answers of other servers, kept as the bytes they came in: records that we do not know pass unchanged.

use std::time::Duration;

use hickory_proto::op::ResponseCode;

use crate::message::{HEADER_BYTES, Request};

/// An answer of another server that was looked through once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relayed {
    bytes: Vec<u8>,
    /// Where times to live stand.
    ttls: Vec<usize>,
    /// It may be kept so long.
    pub(crate) ttl: Duration,
}

/// Most time that an answer is kept.
const MAX_TTL: Duration = Duration::from_secs(60);
/// Most time that "there is nothing" is kept.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);

const OPT: u16 = 41;
const SOA: u16 = 6;

impl Relayed {
    /// Looks through an answer; none if it is not whole.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        let counts: Vec<u16> =
            (4..HEADER_BYTES).step_by(2).map(|at| u16_at(&bytes, at)).collect::<Option<_>>()?;
        let mut at = HEADER_BYTES;
        for _ in 0..counts[0] {
            at = skip_name(&bytes, at)? + 4;
        }
        let (mut ttls, mut least, mut negative) = (Vec::new(), None::<u32>, None::<u32>);
        for _ in 0..counts[1..].iter().map(|n| u32::from(*n)).sum() {
            at = skip_name(&bytes, at)?;
            let kind = u16_at(&bytes, at)?;
            let (ttl_at, data) = (at + 4, at + 10);
            let ttl = u32::from(u16_at(&bytes, ttl_at)?) << 16 | u32::from(u16_at(&bytes, ttl_at + 2)?);
            at = data + usize::from(u16_at(&bytes, at + 8)?);
            if at > bytes.len() {
                return None;
            }
            if kind != OPT {
                ttls.push(ttl_at);
                least = Some(least.map_or(ttl, |least| least.min(ttl)));
            }
            if kind == SOA && at >= data + 4 {
                let minimum = u32::from(u16_at(&bytes, at - 4)?) << 16 | u32::from(u16_at(&bytes, at - 2)?);
                negative = Some(ttl.min(minimum));
            }
        }
        let no_records = counts[1] == 0;
        let seconds = if no_records { negative } else { least };
        let most = if no_records { MAX_NEGATIVE_TTL } else { MAX_TTL };
        let answers = [ResponseCode::NoError, ResponseCode::NXDomain].contains(&code(&bytes));
        let ttl = seconds.filter(|_| answers).map_or(Duration::ZERO, |s| Duration::from_secs(s.into()));
        Some(Self { bytes, ttls, ttl: ttl.min(most) })
    }

    /// What it says.
    pub(crate) fn code(&self) -> ResponseCode {
        code(&self.bytes)
    }

    /// As the answer to `request`, `age` after it came. Too long for the request's limit: "ask again
    /// over TCP".
    pub(crate) fn to(&self, request: &Request, age: Duration) -> Vec<u8> {
        if self.bytes.len() > usize::from(request.limit) {
            return request.truncated();
        }
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&request.metadata.id.to_be_bytes());
        // the question as it was asked: clients may check upper and lower case (0x20)
        let mut at = HEADER_BYTES;
        for label in request.query.name.iter() {
            let to = at + 1 + label.len();
            if let Some(place) = bytes.get_mut(at + 1..to) {
                place.copy_from_slice(label);
            }
            at = to;
        }
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for at in &self.ttls {
            let place = &mut bytes[*at..*at + 4];
            let ttl = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
            place.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
        bytes
    }
}

fn code(bytes: &[u8]) -> ResponseCode {
    ResponseCode::from(0, bytes.get(3).copied().unwrap_or(0) & 0x0f)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Where the name that begins at `at` ends.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len if len & 0xc0 == 0xc0 => return Some(at + 2),
            len if len & 0xc0 == 0 => at += 1 + usize::from(len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
