//! What goes wrong, by chance: one fault now and then, each mended after a while.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Sim;
use super::event::What;
use super::net::Host;
use swarm_worker_core::observed::Exit;

/// Which faults there are.
#[derive(Debug, Default)]
pub struct Faults {
    /// Faults come.
    pub on: bool,
    /// Mean time between two, in milliseconds.
    pub every: Duration,
}

impl Sim {
    fn some_host(&mut self) -> Host {
        usize::try_from(self.dice.below(self.hosts.len() as u64)).unwrap_or(0)
    }

    /// The next fault, and when the one after it comes.
    pub fn next_fault(&mut self) {
        if !self.faults.on {
            return;
        }
        let every = u64::try_from(self.faults.every.as_millis()).unwrap_or(u64::MAX);
        let wait = 1 + self.dice.below(every * 2);
        self.after(wait, What::Fault);
        let host = self.some_host();
        let while_ms = match self.dice.below(3) {
            0 => self.dice.below(500),
            1 => self.dice.below(4000),
            _ => self.dice.below(20_000),
        };
        match self.dice.below(14) {
            0 | 1 => self.kill_for(host, false, while_ms),
            2 | 3 => self.kill_for(host, true, while_ms),
            4 => self.pause(host, Some(while_ms)),
            5 => self.cut_off_one(host),
            6 => self.cut_one_way(host),
            7 => self.split_by_chance(),
            8 => self.net.heal_all(),
            9 => self.worse_net(),
            10 => self.hosts[host].fsync_ms = self.dice.below(150),
            11 => self.set_clock(host),
            12 => self.fill_disk(host, while_ms),
            _ => self.hurt_container(host),
        }
    }

    fn kill_for(&mut self, host: Host, power: bool, while_ms: u64) {
        if self.hosts[host].up {
            self.kill(host, power);
            self.after(while_ms, What::Boot { host });
        }
    }

    fn cut_off_one(&mut self, host: Host) {
        self.note(|| format!("{host} is cut off"));
        self.net.cut_off(host, self.hosts.len());
    }

    fn cut_one_way(&mut self, from: Host) {
        let to = self.some_host();
        if from != to {
            self.note(|| format!("nothing comes from {from} to {to}"));
            self.net.cut(from, to);
        }
    }

    fn split_by_chance(&mut self) {
        let chosen = self.dice.next_u64();
        let side: BTreeSet<Host> = (0..self.hosts.len()).filter(|n| chosen >> n & 1 == 1).collect();
        self.note(|| format!("the net is split: {side:?}"));
        self.net.split(&side, self.hosts.len());
    }

    fn worse_net(&mut self) {
        self.net.loss_permille = self.dice.below(200);
        self.net.twice_permille = self.dice.below(200);
        self.net.jitter_ms = self.dice.below(120);
        self.net.unruly_permille = self.dice.below(200);
    }

    fn set_clock(&mut self, host: Host) {
        let step = i64::try_from(self.dice.below(120_000)).unwrap_or(0) - 60_000;
        self.note(|| format!("the clock of {host} is set by {step} ms"));
        self.hosts[host].clock.offset_ms += step;
    }

    /// A manager that cannot write ends; somebody makes room and starts it again.
    fn fill_disk(&mut self, host: Host, while_ms: u64) {
        let Some(manager) = &mut self.hosts[host].manager else { return };
        manager.disk.full = !manager.disk.full;
        self.after(while_ms, What::Boot { host });
    }

    fn hurt_container(&mut self, host: Host) {
        let Some(task) = self.some_container(host) else { return };
        let exit = |code, oom_killed| Exit { code, oom_killed, ..Exit::default() };
        match self.dice.below(4) {
            0 => self.container_vanishes(host, task),
            1 => self.container_exits(host, task, exit(137, true)),
            2 => self.container_exits(host, task, exit(0, false)),
            _ => self.container_exits(host, task, exit(1, false)),
        }
    }

    /// Nothing goes wrong any more.
    pub fn mend_all(&mut self) {
        self.note(|| "all is mended".into());
        self.faults.on = false;
        self.net.heal_all();
        for host in 0..self.hosts.len() {
            let state = &mut self.hosts[host];
            state.fsync_ms = 2;
            state.worker.containers.failing_permille = 0;
            let mut stopped = false;
            if let Some(manager) = &mut state.manager {
                manager.disk.full = false;
                stopped = state.up && manager.running.is_none() && !manager.removed;
            }
            if stopped {
                self.kill(host, false);
            }
            self.resume(host);
            self.boot(host);
        }
    }
}
