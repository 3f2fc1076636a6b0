//! What a user was told to be written stays written, in the order in which it was told.
//!
//! For each service all states are followed that agree with what the user heard. A command that was
//! acknowledged leads each of them on; one whose fate nobody knows may take effect at any later time, once, or never; an
//! update that may turn back by itself may have. The service in the store must be in one of these states.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_manager_core::store::View;
use swarm_types::id::NetworkId;
use swarm_types::policy::FailureAction;
use swarm_types::service::{Mode, ServiceSpec};

use crate::sim::command::Command;
use crate::sim::user::{Fate, User};

/// More commands of unknown fate than this make too many states: then the service is not looked at.
const MOST_UNKNOWN: usize = 6;

/// A service's spec and the one before; none if there is no such service.
type Service = Option<(ServiceSpec, Option<ServiceSpec>)>;

/// A state, and which of the commands of unknown fate have taken effect in it (one bit each).
type State = (Service, u32);

#[derive(Default)]
struct Story<'a> {
    unknown: Vec<&'a Command>,
    states: Vec<State>,
}

/// Compares the store with what the user was told. One user's commands about one service come one
/// after the other.
///
/// # Errors
/// If something acknowledged is not there, or something is there that nobody asked for.
pub fn check(user: &User, view: &View) -> Result<(), String> {
    let mut all: BTreeMap<&str, Story<'_>> = BTreeMap::new();
    for asked in user.asked.values() {
        let Some(name) = service_of(&asked.command) else { continue };
        let story = all.entry(name).or_insert_with(|| Story { states: vec![(None, 0)], ..Story::default() });
        match asked.fate {
            Fate::Denied(_) => {}
            Fate::Done => story.done(name, &asked.command)?,
            Fate::Open | Fate::Unknown => story.unknown.push(&asked.command),
        }
    }
    all.into_iter().try_for_each(|(name, story)| story.holds(view, name))
}

/// The service that a command is about.
pub fn service_of(command: &Command) -> Option<&str> {
    match command {
        Command::Create(spec) => Some(&spec.annotations.name),
        Command::Update { name, .. } | Command::Rollback(name) | Command::Remove(name) => Some(name),
        Command::CreateNetwork(_)
        | Command::RemoveNetwork(_)
        | Command::Node { .. }
        | Command::RemoveNode { .. }
        | Command::Join { .. }
        | Command::SetRole(..)
        | Command::SetMembership(..) => None,
    }
}

impl Story<'_> {
    fn done(&mut self, name: &str, command: &Command) -> Result<(), String> {
        self.close();
        let states = std::mem::take(&mut self.states);
        for (service, used) in states {
            if let Some(next) = after(&service, command) {
                self.add((next, used));
            }
        }
        if self.states.is_empty() && self.unknown.len() <= MOST_UNKNOWN {
            return Err(format!("service {name}: {command:?} was acknowledged and was not possible"));
        }
        Ok(())
    }

    /// All that may have happened by itself, or by a command of unknown fate.
    fn close(&mut self) {
        if self.unknown.len() > MOST_UNKNOWN {
            return;
        }
        let mut at = 0;
        while let Some((service, used)) = self.states.get(at).cloned() {
            at += 1;
            if let Some(back) = turned_back(&service) {
                self.add((back, used));
            }
            for n in (0..self.unknown.len()).filter(|n| used >> n & 1 == 0) {
                if let Some(next) = after(&service, self.unknown[n]) {
                    self.add((next, used | 1 << n));
                }
            }
        }
    }

    fn add(&mut self, state: State) {
        if !self.states.contains(&state) {
            self.states.push(state);
        }
    }

    fn holds(mut self, view: &View, name: &str) -> Result<(), String> {
        self.close();
        let found = view.service_by_name(name).map(|s| as_asked(view, &s.spec));
        let fits = |(service, _): &State| service.as_ref().map(|(spec, _)| as_asked(view, spec)) == found;
        if self.states.iter().any(fits) || self.unknown.len() > MOST_UNKNOWN {
            return Ok(());
        }
        let (first, _) = &self.states[0];
        Err(format!(
            "service {name} is {found:?}, which is none of {} states, as {first:?}",
            self.states.len()
        ))
    }
}

/// A spec without what managers write into it, and with the names of networks that users gave.
fn as_asked(view: &View, spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    let task = Arc::make_mut(&mut spec.task);
    (task.host_ports, task.gateway) = (Vec::new(), false);
    for attachment in &mut task.networks {
        if let Some(network) = view.network(&attachment.network) {
            attachment.network = NetworkId::new(&network.spec.annotations.name);
        }
    }
    spec
}

/// What a command makes of a service; none if it is denied.
fn after(service: &Service, command: &Command) -> Option<Service> {
    match (command, service) {
        (Command::Create(spec), None) => Some(Some((spec.clone(), None))),
        (Command::Update { change, .. }, Some((spec, before))) => {
            let mut next = spec.clone();
            change.apply(&mut next);
            let same_kind = matches!(spec.mode, Mode::Global) == matches!(next.mode, Mode::Global);
            let before = if next == *spec { before.clone() } else { Some(spec.clone()) };
            same_kind.then_some(Some((next, before)))
        }
        (Command::Rollback(_), Some((spec, Some(before)))) => {
            Some(Some((before.clone(), Some(spec.clone()))))
        }
        (Command::Remove(_), Some(_)) => Some(None),
        _ => None,
    }
}

/// What a failed update makes of a service that shall be rolled back then.
fn turned_back(service: &Service) -> Option<Service> {
    let (spec, Some(before)) = service.as_ref()? else { return None };
    let rolls_back = spec.update.failure_action == FailureAction::Rollback;
    rolls_back.then(|| Some((ServiceSpec { mode: spec.mode, ..before.clone() }, None)))
}
