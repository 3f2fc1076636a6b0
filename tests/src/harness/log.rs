//! What all daemons of this test program logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const LEVELS: &str = "info,swarm_node=trace,swarm_manager_server=trace,swarm_manager_raft=trace,\
    swarm_worker_agent=trace,swarm_identity=trace";

/// The lines so far. Each starts with time, level and the name of the thread, which is
/// `<folder of the cluster>/<host>` for what a host's runtime does.
#[derive(Clone, Default)]
pub struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// The lines so far.
    pub fn text(&self) -> String {
        let bytes = self.0.lock().expect("no test panics while it holds the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Lines that hold `needle`.
    pub fn lines_with(&self, needle: &str) -> Vec<String> {
        self.text().lines().filter(|l| l.contains(needle)).map(str::to_owned).collect()
    }
}

impl Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics while it holds the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for CapturedLog {
    type Writer = CapturedLog;
    fn make_writer(&'a self) -> CapturedLog {
        self.clone()
    }
}

/// Starts to keep what is logged; gives what was kept so far.
pub fn capture() -> CapturedLog {
    static KEPT: OnceLock<CapturedLog> = OnceLock::new();
    let start = || {
        let kept = CapturedLog::default();
        let filter = EnvFilter::new(LEVELS);
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_thread_names(true);
        let lines = lines.with_ansi(false).with_writer(kept.clone());
        if lines.try_init().is_err() {
            eprintln!("somebody else keeps the log of this program");
        }
        kept
    };
    KEPT.get_or_init(start).clone()
}
