//! Amounts that nodes have and tasks reserve or may use. Integers only.

/// One CPU in the unit of [`Resources::nano_cpus`].
pub const NANO_CPU: u64 = 1_000_000_000;

/// CPU and memory that a node offers or a task reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Resources {
    /// This plus `other`, saturating.
    pub fn plus(self, other: Resources) -> Resources {
        Resources {
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
    /// This less `other`, at least zero.
    pub fn minus(self, other: Resources) -> Resources {
        Resources {
            nano_cpus: self.nano_cpus.saturating_sub(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
    /// True if `wanted` is no more than this in every amount.
    pub fn covers(self, wanted: Resources) -> bool {
        wanted.nano_cpus <= self.nano_cpus && wanted.memory_bytes <= self.memory_bytes
    }
}

/// What a task may use at most; 0 means "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes of memory; going over it kills the task (OOM).
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What a task's spec says of resources: what it may use, what is kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requirements {
    /// Enforced on the container.
    pub limits: Limits,
    /// Counted by the scheduler.
    pub reservations: Resources,
}
