//! What a user was told to be written stays written: the last acknowledged spec of a service is the
//! one in the store, unless a later command's fate is not known.

use std::collections::BTreeMap;

use swarm_manager_core::store::View;
use swarm_types::policy::FailureAction;
use swarm_types::service::Mode;

use crate::sim::command::{Change, Command};
use crate::sim::user::{Fate, User};

#[derive(Debug, Default, Clone)]
struct Expected {
    exists: Option<bool>,
    replicas: Option<u64>,
    label: Option<String>,
    /// It may be rolled back by itself, and its labels with it.
    turns_back: bool,
}

/// Compares the store with what the user was told. One user's commands about one service come one
/// after the other.
///
/// # Errors
/// If something acknowledged is not there.
pub fn check(user: &User, view: &View) -> Result<(), String> {
    let mut all: BTreeMap<&str, Expected> = BTreeMap::new();
    for asked in user.asked.values() {
        let (name, known) = match &asked.command {
            Command::Create(spec) => (spec.annotations.name.as_str(), true),
            Command::Update { name, .. } | Command::Remove(name) => (name.as_str(), true),
            Command::Rollback(name) => (name.as_str(), false),
            _ => continue,
        };
        let expected = all.entry(name).or_default();
        match &asked.fate {
            Fate::Denied(_) => {}
            Fate::Done if known => learn(expected, &asked.command),
            Fate::Done => {
                let turns_back = expected.turns_back;
                *expected = Expected { exists: Some(true), turns_back, ..Expected::default() };
            }
            // It may be another service by now.
            Fate::Open | Fate::Unknown => *expected = Expected { turns_back: true, ..Expected::default() },
        }
    }
    all.into_iter().try_for_each(|(name, expected)| compare(view, name, &expected))
}

fn learn(expected: &mut Expected, command: &Command) {
    match command {
        Command::Create(spec) => {
            expected.exists = Some(true);
            expected.replicas = replicas(spec.mode);
            expected.turns_back = spec.update.failure_action == FailureAction::Rollback;
        }
        Command::Remove(_) => *expected = Expected { exists: Some(false), ..Expected::default() },
        Command::Update { change: Change::Replicas(n), .. } => expected.replicas = Some(*n),
        Command::Update { change: Change::Label(l), .. } => expected.label = Some(l.clone()),
        _ => {}
    }
}

fn replicas(mode: Mode) -> Option<u64> {
    match mode {
        Mode::Replicated { replicas } => Some(replicas),
        Mode::Global => None,
    }
}

fn compare(view: &View, name: &str, expected: &Expected) -> Result<(), String> {
    let service = view.service_by_name(name);
    if expected.exists.is_some_and(|exists| exists != service.is_some()) {
        return Err(format!("service {name}: expected {expected:?}, there: {}", service.is_some()));
    }
    let Some(service) = service else { return Ok(()) };
    let found = replicas(service.spec.mode);
    if expected.replicas.is_some() && expected.replicas != found {
        return Err(format!(
            "service {name} has {found:?} replicas, {:?} were acknowledged",
            expected.replicas
        ));
    }
    let found = service.spec.annotations.labels.get("l");
    if !expected.turns_back && expected.label.is_some() && expected.label.as_ref() != found {
        return Err(format!("service {name} has label {found:?}, {:?} was acknowledged", expected.label));
    }
    Ok(())
}
