//! What is done for one task: its record, its ports, and whether it got what it is to have.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_types::id::TaskId;
use swarm_worker_agent::executor::ExecError;
use swarm_worker_core::network::kernel::Place;
use swarm_worker_core::network::planner::LocalTask;
use swarm_worker_core::network::port::{self, PortKey};

use super::Engine;
use crate::hold::any_free;
use crate::tunnel::chain;

impl Engine {
    /// A task is to have links. What can be said against it is said before anything is made.
    pub(super) fn begin(&mut self, mut task: LocalTask) -> Result<(), ExecError> {
        if let Some(known) = self.tasks.get(&task.id) {
            // The daemon died while it did this, and does it again: the ports are as they were.
            task.ports.clone_from(&known.ports);
        } else {
            self.free_addresses(&task)?;
            self.give_ports(&mut task)?;
        }
        let kept = self.records.keep(&task);
        kept.map_err(|e| ExecError::Temporary(format!("keep what is known of the task's networks: {e}")))?;
        Arc::make_mut(&mut self.tasks).insert(task.id, Arc::new(task));
        self.tasks_out.send_replace(Arc::clone(&self.tasks));
        Ok(())
    }

    pub(super) fn free_addresses(&self, task: &LocalTask) -> Result<(), ExecError> {
        for wanted in &task.attachments {
            for other in self.tasks.values() {
                let same = other.attachments.iter().filter(|a| a.network == wanted.network);
                let both = same.flat_map(|a| &a.addrs).find(|addr| wanted.addrs.contains(addr));
                if let Some(addr) = both {
                    let network = self.name(wanted.network);
                    return Err(ExecError::Fatal(format!(
                        "attach to network {network}: address {addr} is in use by task {}",
                        self.task_name(other.id)
                    )));
                }
            }
        }
        Ok(())
    }

    /// Host-mode ports: those that were asked for have to be free, others are chosen.
    pub(super) fn give_ports(&self, task: &mut LocalTask) -> Result<(), ExecError> {
        let mut taken: BTreeSet<PortKey> = port::published(&self.set, &self.tasks).into_keys().collect();
        for port in &mut task.ports {
            if port.published == 0 {
                let chosen = (0..64).find_map(|_| {
                    let number = any_free(port.protocol).ok()?;
                    let key = PortKey { protocol: port.protocol, port: number, host_ip: None };
                    (!taken.contains(&key)).then_some(number)
                });
                let none = || ExecError::Temporary("no port of this node is free".into());
                port.published = chosen.ok_or_else(none)?;
            } else if let Some(key) = PortKey::of(port) {
                self.holds.is_free(&key).map_err(|e| {
                    ExecError::Fatal(format!("publish port {key} on this node: the port is taken: {e}"))
                })?;
            }
            taken.extend(PortKey::of(port));
        }
        Ok(())
    }

    pub(super) fn drop_tasks(&mut self, gone: &[TaskId]) {
        if gone.iter().any(|id| self.tasks.contains_key(id)) {
            let tasks = Arc::make_mut(&mut self.tasks);
            gone.iter().for_each(|id| drop(tasks.remove(id)));
            self.tasks_out.send_replace(Arc::clone(&self.tasks));
        }
    }

    /// Removes the records of tasks that have nothing any more.
    pub(super) fn forget(&self, gone: &[TaskId]) -> Result<(), ExecError> {
        let gone = gone.iter().filter(|id| !self.tasks.contains_key(id));
        let mut gone = gone;
        let forgotten = gone.try_for_each(|id| self.records.forget(*id));
        forgotten.map_err(|e| ExecError::Temporary(format!("forget the task's networks: {e}")))
    }

    /// A network of the task is not known yet, and may be soon: the set that made it start may have been
    /// followed by one without the network, because a task before it has gone, and the next has it again.
    pub(super) fn is_early(&self, id: TaskId) -> bool {
        let missing = self.unknown.keys().any(|(task, _)| *task == id);
        missing && self.tasks.contains_key(&id) && !self.overdue().any(|(task, _)| *task == id)
    }

    /// The task's own namespace is as it is wanted, all of it.
    pub(super) async fn is_attached(&self, id: TaskId) -> Result<(), ExecError> {
        let fail = |why: String| Err(ExecError::Fatal(format!("attach to networks: {why}")));
        if let Some((_, network)) = self.overdue().find(|(task, _)| *task == id) {
            let network = network.short();
            let why = format!("no manager has told this node of the task's network {network} yet");
            return Err(ExecError::Temporary(why));
        }
        if let Some(broken) = &self.broken {
            return fail(broken.text.clone());
        }
        match self.kernel.check(Some(Place::Task(id))).await {
            Ok(differences) => match differences.first() {
                None => Ok(()),
                Some(first) => {
                    let problems = self.kernel.problems().borrow().clone();
                    let ours = problems.iter().find(|p| p.subject.contains(id.as_str()));
                    let why =
                        ours.map_or_else(|| format!("{}: {}", first.what, first.how), |p| p.text.clone());
                    fail(why)
                }
            },
            Err(e) => fail(chain(&e)),
        }
    }
}
