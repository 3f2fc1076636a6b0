//! A record: what one append makes durable together.

use bytes::Bytes;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::core::{Entry, EntryKind, HardState};

const RESET: u8 = 1;
const BEGIN: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) hard_state: HardState,
    /// Everything before is replaced by a snapshot.
    pub(super) reset: bool,
    /// First record of a segment: how many records the segment before it has.
    pub(super) begin: Option<u64>,
    pub(super) entries: Vec<Entry>,
}

impl Record {
    pub(super) fn state(hard_state: HardState) -> Self {
        Self { hard_state, reset: false, begin: None, entries: Vec::new() }
    }

    pub(super) fn begin(previous: u64, hard_state: HardState) -> Self {
        Self { begin: Some(previous), ..Self::state(hard_state) }
    }

    pub(super) fn max_index(&self) -> u64 {
        self.entries.last().map_or(0, |e| e.index)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        let flags = u8::from(self.reset) * RESET + u8::from(self.begin.is_some()) * BEGIN;
        let hs = self.hard_state;
        e.u8(flags).u64(hs.term).u64(hs.vote).u64(hs.commit).u64(self.begin.unwrap_or(0));
        e.u32(u32::try_from(self.entries.len()).expect("fewer than four thousand million"));
        for entry in &self.entries {
            let kind = match entry.kind {
                EntryKind::Normal => 1,
                EntryKind::Membership => 2,
            };
            e.u8(kind).u64(entry.index).u64(entry.term).bytes(&entry.data).bytes(&entry.context);
        }
        e.finish()
    }

    pub(super) fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut d = Decoder::new(data);
        let flags = d.u8()?;
        let hard_state = HardState { term: d.u64()?, vote: d.u64()?, commit: d.u64()? };
        let previous = d.u64()?;
        let mut entries = Vec::new();
        for _ in 0..d.u32()? {
            let kind = match d.u8()? {
                1 => EntryKind::Normal,
                2 => EntryKind::Membership,
                _ => return Err(Malformed("unknown kind of entry")),
            };
            let (index, term) = (d.u64()?, d.u64()?);
            entries.push(Entry { index, term, kind, data: d.bytes()?, context: d.bytes()? });
        }
        d.end()?;
        let begin = (flags & BEGIN != 0).then_some(previous);
        Ok(Self { hard_state, reset: flags & RESET != 0, begin, entries })
    }
}
