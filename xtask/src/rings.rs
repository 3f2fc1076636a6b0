//! `test`: the rings, cheapest first, and one line at the end that counts them all.
//!
//! In `tests/tests/`, a file `cluster*.rs` belongs to the ring `cluster` and `hosts*.rs` to `hosts`; all
//! others to `sim`. Every other crate's tests are `units`, but for those of `kernel` (`guest.rs`).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::guest;
use crate::package;
use crate::program;

struct Ring {
    name: &'static str,
    /// With its compilation, on a slow machine; that of `kernel` is the guest's.
    limit_s: u32,
}

const RINGS: &[Ring] = &[
    Ring { name: "units", limit_s: 2700 },
    Ring { name: "kernel", limit_s: 0 },
    Ring { name: "sim", limit_s: 1200 },
    Ring { name: "cluster", limit_s: 900 },
    Ring { name: "hosts", limit_s: 1500 },
];

#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
}

pub fn run(names: &[&str]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| !RINGS.iter().any(|ring| ring.name == **name)) {
        bail!("no ring `{name}`: there are units, kernel, sim, cluster, hosts");
    }
    package::install(package::BUILD)?;
    package::install(package::TEST)?;
    let mut total = Count::default();
    let mut broken = Vec::new();
    for ring in RINGS.iter().filter(|ring| names.is_empty() || names.contains(&ring.name)) {
        println!("== {}", ring.name);
        let began = Instant::now();
        let ended = run_ring(ring, &mut total);
        let took = began.elapsed().as_secs();
        match ended {
            Ok(()) => println!("== {}: passed in {took} s", ring.name),
            Err(error) => {
                println!("== {}: FAILED in {took} s: {error:#}", ring.name);
                broken.push(ring.name);
            }
        }
    }
    // a ring that did not even compile has no failed test to count
    total.failed = total.failed.max(broken.len() as u64);
    println!("{} passed, {} failed", total.passed, total.failed);
    if broken.is_empty() { Ok(()) } else { bail!("rings that failed: {}", broken.join(" ")) }
}

fn run_ring(ring: &Ring, total: &mut Count) -> Result<()> {
    if ring.name == "units" {
        // Else each test of a container asks cargo for it, and waits there for a lock or a compilation.
        program::cargo(&["build", "-p", "swarm-worker-shim"])?;
    }
    if ring.name == "hosts" {
        program::cargo(&["build", "-p", "swarm-node", "-p", "swarm-worker-shim", "-p", "swarm-ctl"])?;
    }
    if ring.name == "kernel" {
        let before = (total.passed, total.failed);
        for (passed, failed) in guest::run()?.iter().filter_map(|line| counted(line, "test result:")) {
            total.passed += passed;
            total.failed += failed;
        }
        return found_tests(before, total);
    }
    let nextest = package::find("cargo-nextest").is_some();
    let commands = if nextest { with_nextest(ring.name) } else { with_cargo(ring.name)? };
    let before = (total.passed, total.failed);
    let mut ended = Ok(());
    for command in commands {
        ended = ended.and(count(ring, &command, total));
    }
    ended.and(found_tests(before, total))
}

