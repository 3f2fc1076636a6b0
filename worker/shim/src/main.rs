//! `swarmd-shim BUNDLE`: the supervisor of one container. Started by `swarmd`, not by people.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(bundle) = std::env::args_os().nth(1) else {
        eprintln!("usage: swarmd-shim BUNDLE (started by swarmd)");
        return ExitCode::from(2);
    };
    swarm_worker_shim::supervise::main(std::path::Path::new(&bundle))
}
