//! Layers and archives made for tests.

use std::io::Write;

use tar::{EntryType, Header};

use super::compression::Compression;
use super::digest::Digest;

/// A tar written entry by entry, with names nobody checks.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Tar {
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub(crate) fn file(self, name: &str, content: &str) -> Tar {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }
    pub(crate) fn dir(self, name: &str) -> Tar {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }
    pub(crate) fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }
    pub(crate) fn hard(self, name: &str, target: &str) -> Tar {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }
    /// A record before the next entry: `key=value`.
    pub(crate) fn pax(self, key: &str, value: &str) -> Tar {
        let body = format!(" {key}={value}\n");
        let length = (body.len()..).find(|n| n.to_string().len() + body.len() == *n).unwrap();
        self.entry(EntryType::XHeader, "pax", "", 0o644, format!("{length}{body}").as_bytes())
    }
    /// With the end marker and some padding, which belongs to the digest.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024 + 4096, 0);
        self.0
    }
}

pub(crate) fn pack(plain: &[u8], how: Compression) -> Vec<u8> {
    match how {
        Compression::Plain => plain.to_vec(),
        Compression::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(plain).unwrap();
            out.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(plain, 1).unwrap(),
    }
}

/// A configuration for those unpacked layers.
pub(crate) fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": super::manifest::architecture(), "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": {"Env": ["A=b"], "Cmd": ["/bin/true"], "Healthcheck": {"Test": ["CMD", "true"]}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": []
    }))
    .unwrap()
}

/// An old `docker save` archive: `manifest.json` last, a directory per layer.
pub(crate) fn docker_archive(tags: &[&str], layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(layers);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let mut tar = tar::Builder::new(Vec::new());
    let mut paths = Vec::new();
    for (n, layer) in layers.iter().enumerate() {
        let path = format!("layer{n}/layer.tar");
        append(&mut tar, &path, layer);
        paths.push(path);
    }
    append(&mut tar, &config_name, &config);
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": tags, "Layers": paths}]);
    append(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().unwrap()
}

/// An OCI layout; the layers are packed as said.
pub(crate) fn oci_archive(name: &str, layers: &[Vec<u8>], how: Compression) -> Vec<u8> {
    let config = config(layers);
    let packed: Vec<Vec<u8>> = layers.iter().map(|l| pack(l, how)).collect();
    let describe = |kind: &str, b: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(b), "size": b.len()});
    let layer = |b: &Vec<u8>| describe(how.layer_media_type(), b);
    let manifest = serde_json::json!({"schemaVersion": 2, "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": packed.iter().map(layer).collect::<Vec<_>>()});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut top = describe("application/vnd.oci.image.manifest.v1+json", &manifest);
    top["annotations"] =
        serde_json::json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "latest"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]});
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    append(&mut tar, "index.json", index.to_string().as_bytes());
    for blob in packed.iter().chain([&config, &manifest]) {
        append(&mut tar, &format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.into_inner().unwrap()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}
