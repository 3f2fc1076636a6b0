//! The demo image: Debian's static busybox and a few links to it, as a `docker save` archive.
//!
//! Invariant: the same busybox and name give the same bytes; no clock, no owner, no order of a directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const APPLETS: [&str; 26] = [
    "cat", "date", "dd", "df", "echo", "env", "false", "free", "hostname", "httpd", "id", "ip", "kill", "ls",
    "nc", "nslookup", "ping", "ps", "sh", "sleep", "sync", "test", "top", "touch", "true", "wget",
];

/// Serves one page on port 80 in the foreground and sleeps in between. As the first process of its pid
/// namespace it would not die of a SIGTERM without a handler, so a shell that has one waits for it.
const SERVE: &str = "trap 'exit 0' TERM INT; httpd -f -p \"${PORT:-80}\" -h /www & wait";

/// Why the demo image was not written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("read busybox at {}", path.display())]
    Busybox {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("use {} for an image: it is not a static program, install the Debian package busybox-static", .0.display())]
    Dynamic(PathBuf),
    #[error("write the image {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Writes an image named `name` (as `demo:1`) to the file `out`, which `image load` takes.
///
/// # Errors
/// Busybox cannot be read or is not static, or `out` cannot be written.
pub fn demo_image(busybox: &Path, out: &Path, name: &str) -> Result<(), ImageError> {
    let program =
        std::fs::read(busybox).map_err(|source| ImageError::Busybox { path: busybox.to_owned(), source })?;
    if !is_static(&program) {
        return Err(ImageError::Dynamic(busybox.to_owned()));
    }
    let failed = |source| ImageError::Write { path: out.to_owned(), source };
    let layer = layer(&program).map_err(failed)?;
    let config = config(&hex::encode(Sha256::digest(&layer)));
    let archive = archive(&layer, config.as_bytes(), name).map_err(failed)?;
    File::create(out).and_then(|mut file| file.write_all(&archive)).map_err(failed)
}

/// A dynamic program has a header of type 3 (`PT_INTERP`), which names its loader.
fn is_static(program: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = program.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    let interpreted = || -> Option<bool> {
        let (first, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        let mut kinds = (0..count).map(|n| number(first.checked_add(n * size)?, 4));
        Some(kinds.any(|kind| kind.is_none_or(|kind| kind == 3)))
    };
    // only 64-bit little-endian machines run a swarm
    program.starts_with(b"\x7fELF\x02\x01") && interpreted() == Some(false)
}

fn layer(busybox: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (dir, mode) in
        [("bin/", 0o755), ("etc/", 0o755), ("proc/", 0o555), ("root/", 0o700), ("tmp/", 0o1777)]
    {
        add(&mut tar, dir, EntryType::Directory, mode, b"")?;
    }
    for dir in ["dev/", "sys/", "www/"] {
        add(&mut tar, dir, EntryType::Directory, 0o755, b"")?;
    }
    add(&mut tar, "bin/busybox", EntryType::Regular, 0o755, busybox)?;
    for applet in APPLETS {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    add(
        &mut tar,
        "etc/passwd",
        EntryType::Regular,
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    add(&mut tar, "etc/group", EntryType::Regular, 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    add(&mut tar, "www/index.html", EntryType::Regular, 0o644, b"hello from the swarm\n")?;
    tar.into_inner()
}

fn config(diff_id: &str) -> String {
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin"],
            "Cmd": ["sh", "-c", SERVE],
            "WorkingDir": "/",
            "ExposedPorts": { "80/tcp": {} },
            "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "swarm demo" }],
    });
    config.to_string()
}

/// The name the image formats have for this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn archive(layer: &[u8], config: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let config_name = format!("{}.json", hex::encode(Sha256::digest(config)));
    let layer_dir = hex::encode(Sha256::digest(layer));
    let layer_name = format!("{layer_dir}/layer.tar");
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": [layer_name] }]).to_string();
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, &config_name, EntryType::Regular, 0o644, config)?;
    add(&mut tar, &format!("{layer_dir}/"), EntryType::Directory, 0o755, b"")?;
    add(&mut tar, &layer_name, EntryType::Regular, 0o644, layer)?;
    add(&mut tar, "manifest.json", EntryType::Regular, 0o644, manifest.as_bytes())?;
    tar.into_inner()
}

fn add(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> io::Result<()> {
    let mut header = header(kind, mode, data.len());
    tar.append_data(&mut header, path, data)
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// A program of no use with one program header of this kind.
    fn elf(kind: u8) -> Vec<u8> {
        let mut program = vec![0; 0x78];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (program[0x20], program[0x36], program[0x38], program[0x40]) = (0x40, 0x38, 1, kind);
        program
    }

    fn image(dir: &Path, out: &str) -> Vec<u8> {
        let busybox = dir.join("busybox");
        std::fs::write(&busybox, elf(1)).unwrap();
        let out = dir.join(out);
        demo_image(&busybox, &out, "demo:1").unwrap();
        std::fs::read(out).unwrap()
    }

    fn files(archive: &[u8]) -> std::collections::BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (entry.path().unwrap().display().to_string(), data)
        };
        tar.entries().unwrap().map(read).collect()
    }

    #[test]
    fn is_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(image(dir.path(), "a"), image(dir.path(), "b"));
    }

    #[test]
    fn holds_what_its_manifest_says() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&image(dir.path(), "a"));
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "demo:1");
        let config: serde_json::Value =
            serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(layer)));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff_id.as_str());
        let inner = self::files(layer);
        assert_eq!(inner["bin/busybox"], elf(1));
        assert!(inner.contains_key("bin/sh") && inner.contains_key("bin/httpd"));
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let busybox = dir.path().join("busybox");
        for program in [elf(3), elf(1)[..0x40].to_vec(), b"#!/bin/sh".to_vec()] {
            std::fs::write(&busybox, program).unwrap();
            let error = demo_image(&busybox, &dir.path().join("out"), "demo:1").unwrap_err();
            assert!(matches!(error, ImageError::Dynamic(_)));
        }
    }
}
