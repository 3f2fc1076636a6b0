//! The life of a task: a clock that only moves forward.
//!
//! States and their numbers are Docker Swarm's (swarm.md A4). Of two observations of one task the
//! greater is the newer, so statuses may arrive late, twice or out of order.

use std::fmt;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $n:literal $word:literal),+ $(,)?) => {
        /// Where a task is in its life.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub enum TaskState {
            #[default]
            $($(#[$doc])* $name = $n),+
        }
        impl TaskState {
            /// Every state, first to last.
            pub const ALL: &'static [TaskState] = &[$(TaskState::$name),+];
            /// Its number on the wire.
            pub fn number(self) -> u32 {
                self as u32
            }
            /// The state that has this number.
            pub fn from_number(n: u32) -> Option<TaskState> {
                Self::ALL.iter().copied().find(|s| s.number() == n)
            }
            /// Docker's word for it, lower case.
            pub fn as_str(self) -> &'static str {
                match self { $(TaskState::$name => $word),+ }
            }
        }
    };
}

states! {
    /// Just made.
    New = 0 "new",
    /// Has all it needs but a node.
    Pending = 64 "pending",
    /// Has a node.
    Assigned = 192 "assigned",
    /// The agent has it.
    Accepted = 256 "accepted",
    /// Image, mounts and network are being made ready.
    Preparing = 320 "preparing",
    /// Could start.
    Ready = 384 "ready",
    /// Is being started.
    Starting = 448 "starting",
    /// Runs (and is healthy, if it has a health check).
    Running = 512 "running",
    /// Ended by itself with exit code 0.
    Complete = 576 "complete",
    /// Ended because it was asked to.
    Shutdown = 640 "shutdown",
    /// Ended by itself with another exit code, or could not be started.
    Failed = 704 "failed",
    /// Could not be made ready.
    Rejected = 768 "rejected",
    /// To be forgotten when it has stopped. Only ever desired.
    Remove = 800 "remove",
    /// Its node has been away for so long that nobody can say.
    Orphaned = 832 "orphaned",
}

impl TaskState {
    /// It has ended, or nobody will ever know: no process of it is expected any more.
    pub fn is_terminal(self) -> bool {
        self > TaskState::Running
    }
    /// It holds resources of its node.
    pub fn consumes_resources(self) -> bool {
        self >= TaskState::Assigned && self <= TaskState::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_the_order_of_life() {
        assert!(TaskState::ALL.windows(2).all(|w| w[0] < w[1] && w[0].number() < w[1].number()));
        for &s in TaskState::ALL {
            assert_eq!(TaskState::from_number(s.number()), Some(s));
        }
        assert_eq!(TaskState::from_number(1), None);
    }

    #[test]
    fn what_runs_is_not_over() {
        assert!(!TaskState::Running.is_terminal() && TaskState::Complete.is_terminal());
        assert!(!TaskState::Pending.consumes_resources() && TaskState::Assigned.consumes_resources());
        assert!(!TaskState::Shutdown.consumes_resources());
    }
}
