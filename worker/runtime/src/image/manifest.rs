//! Manifests and indexes: the JSON that ties a configuration and its layers together (OCI image-spec v1, Docker schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Names an image within a layout: the whole name …
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// … or, by the standard, the name or only its tag.
pub(crate) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Points at a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

/// One image for one platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Several manifests under one digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a manifest's bytes turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Told apart by their fields: the media type inside is optional.
    pub(crate) fn parse(json: &[u8]) -> Result<Document, serde_json::Error> {
        #[derive(Deserialize)]
        struct Probe {
            manifests: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(json)?;
        if probe.manifests.is_some() {
            Ok(Document::Index(serde_json::from_slice(json)?))
        } else {
            Ok(Document::Manifest(serde_json::from_slice(json)?))
        }
    }

    pub(crate) fn media_type(&self) -> &str {
        match self {
            Document::Manifest(m) if m.media_type == DOCKER_MANIFEST => DOCKER_MANIFEST,
            Document::Manifest(_) => OCI_MANIFEST,
            Document::Index(i) if i.media_type == DOCKER_LIST => DOCKER_LIST,
            Document::Index(_) => OCI_INDEX,
        }
    }
}

impl Index {
    /// The entries for linux on this machine's architecture, best first; entries that name no platform come last.
    pub(crate) fn for_this_machine(&self) -> Vec<&Descriptor> {
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture())
        };
        let blank = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os.is_empty());
        self.manifests.iter().filter(fits).chain(self.manifests.iter().filter(blank)).collect()
    }
}

/// This machine's architecture in the words images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_gives_this_platform_first() {
        let d = |c: u8| format!("sha256:{}", (c as char).to_string().repeat(64));
        let json = format!(
            r#"{{"schemaVersion":2,"manifests":[
              {{"mediaType":"m","size":1,"digest":"{}"}},
              {{"mediaType":"m","size":1,"digest":"{}","platform":{{"os":"windows","architecture":"{arch}"}}}},
              {{"mediaType":"m","size":1,"digest":"{}","platform":{{"os":"linux","architecture":"{arch}"}}}}]}}"#,
            d(b'a'),
            d(b'b'),
            d(b'c'),
            arch = architecture()
        );
        let Document::Index(index) = Document::parse(json.as_bytes()).unwrap() else { panic!("an index") };
        let got: Vec<_> = index.for_this_machine().iter().map(|x| x.digest.to_string()).collect();
        assert_eq!(got, [d(b'c'), d(b'a')]);
    }
}
