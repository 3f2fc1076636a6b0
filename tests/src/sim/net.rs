//! The net: who reaches whom, how long a message takes, what is lost on the way.

use std::collections::BTreeSet;

use swarm_types::id::IdSource;

/// Index of a host; the user's machine comes after the last one.
pub type Host = usize;

/// The net between hosts.
#[derive(Debug, Default)]
pub struct Net {
    /// Pairs (from, to) over which nothing comes.
    cuts: BTreeSet<(Host, Host)>,
    /// Messages lost, in a thousand. Streams do not lose messages, they are late.
    pub loss_permille: u64,
    /// Raft messages that come twice, in a thousand.
    pub twice_permille: u64,
    /// Messages of assignments that are lost, come twice or too late, in a thousand.
    pub unruly_permille: u64,
    /// Longest usual delay in milliseconds.
    pub jitter_ms: u64,
}

impl Net {
    /// Nothing from `from` reaches `to` any more.
    pub fn cut(&mut self, from: Host, to: Host) {
        self.cuts.insert((from, to));
    }
    /// `host` reaches nobody, and nobody reaches it.
    pub fn cut_off(&mut self, host: Host, hosts: usize) {
        for other in (0..=hosts).filter(|other| *other != host) {
            self.cuts.insert((host, other));
            self.cuts.insert((other, host));
        }
    }
    /// The hosts of `side` reach only each other.
    pub fn split(&mut self, side: &BTreeSet<Host>, hosts: usize) {
        for a in 0..hosts {
            for b in (0..hosts).filter(|b| side.contains(&a) != side.contains(b)) {
                self.cuts.insert((a, b));
            }
        }
    }
    /// `host` is reached again.
    pub fn heal(&mut self, host: Host) {
        self.cuts.retain(|(a, b)| *a != host && *b != host);
    }
    /// All is well.
    pub fn heal_all(&mut self) {
        *self = Net::default();
    }
    /// A message would arrive.
    pub fn reaches(&self, from: Host, to: Host) -> bool {
        !self.cuts.contains(&(from, to))
    }
    /// The delay of a message in milliseconds; none if it is lost.
    pub fn datagram(&self, from: Host, to: Host, dice: &mut IdSource) -> Option<u64> {
        if !self.reaches(from, to) || dice.below(1000) < self.loss_permille {
            return None;
        }
        Some(self.delay(dice))
    }
    /// The delay of a piece of a stream, which is sent again if it is lost; none if nothing comes through.
    pub fn stream(&self, from: Host, to: Host, dice: &mut IdSource) -> Option<u64> {
        if !self.reaches(from, to) {
            return None;
        }
        let again = if dice.below(1000) < self.loss_permille { 200 } else { 0 };
        Some(self.delay(dice) + again)
    }
    fn delay(&self, dice: &mut IdSource) -> u64 {
        1 + dice.below(self.jitter_ms + 2)
    }
}
