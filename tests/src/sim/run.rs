//! One run: a cluster, a user and faults for a while, then calm.

use std::time::Duration;

use swarm_types::cluster::ClusterSpec;
use swarm_types::service::UpdateState;

use super::command::Command;
use super::event::What;
use super::{Broken, Sim};
use crate::invariants::{no_status_lost, settles};

/// How long things go wrong, in milliseconds.
const STORM_MS: u64 = 60_000;
/// The cluster must be at rest after so long.
const CALM_MS: u64 = 180_000;
/// At rest it plans nothing for so long.
const REST_MS: u64 = 20_000;

/// How a run went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Stands for its whole story.
    pub hash: u64,
    /// What was broken.
    pub broken: Option<Broken>,
    /// How much happened.
    pub steps: u64,
    /// The last part of its story, if it was to be told.
    pub story: Vec<String>,
    /// How many commands of users were acknowledged.
    pub done: usize,
    /// How often a message of assignments was missed and the whole set asked for.
    pub resyncs: u64,
    /// How many machines joined while things went wrong.
    pub joined: usize,
}

/// Runs a seed. If `is_told`, its story is kept in words.
pub fn run(seed: u64, is_told: bool) -> Outcome {
    let mut sim = Sim::new(seed);
    sim.is_told = is_told;
    play(&mut sim);
    if sim.broken.is_some() && is_told {
        tell_state(&mut sim);
    }
    let done = sim.user.asked.values().filter(|a| a.fate == super::user::Fate::Done).count();
    let joins = |a: &&super::user::Asked| matches!(a.command, Command::Join { .. });
    let done_joins = |a: &&super::user::Asked| joins(a) && a.fate == super::user::Fate::Done;
    let joined = sim.user.asked.values().filter(done_joins).count();
    Outcome {
        seed,
        hash: sim.hash(),
        broken: sim.broken.clone(),
        steps: sim.steps(),
        story: sim.story().map(str::to_owned).collect(),
        done,
        resyncs: sim.resyncs,
        joined,
    }
}

/// Adds the services and tasks to the story.
fn tell_state(sim: &mut Sim) {
    let view = sim.view().clone();
    for service in view.services() {
        let (spec, status) = (&service.spec, service.update_status.as_ref());
        let update = status.map(|u| format!("{} since {}: {}", u.state.as_str(), u.started_at.0, u.message));
        let (mode, version) = (spec.mode, service.spec_version);
        sim.note(|| format!("{} {mode:?} v{version} {:?} {update:?}", spec.annotations.name, spec.update));
        for task in view.tasks_of_service(&service.id) {
            sim.note(|| {
                let (made, at) = (task.meta.created_at.0, task.status.applied_at.0);
                let (id, name, v) = (task.id.short(), task.name(), task.spec_version);
                let (state, desired, err) = (task.status.state, task.desired_state, &task.status.err);
                format!("  {id} {name} v{v} {} {state}/{desired} made {made} at {at} {err}", task.node)
            });
        }
    }
}

fn play(sim: &mut Sim) {
    let managers = [1, 3, 3, 5][usize::try_from(sim.dice.below(4)).unwrap_or(0)];
    let workers = 2 + usize::try_from(sim.dice.below(4)).unwrap_or(0);
    let history = i64::try_from(sim.dice.below(6)).unwrap_or(0);
    sim.snapshot_every = 10 + sim.dice.below(200);
    let spec = ClusterSpec { task_history_limit: history, ..ClusterSpec::default() };
    sim.found(managers, workers, spec);
    sim.add_spares(2);
    for host in 0..sim.hosts.len() {
        sim.hosts[host].clock.offset_ms = i64::try_from(sim.dice.below(4000)).unwrap_or(0) - 2000;
        sim.hosts[host].worker.containers.pull_ms = 3000;
        sim.hosts[host].worker.containers.failing_permille = sim.dice.below(100);
    }
    sim.faults.on = true;
    sim.faults.every = Duration::from_millis(200 + sim.dice.below(6000));
    sim.after(1000, What::Idea);
    sim.after(2000, What::Fault);
    sim.run_until(STORM_MS);
    sim.mend_all();
    if sim.broken.is_none() {
        calm(sim);
    }
}

fn calm(sim: &mut Sim) {
    // What was just mended has yet to be noticed.
    sim.run_until(sim.now_ms + 5000);
    let mut rest = Ok(());
    sim.run_while(CALM_MS, |sim| {
        rest = at_rest(sim);
        rest.is_ok()
    });
    if let Err(why) = rest {
        return sim.broken("settles", why);
    }
    // An update that waits for room is still watched: it may yet say so.
    let watched = sim.view().services().any(|s| {
        let state = s.update_status.as_ref().map(|u| u.state);
        matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
    });
    let planned = sim.proposals;
    sim.run_until(sim.now_ms + REST_MS);
    if sim.proposals != planned
        && !watched
        && sim.broken.is_none()
        && settles::restless(sim.view()).is_empty()
    {
        sim.broken("settles", format!("{} plans were made at rest", sim.proposals - planned));
    }
    sim.check_acknowledged();
}

fn at_rest(sim: &Sim) -> Result<(), String> {
    let held = sim.view().networks().find(|n| !n.released.is_empty());
    if let Some(network) = held.filter(|_| settles::restless(sim.view()).is_empty()) {
        return Err(format!("addresses of {} are in quarantine", network.spec.annotations.name));
    }
    settles::check(sim)?;
    no_status_lost::check(sim)
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.broken {
            None => write!(
                f,
                "seed={} hash={:016x} steps={} done={}",
                self.seed, self.hash, self.steps, self.done
            ),
            Some(broken) => write!(
                f,
                "seed={} commit={} step={} at={}ms invariant={}: {}",
                self.seed,
                commit(),
                broken.step,
                broken.at_ms,
                broken.invariant,
                broken.text
            ),
        }
    }
}

/// The commit that this runs on: a seed means nothing on another one.
fn commit() -> String {
    let asked = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let answer = asked.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    if answer.is_empty() { "unknown".into() } else { answer }
}
