//! Between the library's values and ours.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, EntryType, Message, MessageType, Snapshot};

use super::types::{Entry, EntryKind, Envelope, ReadState, StepError};
use crate::members::Members;
use crate::snapshot::SnapshotMeta;

pub(super) fn parse(message: &[u8]) -> Result<Message, StepError> {
    Message::parse_from_bytes(message).map_err(|e| StepError::Malformed(e.to_string()))
}

pub(super) fn envelope(m: Message) -> Envelope {
    let snapshot = (m.get_msg_type() == MessageType::MsgSnapshot)
        .then(|| from_library(m.get_snapshot()).expect("made here"));
    let message = m.write_to_bytes().expect("a message in memory can be encoded");
    Envelope { to: m.to, message: message.into(), snapshot }
}

pub(super) fn read_state(me: u64, state: &raft::ReadState) -> Option<ReadState> {
    let (id, ctx) = state.request_ctx.split_first_chunk::<8>()?;
    let ctx = ctx.try_into().ok()?;
    let mine = u64::from_be_bytes(*id) == me;
    mine.then_some(ReadState { ctx: u64::from_be_bytes(ctx), index: state.index })
}

pub(super) fn from_library(s: &Snapshot) -> Result<SnapshotMeta, StepError> {
    let members = Members::decode(s.data.clone()).map_err(|e| StepError::Malformed(e.to_string()))?;
    Ok(SnapshotMeta { index: s.get_metadata().index, term: s.get_metadata().term, members })
}

pub(super) fn same_members(a: &Snapshot, b: &Snapshot) -> bool {
    let of = |s: &Snapshot| {
        let cs = s.get_metadata().get_conf_state();
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        (set(&cs.voters), set(&cs.learners), cs.voters_outgoing.is_empty())
    };
    of(a) == of(b)
}

pub(super) fn from_entry(e: &raft::eraftpb::Entry) -> Entry {
    let kind = match e.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Membership,
    };
    Entry { index: e.index, term: e.term, kind, data: e.data.clone(), context: e.context.clone() }
}

pub(super) fn to_library(e: Entry) -> raft::eraftpb::Entry {
    let mut out = raft::eraftpb::Entry::default();
    (out.index, out.term, out.data, out.context) = (e.index, e.term, e.data, e.context);
    out.set_entry_type(match e.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::Membership => EntryType::EntryConfChangeV2,
    });
    out
}

pub(super) fn conf_state(meta: &SnapshotMeta) -> ConfState {
    ConfState::from((meta.members.voters(), meta.members.learners()))
}

/// The library's form of a snapshot: what it is, not what is in it.
pub(super) fn to_wire(meta: &SnapshotMeta) -> Snapshot {
    let mut s = Snapshot::default();
    s.mut_metadata().index = meta.index;
    s.mut_metadata().term = meta.term;
    s.mut_metadata().set_conf_state(conf_state(meta));
    s.data = meta.members.encode().into();
    s
}
