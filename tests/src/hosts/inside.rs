//! Work in a network namespace that is not the test's own: a host's, or that of a task.

use std::fs::File;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use super::{Hosts, TaskRow};

/// A network namespace, held open: it lives as long as this does.
#[derive(Debug)]
pub struct Inside(File);

impl Inside {
    fn open(path: &PathBuf) -> Inside {
        Inside(File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display())))
    }

    /// Does this on a thread of its own, in the namespace: sockets it makes are there, also those of threads
    /// that it starts.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("enter a namespace: {e}"));
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Hosts {
    /// The network of a host.
    pub fn inside(&self, host: &str) -> Inside {
        let name = format!("swarm-{}-{host}", self.cluster.name());
        Inside::open(&PathBuf::from("/run/netns").join(name))
    }

    /// The network of a task that runs.
    pub fn inside_task(&self, via: &str, task: &TaskRow) -> Inside {
        Inside::open(&PathBuf::from(format!("/proc/{}/ns/net", self.pid_of(via, &task.id))))
    }
}
