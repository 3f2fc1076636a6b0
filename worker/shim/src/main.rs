//! `swarmd-shim BUNDLE`: the supervisor of one container. `swarmd-shim --tunnel`: the process of this node's
//! encrypted tunnel. Both are started by `swarmd`, not by people.

use std::process::ExitCode;

use swarm_worker_shim::{supervise, tunnel};

fn main() -> ExitCode {
    let Some(argument) = std::env::args_os().nth(1) else {
        eprintln!("usage: swarmd-shim BUNDLE | --tunnel (started by swarmd)");
        return ExitCode::from(2);
    };
    if argument == tunnel::ARGUMENT {
        return tunnel::main();
    }
    supervise::main(std::path::Path::new(&argument))
}
