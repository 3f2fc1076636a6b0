//! Who waits for what: proposals by their name, reads by their number.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::Response;
use super::handle::{Applied, ProposeError, ReadError};
use crate::core::{Core, ProposalId, ReadState};

pub(super) type ProposeAnswer = oneshot::Sender<Result<Applied, ProposeError>>;
pub(super) type ReadAnswer = oneshot::Sender<Result<u64, ReadError>>;

/// Asked again after this many ticks without an answer.
const ASK_AGAIN: u64 = 3;

/// Proposals that are in the log and not decided yet.
#[derive(Default)]
pub(super) struct Proposals(BTreeMap<ProposalId, ProposeAnswer>);

impl Proposals {
    pub(super) fn add(&mut self, id: ProposalId, answer: ProposeAnswer) {
        self.0.insert(id, answer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry at `index` is decided: whoever proposed exactly it is answered with what applying
    /// it gave, whoever proposed another one at that place has lost it for sure.
    pub(super) fn decided(&mut self, index: u64, term: u64, response: Response) {
        let mut response = Some(response);
        while let Some(first) = self.0.first_entry() {
            if first.key().index > index {
                break;
            }
            let (id, answer) = first.remove_entry();
            let outcome = match response.take_if(|_| id == ProposalId { index, term }) {
                Some(response) => Ok(Applied { index, response }),
                None => Err(ProposeError::LostLeadership),
            };
            // A caller that went away needs no answer; so everywhere below.
            let _gone = answer.send(outcome);
        }
    }

    /// A snapshot jumped over everything up to `index`: nobody here can tell what became of them.
    pub(super) fn jumped(&mut self, index: u64) {
        let rest = self.0.split_off(&ProposalId { index: index + 1, term: 0 });
        for (_, answer) in std::mem::replace(&mut self.0, rest) {
            let reason = "this manager lost leadership and caught up from a snapshot".to_owned();
            let _gone = answer.send(Err(ProposeError::Unknown { reason }));
        }
    }

    pub(super) fn forget_gone(&mut self) {
        self.0.retain(|_, answer| !answer.is_closed());
    }

    pub(super) fn fail_all(&mut self, reason: &str) {
        for (_, answer) in std::mem::take(&mut self.0) {
            let reason = reason.to_owned();
            let _gone = answer.send(Err(ProposeError::Unknown { reason }));
        }
    }
}

/// Reads on their way: not asked yet, asked, and waiting to be applied.
pub(super) struct Reads {
    last_ctx: u64,
    pending: Vec<ReadAnswer>,
    asked: BTreeMap<u64, (u64, Vec<ReadAnswer>)>,
    waiting: BTreeMap<u64, Vec<ReadAnswer>>,
}

impl Reads {
    /// `first` must differ from start to start: a leader may still hold a question from before a
    /// restart, and would take one with the same number for the same.
    pub(super) fn new(first: u64) -> Self {
        Self {
            last_ctx: first & !0xffff_ffff,
            pending: Vec::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, answer: ReadAnswer) {
        self.pending.push(answer);
    }

    /// Asks once for all that came since, if it can be asked now.
    pub(super) fn ask(&mut self, core: &mut Core, tick: u64) {
        if self.pending.is_empty() || !core.read_index(self.last_ctx + 1) {
            return;
        }
        self.last_ctx += 1;
        self.asked.insert(self.last_ctx, (tick, std::mem::take(&mut self.pending)));
    }

    /// The cluster answered. An answer to a later question answers the earlier ones as well.
    pub(super) fn answered(&mut self, state: ReadState) {
        let later = self.asked.split_off(&(state.ctx + 1));
        for (_, (_, answers)) in std::mem::replace(&mut self.asked, later) {
            self.waiting.entry(state.index).or_default().extend(answers);
        }
    }

    pub(super) fn applied(&mut self, index: u64) {
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > index {
                break;
            }
            for answer in first.remove() {
                let _gone = answer.send(Ok(index));
            }
        }
    }

    /// Questions can get lost; those asked too long ago are asked again.
    pub(super) fn tick(&mut self, tick: u64) {
        let stale = |asked: &(u64, _)| asked.0 + ASK_AGAIN <= tick;
        let lost: Vec<u64> = self.asked.iter().filter(|(_, a)| stale(a)).map(|(&ctx, _)| ctx).collect();
        for ctx in lost {
            if let Some((_, answers)) = self.asked.remove(&ctx) {
                self.pending.extend(answers);
            }
        }
        self.pending.retain(|answer| !answer.is_closed());
    }

    pub(super) fn fail_all(&mut self) {
        let asked = std::mem::take(&mut self.asked).into_values().flat_map(|(_, a)| a);
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten();
        for answer in std::mem::take(&mut self.pending).into_iter().chain(asked).chain(waiting) {
            let _gone = answer.send(Err(ReadError::Stopped));
        }
    }
}
