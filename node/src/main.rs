//! `swarmd`.

fn main() -> std::process::ExitCode {
    swarm_node::main()
}
