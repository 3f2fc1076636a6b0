//! Our own server (`src/bin/server.rs`) for containers: the program, the libraries that it needs and their
//! loader in one directory, which is mounted.

use std::path::Path;
use std::process::Command;

use super::Hosts;

impl Hosts {
    /// Flags, image and command of a service that runs our server; `words` are further flags, `program` the
    /// path of the server. Give it before any other daemon is to see the directory.
    pub fn server(&self, program: &str, words: &str, late_ms: u32) -> String {
        let dir = self.scratch().join("server");
        if !dir.exists() {
            gather(Path::new(program), &dir);
        }
        let mount = format!("--mount type=bind,source={},target=/server,readonly", dir.display());
        format!("{words} {mount} demo:1 /server/loader --library-path /server /server/program {late_ms}")
    }
}

/// Copies a program and what `ldd` says that it needs.
fn gather(program: &Path, dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(from, dir.join(to)).unwrap_or_else(|e| panic!("copy {from}: {e}"));
    };
    copy(&program.display().to_string(), "program");
    let said = Command::new("ldd").arg(program).output().unwrap();
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        // `libc.so.6 => /lib/libc.so.6 (0x..)`, and the loader: `/lib64/ld-linux-x86-64.so.2 (0x..)`
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [name, "=>", path, _] => copy(path, name),
            [path, _] if path.starts_with('/') => copy(path, "loader"),
            _ => {}
        }
    }
    assert!(dir.join("loader").exists(), "ldd names no loader: {said:?}");
}
