//! Scripted scenarios: commands in words users know, and the outcome as text.
//!
//! A file in `tests/scenarios` holds commands, a line `----` and what they print; see [`play`].

mod options;
mod show;

use std::collections::BTreeMap;

use swarm_types::cluster::ClusterSpec;
use swarm_types::id::TaskId;
use swarm_types::node::{Availability, NodeState, Role};
use swarm_types::service::UpdateState;
use swarm_types::task_state::TaskState;
use swarm_worker_core::observed::Exit;

use crate::invariants::{no_status_lost, settles};
use crate::sim::Sim;
use crate::sim::command::{Change, Command, NodeChange};
use crate::sim::user::Fate;
use options::{Options, millis};

/// Longest time that a scenario waits for something, in milliseconds.
const PATIENCE_MS: u64 = 300_000;

/// A scenario that is being played.
pub struct Scenario {
    sim: Sim,
    out: String,
    remembered: BTreeMap<TaskId, String>,
}

/// Plays the commands of a script; what they print.
///
/// # Errors
/// If a line makes no sense.
pub fn play(script: &str, is_told: bool) -> Result<String, String> {
    let mut sim = Sim::new(1);
    sim.is_told = is_told;
    let mut scenario = Scenario { sim, out: String::new(), remembered: BTreeMap::new() };
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        scenario.line(&words).map_err(|why| format!("`{line}`: {why}"))?;
        if let Some(broken) = &scenario.sim.broken {
            let story: Vec<&str> = scenario.sim.story().collect();
            return Err(format!(
                "`{line}`: broken {}: {}\n{}",
                broken.invariant,
                broken.text,
                story.join("\n")
            ));
        }
    }
    Ok(scenario.out)
}

fn bad(what: &str) -> String {
    format!("cannot read `{what}`")
}