/// A ring in which nothing ran proves nothing: a filter or a file name does not match any more.
fn found_tests(before: (u64, u64), total: &Count) -> Result<()> {
    if before == (total.passed, total.failed) { bail!("no test ran") } else { Ok(()) }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn with_nextest(ring: &str) -> Vec<Vec<String>> {
    let here = "package(swarm-tests)";
    let hosts = "binary(/^hosts/)";
    let filter = match ring {
        "units" => format!("not ({here} or (package(swarm-deploy-dev) and {hosts}))"),
        "sim" => format!("{here} and not binary(/^(cluster|hosts)/)"),
        "cluster" => format!("{here} and binary(/^cluster/)"),
        _ => format!("(package(swarm-deploy-dev) or {here}) and {hosts}"),
    };
    let mut run = words(match ring {
        "units" => "nextest run --no-fail-fast --no-tests=fail --workspace",
        "hosts" => {
            "nextest run --no-fail-fast --no-tests=fail -p swarm-deploy-dev -p swarm-tests --test-threads 1"
        }
        _ => "nextest run --no-fail-fast --no-tests=fail -p swarm-tests",
    });
    run.extend(["-E".to_owned(), filter]);
    if ring == "units" { vec![run, words("test --workspace --doc --no-fail-fast")] } else { vec![run] }
}

fn with_cargo(ring: &str) -> Result<Vec<Vec<String>>> {
    if ring == "units" {
        let deploy = "test --no-fail-fast -p swarm-deploy-dev --lib";
        let rest = "test --no-fail-fast --workspace --exclude swarm-tests --exclude swarm-deploy-dev";
        return Ok(vec![words(rest), words(deploy)]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir("tests/tests").into_iter().flatten() {
        let name = entry.context("list tests/tests")?.file_name();
        let name = name.to_string_lossy();
        let own = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
        let of = ["cluster", "hosts"].into_iter().find(|ring| own.starts_with(ring)).unwrap_or("sim");
        if of == ring && own != "common" {
            files.push(own);
        }
    }
    files.sort();
    let mut runs: Vec<_> = files.iter().map(|f| words(&format!("test -p swarm-tests --test {f}"))).collect();
    match ring {
        "sim" => runs.insert(0, words("test -p swarm-tests --lib --bins")),
        "hosts" => runs.insert(0, words("test -p swarm-deploy-dev --test hosts")),
        _ => {}
    }
    if ring == "hosts" {
        for run in &mut runs {
            run.extend(words("-- --test-threads 1"));
        }
    }
    Ok(runs)
}

/// Runs cargo under the ring's deadline, passes its lines on and adds up what it counts.
fn count(ring: &Ring, args: &[String], total: &mut Count) -> Result<()> {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=30", &ring.limit_s.to_string(), "cargo"]).args(args);
    let built = program::built("debug")?;
    if ring.name == "units" {
        command.env("SWARM_TEST_SHIM", built.join("swarmd-shim"));
    }
    command.env("SWARM_BIN_DIR", built);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("run cargo")?;
    let streams = (child.stdout.take(), child.stderr.take());
    let runner =
        if args.first().is_some_and(|word| word == "nextest") { "Summary [" } else { "test result:" };
    let (out, err) = std::thread::scope(|scope| {
        let out = scope.spawn(|| streams.0.map(|pipe| pass_on(pipe, runner, |line| println!("{line}"))));
        let err = scope.spawn(|| streams.1.map(|pipe| pass_on(pipe, runner, |line| eprintln!("{line}"))));
        (out.join().ok().flatten(), err.join().ok().flatten())
    });
    for count in [out, err].into_iter().flatten() {
        total.passed += count.passed;
        total.failed += count.failed;
    }
    let status = child.wait().context("run cargo")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(124 | 137) => bail!("not done after {} s", ring.limit_s),
        _ => bail!("cargo {}: {status}", args.join(" ")),
    }
}

/// `runner`: how the line begins that counts. `nextest` passes on what a failed test printed, twice, and a test's
/// own last line must not count beside its.
fn pass_on(pipe: impl std::io::Read, runner: &str, print: impl Fn(&str)) -> Count {
    let mut count = Count::default();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        print(&line);
        let Some((passed, failed)) = counted(&line, runner) else { continue };
        count.passed += passed;
        count.failed += failed;
    }
    count
}

/// Reads `Summary [ 1.2s] 7 tests run: 6 passed, 1 failed` and `test result: ok. 6 passed; 1 failed; …`.
fn counted(line: &str, runner: &str) -> Option<(u64, u64)> {
    let line = line.trim_start();
    if !line.starts_with(runner) {
        return None;
    }
    let words: Vec<&str> = line.split([' ', ',', ';', '(', ')']).filter(|word| !word.is_empty()).collect();
    let before = |what: &[&str]| -> u64 {
        let at = words.windows(what.len() + 1).filter(|window| &window[1..] == what);
        at.filter_map(|window| window[0].parse::<u64>().ok()).sum()
    };
    Some((before(&["passed"]), before(&["failed"]) + before(&["timed", "out"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_last_line_of_either_runner() {
        let line = "     Summary [   3.330s] 22 tests run: 22 passed (1 slow), 1 skipped";
        assert_eq!(counted(line, "Summary ["), Some((22, 0)));
        let line = "Summary [ 3.3s] 9 tests run: 5 passed, 2 failed, 1 timed out, 0 skipped";
        assert_eq!(counted(line, "Summary ["), Some((5, 3)));
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured";
        assert_eq!(counted(line, "test result:"), Some((3, 2)));
        assert_eq!(counted(line, "Summary ["), None, "a failed test's own words, passed on by nextest");
        assert_eq!(counted("        PASS [ 0.1s] 7 passed", "Summary ["), None);
    }

    #[test]
    fn a_ring_without_tests_fails() {
        assert!(found_tests((3, 1), &Count { passed: 3, failed: 1 }).is_err());
        assert!(found_tests((3, 1), &Count { passed: 3, failed: 2 }).is_ok());
    }
}
