//! What the machine must have, and why; installed with Debian's package manager if missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program;

pub struct Need {
    package: &'static str,
    /// A program of the package, looked for in PATH and the system directories.
    program: &'static str,
    why: &'static str,
}

const fn need(package: &'static str, program: &'static str, why: &'static str) -> Need {
    Need { package, program, why }
}

pub const BUILD: &[Need] = &[
    need("gcc", "cc", "compiles the C and assembly parts of ring and zstd, and links"),
    need("libc6-dev", "/usr/include/stdlib.h", "the headers and libraries of C, for the same"),
];

pub const DEMO: &[Need] = &[
    need("iproute2", "ip", "makes the network namespaces of the hosts"),
    need("util-linux", "nsenter", "starts programs in them"),
    need("busybox-static", "busybox", "is what runs in the demo image"),
];

pub const BENCH: &[Need] =
    &[need("nftables", "nft", "flushes the rules of the data plane, and reads them back")];

pub const TEST: &[Need] = &[
    need("iproute2", "ip", "makes the network namespaces of test hosts"),
    need("util-linux", "nsenter", "starts programs in them"),
    need("procps", "ps", "looks at processes"),
    need("nftables", "nft", "reads the rules of the data plane back, and plays other firewalls"),
    need("iputils-ping", "ping", "sends packets of a size"),
    need("curl", "curl", "calls published ports"),
    need("python3", "python3", "speaks TCP and UDP, and captures, in the tests of networks"),
    need("openssl", "openssl", "reads certificates as others would"),
    need("busybox-static", "busybox", "is what runs in test containers"),
    need("docker-registry", "docker-registry", "is the registry that images are pulled from, on loopback"),
];

pub const GUEST: &[Need] = &[
    need(
        "qemu-system-x86",
        "qemu-system-x86_64",
        "emulates a machine whose kernel has what this one's has not",
    ),
    need("dpkg", "dpkg-deb", "unpacks that kernel"),
    need("libc-bin", "ldd", "names the libraries of a program"),
];

/// Installs what is missing and says what and why.
pub fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| find(need.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("missing on this machine:");
    for need in &missing {
        println!("  {:<16} {}", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if find("apt-get").is_none() {
        bail!("install these and try again: {} (there is no apt-get here)", packages.join(" "));
    }
    println!("installing: apt-get install {}", packages.join(" "));
    let install = || {
        let mut command = Command::new("apt-get");
        // installed for its program alone: a service that comes with it shall not start
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command.args(["install", "-qq", "-y", "--no-install-recommends"]).args(&packages);
        program::show(&mut command)
    };
    if install().is_err() {
        program::show(Command::new("apt-get").args(["update", "-qq"])).context("install packages as root")?;
        install().context("install packages as root")?;
    }
    Ok(())
}

pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(Path::new(program)))
        .find(|file| file.exists())
}