impl Scenario {
    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["cluster", rest @ ..] => self.cluster(&Options::read(rest)?),
            ["service", "create", name, rest @ ..] => {
                let spec = Options::read(rest)?.service(name)?;
                self.ask(words, Command::Create(spec), true)
            }
            ["service", "scale", name, n] => {
                let change = Change::Replicas(n.parse().map_err(|_| bad(n))?);
                self.ask(words, Command::Update { name: (*name).into(), change }, true)
            }
            ["service", "update", name, key_value] => {
                let change = options::change(key_value)?;
                self.ask(words, Command::Update { name: (*name).into(), change }, true)
            }
            ["service", "rollback", name] => self.ask(words, Command::Rollback((*name).into()), true),
            ["service", "rm", name] => self.ask(words, Command::Remove((*name).into()), true),
            ["stream", name, count] => self.stream(name, count.parse().map_err(|_| bad(count))?),
            ["node", "demote", "leader"] => {
                let leads =
                    |h: &&crate::sim::host::Host| h.manager.as_ref().is_some_and(|m| m.leading().is_some());
                let name = self.sim.hosts.iter().find(leads).ok_or("nobody leads")?.name.clone();
                self.node(words, &["demote", &name])
            }
            ["node", rest @ ..] => self.node(words, rest),
            ["wait", time] => {
                let until = self.sim.now_ms + millis(time)?;
                self.sim.run_until(until);
                Ok(())
            }
            ["settle"] => self.settle(),
            ["until", rest @ ..] => self.until(rest),
            ["remember"] => {
                let containers = self.sim.view().tasks().filter(|t| t.is_wanted());
                self.remembered = containers.map(|t| (t.id, t.name())).collect();
                Ok(())
            }
            ["kept", name] => {
                self.kept(name);
                Ok(())
            }
            ["tasks", name] => {
                show::tasks(&self.sim, name, &mut self.out);
                Ok(())
            }
            ["count", name] => {
                show::count(&self.sim, name, &mut self.out);
                Ok(())
            }
            ["nodes"] => {
                show::nodes(&self.sim, &mut self.out);
                Ok(())
            }
            ["services"] => {
                show::services(&self.sim, &mut self.out);
                Ok(())
            }
            ["say", rest @ ..] => {
                self.out.push_str(&rest.join(" "));
                self.out.push('\n');
                Ok(())
            }
            ["exit", task, code] => {
                let code = code.parse().map_err(|_| bad(code))?;
                self.hurt(task, Some(Exit { code, ..Exit::default() }))
            }
            ["oom", task] => self.hurt(task, Some(Exit { code: 137, oom_killed: true, ..Exit::default() })),
            ["vanish", task] => self.hurt(task, None),
            [what, host, rest @ ..] => self.machine(what, host, rest),
            _ => Err("no such command".into()),
        }
    }

    fn cluster(&mut self, options: &Options) -> Result<(), String> {
        let history = i64::try_from(options.number("history")?.unwrap_or(5)).unwrap_or(5);
        let spec = ClusterSpec { task_history_limit: history, ..ClusterSpec::default() };
        let managers = usize::try_from(options.number("managers")?.unwrap_or(1)).unwrap_or(1);
        let workers = usize::try_from(options.number("workers")?.unwrap_or(3)).unwrap_or(3);
        self.sim.snapshot_every = options.number("snapshots")?.unwrap_or(1000);
        self.sim.found(managers, workers, spec);
        let ready = |sim: &mut Sim| {
            let all = sim.view().nodes().all(|n| n.status.state == NodeState::Ready);
            all && settles::check(sim).is_ok()
        };
        if self.sim.run_while(30_000, ready) { Ok(()) } else { Err("the cluster does not come up".into()) }
    }

    /// Asks, and waits for the answer; prints it if it is not yes.
    fn ask(&mut self, words: &[&str], command: Command, wait: bool) -> Result<(), String> {
        let ask = self.sim.want(command);
        if wait {
            self.sim.run_while(PATIENCE_MS, |sim| sim.fate(ask) != Fate::Open);
            match self.sim.fate(ask) {
                Fate::Done => {}
                Fate::Denied(why) => self.out.push_str(&format!("{}: {why}\n", words.join(" "))),
                Fate::Open | Fate::Unknown => self.out.push_str(&format!("{}: no answer\n", words.join(" "))),
            }
        }
        Ok(())
    }

    /// Many writes, each after the one before; none waited for.
    fn stream(&mut self, name: &str, count: u64) -> Result<(), String> {
        let began = self.sim.now_ms;
        let (mut done, mut longest, mut last) = (0, 0, began);
        for n in 0..count {
            let change = Change::Label(n.to_string());
            let ask = self.sim.want(Command::Update { name: name.into(), change });
            if n == count / 2 {
                self.machine("power-off", "leader", &[])?;
            }
            // Nobody waits long for a machine that has no power: another one is asked.
            let began = self.sim.now_ms;
            self.sim.run_while(PATIENCE_MS, |sim| {
                let dead = sim.user.asked.get(&ask).is_some_and(|a| !sim.hosts[a.to].up);
                sim.fate(ask) != Fate::Open || (dead && sim.now_ms > began + 100)
            });
            self.sim.give_up(ask);
            done += u64::from(self.sim.fate(ask) == Fate::Done);
            longest = longest.max(self.sim.now_ms - last);
            last = self.sim.now_ms;
        }
        self.sim.check_acknowledged();
        self.out.push_str(&format!(
            "{done} of {count} writes accepted, longest wait {}\n",
            show::seconds(longest)
        ));
        Ok(())
    }

    fn node(&mut self, words: &[&str], rest: &[&str]) -> Result<(), String> {
        let change = |name: &str, change| Command::Node { name: name.into(), change };
        let command = match rest {
            ["drain", name] => change(name, NodeChange::Availability(Availability::Drain)),
            ["pause", name] => change(name, NodeChange::Availability(Availability::Pause)),
            ["active", name] => change(name, NodeChange::Availability(Availability::Active)),
            ["promote", name] => change(name, NodeChange::Role(Role::Manager)),
            ["demote", name] => change(name, NodeChange::Role(Role::Worker)),
            ["label", name, label] => match label.split_once('=') {
                Some((key, value)) => change(name, NodeChange::Label(key.into(), Some(value.into()))),
                None => change(name, NodeChange::Label((*label).into(), None)),
            },
            ["rm", name] => Command::RemoveNode { name: (*name).into(), force: false },
            ["rm", "--force", name] => Command::RemoveNode { name: (*name).into(), force: true },
            _ => return Err("no such command".into()),
        };
        self.ask(words, command, true)
    }

    fn settle(&mut self) -> Result<(), String> {
        let mut why = Ok(());
        let settled = self.sim.run_while(PATIENCE_MS, |sim| {
            why = settles::check(sim).and_then(|()| no_status_lost::check(sim));
            why.is_ok()
        });
        if settled { Ok(()) } else { why }
    }

    /// Waits for something and prints how long it took.
    fn until(&mut self, words: &[&str]) -> Result<(), String> {
        let began = self.sim.now_ms;
        let what: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let came = self.sim.run_while(PATIENCE_MS, |sim| holds(sim, &what));
        let took = show::seconds(self.sim.now_ms - began);
        let how = if came { format!("after {took}") } else { "never".into() };
        self.out.push_str(&format!("{}: {how}\n", words.join(" ")));
        Ok(())
    }

    fn kept(&mut self, name: &str) {
        let Some(service) = self.sim.view().service_by_name(name) else { return };
        let tasks: Vec<_> = self.sim.view().tasks_of_service(&service.id).filter(|t| t.is_wanted()).collect();
        let kept = tasks.iter().filter(|t| self.remembered.contains_key(&t.id)).count();
        self.out.push_str(&format!("{name}: {kept} tasks kept, {} new\n", tasks.len() - kept));
    }

    fn hurt(&mut self, task: &str, exit: Option<Exit>) -> Result<(), String> {
        let task =
            swarm_manager_core::control::resolve::task(self.sim.view(), task).map_err(|e| e.to_string())?;
        let (id, node) = (task.id, task.node);
        let host = self.sim.hosts.iter().position(|h| h.node == node).ok_or("it is on no host")?;
        match exit {
            Some(exit) => self.sim.container_exits(host, id, exit),
            None => self.sim.container_vanishes(host, id),
        }
        Ok(())
    }

    fn machine(&mut self, what: &str, name: &str, rest: &[&str]) -> Result<(), String> {
        let leads = |h: &crate::sim::host::Host| h.manager.as_ref().is_some_and(|m| m.leading().is_some());
        let host = match name {
            "leader" => self.sim.hosts.iter().position(leads),
            "managers" | "all" => {
                let chosen: Vec<String> = (self.sim.hosts.iter())
                    .filter(|h| name == "all" || h.manager.is_some())
                    .map(|h| h.name.clone())
                    .collect();
                return chosen.iter().try_for_each(|host| self.machine(what, host, rest));
            }
            name => self.sim.hosts.iter().position(|h| h.name == name),
        };
        let host = host.ok_or_else(|| format!("no host {name}"))?;
        match (what, rest) {
            ("power-off", []) => self.sim.kill(host, true),
            ("power-on" | "start", []) => self.sim.boot(host),
            ("kill", []) => self.sim.kill(host, false),
            ("freeze", []) => self.sim.pause(host, None),
            ("freeze", [time]) => self.sim.pause(host, Some(millis(time)?)),
            ("thaw", []) => self.sim.resume(host),
            ("cut", []) => self.sim.net.cut_off(host, self.sim.hosts.len()),
            ("heal", []) => self.sim.net.heal(host),
            ("clock", [time]) => {
                let (sign, time) =
                    if let Some(time) = time.strip_prefix('-') { (-1, time) } else { (1, *time) };
                self.sim.hosts[host].clock.offset_ms += sign * i64::try_from(millis(time)?).unwrap_or(0);
            }
            _ => return Err("no such command".into()),
        }
        Ok(())
    }
}

/// Whether something is so now.
fn holds(sim: &Sim, words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [node, "is", state] => {
            sim.view().nodes().any(|n| n.description.hostname == *node && n.status.state.as_str() == *state)
        }
        [node, "is", "not", state] => {
            sim.view().nodes().any(|n| n.description.hostname == *node && n.status.state.as_str() != *state)
        }
        [service, "has", n, "running"] => show::running(sim, service).to_string() == *n,
        [service, "update", state] => sim.view().service_by_name(service).is_some_and(|s| {
            let now = s.update_status.as_ref().map_or(UpdateState::Updating, |u| u.state);
            now.as_str() == *state
        }),
        ["a", "leader"] => sim
            .hosts
            .iter()
            .any(|h| h.up && !h.paused && h.manager.as_ref().is_some_and(|m| m.leading().is_some())),
        [service, "has", n, "failed"] => {
            let Some(service) = sim.view().service_by_name(service) else { return false };
            let failed =
                sim.view().tasks_of_service(&service.id).filter(|t| t.status.state == TaskState::Failed);
            failed.count().to_string() == *n
        }
        _ => false,
    }
}
