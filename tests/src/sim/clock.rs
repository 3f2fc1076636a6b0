//! A machine's clock: off by some time, set now and then, never running backwards for who reads it.

use swarm_types::time::Timestamp;

/// When all simulations begin.
pub const START: u64 = 1_800_000_000_000;

/// The clock of one machine.
#[derive(Debug, Default)]
pub struct Clock {
    /// How far it is off, in milliseconds.
    pub offset_ms: i64,
    newest: u64,
}

impl Clock {
    /// What a process on the machine reads at the true time `now_ms` since the start.
    pub fn read(&mut self, now_ms: u64) -> Timestamp {
        let wall = (START + now_ms).saturating_add_signed(self.offset_ms);
        self.newest = self.newest.max(wall);
        Timestamp(self.newest)
    }
    /// Another process starts: it has seen nothing.
    pub fn restart(&mut self) {
        self.newest = 0;
    }
}
