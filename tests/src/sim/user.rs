//! The user: asks managers, asks again if they cannot, notes what they said.

use std::collections::BTreeMap;

use super::Sim;
use super::command::{Answer, Command};
use super::event::{Body, What};
use super::net::Host;

/// After so long without an answer a user does not know what became of a command.
const PATIENCE_MS: u64 = 15_000;
/// A user asks again after so long.
const AGAIN_MS: u64 = 100;

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows yet.
    Open,
    /// It is written.
    Done,
    /// It is not: why.
    Denied(String),
    /// Nobody answered: it may be written or not.
    Unknown,
}

/// A question.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What was asked.
    pub command: Command,
    /// What became of it.
    pub fate: Fate,
    /// When the fate was known.
    pub at_ms: u64,
    /// The manager that is asked.
    pub to: Host,
}

/// Someone at a machine outside the cluster.
#[derive(Debug, Default)]
pub struct User {
    /// Everything that was asked.
    pub asked: BTreeMap<u64, Asked>,
    next: u64,
    leader: Option<Host>,
}

impl Sim {
    /// Asks for something; gives the number of the question.
    pub fn want(&mut self, command: Command) -> u64 {
        self.user.next += 1;
        let ask = self.user.next;
        self.note(|| format!("user asks {ask}: {command:?}"));
        let to = self.user.leader.unwrap_or(0);
        self.user.asked.insert(ask, Asked { command, fate: Fate::Open, at_ms: 0, to });
        self.ask(ask);
        self.after(PATIENCE_MS, What::GiveUp { ask });
        ask
    }

    /// The user asks (again).
    pub fn ask(&mut self, ask: u64) {
        let Some(asked) = self.user.asked.get(&ask).filter(|a| a.fate == Fate::Open) else { return };
        let (to, command) = (asked.to, Box::new(asked.command.clone()));
        let from = self.hosts.len();
        // No connection: somebody else is asked.
        let dead = !self.hosts[to].has_power || !self.net.reaches(from, to) || !self.net.reaches(to, from);
        if dead {
            self.elsewhere(ask, None);
            return self.after(1000, What::Ask { ask });
        }
        self.send(from, to, Body::Ask { ask, command });
    }

    fn elsewhere(&mut self, ask: u64, leader: Option<Host>) {
        let managers: Vec<Host> = self.raft_ids.values().copied().collect();
        let at = usize::try_from(self.dice.below(managers.len() as u64)).unwrap_or(0);
        let to = leader.unwrap_or(managers[at]);
        self.user.leader = Some(to);
        if let Some(asked) = self.user.asked.get_mut(&ask) {
            asked.to = to;
        }
    }

    /// A manager answers.
    pub fn answered(&mut self, ask: u64, from: Host, answer: Answer) {
        let at_ms = self.now_ms;
        let Some(asked) = self.user.asked.get_mut(&ask).filter(|a| a.fate == Fate::Open) else { return };
        match answer {
            Answer::Done => {
                (asked.fate, asked.at_ms) = (Fate::Done, at_ms);
                let admitted = match asked.command {
                    Command::Join { host, .. } => Some(host),
                    _ => None,
                };
                self.user.leader = Some(from);
                self.note(|| format!("{ask} is done"));
                if let Some(host) = admitted {
                    self.admit(host, from);
                }
            }
            Answer::Denied(why) => {
                (asked.fate, asked.at_ms) = (Fate::Denied(why.clone()), at_ms);
                self.note(|| format!("{ask} is denied: {why}"));
            }
            Answer::Elsewhere(leader) => {
                self.elsewhere(ask, leader);
                let wait = if leader.is_some() { 1 } else { AGAIN_MS };
                self.after(wait, What::Ask { ask });
            }
        }
    }

    /// The user waits no longer.
    pub fn give_up(&mut self, ask: u64) {
        let at_ms = self.now_ms;
        if let Some(asked) = self.user.asked.get_mut(&ask).filter(|a| a.fate == Fate::Open) {
            (asked.fate, asked.at_ms) = (Fate::Unknown, at_ms);
            self.elsewhere(ask, None);
        }
    }

    /// What became of a question.
    pub fn fate(&self, ask: u64) -> Fate {
        self.user.asked.get(&ask).map_or(Fate::Unknown, |a| a.fate.clone())
    }
}
