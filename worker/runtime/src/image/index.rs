//! [`Index`]: which name means which image, and what an image consists of; one JSON file, replaced atomically.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

const VERSION: u32 = 1;

/// The whole truth about names; everything on disk that it does not lead to is garbage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// Normalised name (with tag, or with digest) to image id.
    pub(crate) references: BTreeMap<String, Digest>,
    /// By id, which is the digest of the configuration.
    pub(crate) images: BTreeMap<Digest, Record>,
}

/// What an image consists of, besides its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Bottom first.
    pub(crate) layers: Vec<Digest>,
    /// Its manifests and the indexes they were found through: what its digest references point to.
    pub(crate) documents: BTreeSet<Digest>,
}

impl Default for Index {
    fn default() -> Self {
        Index { version: VERSION, references: BTreeMap::new(), images: BTreeMap::new() }
    }
}

impl Index {
    pub(crate) fn parse(json: &[u8]) -> Result<Index, serde_json::Error> {
        let index: Index = serde_json::from_slice(json)?;
        if index.version == VERSION {
            return Ok(index);
        }
        Err(serde::de::Error::custom(format!("version {} of the image index is unknown", index.version)))
    }

    /// Replaces the file at `path`: whoever reads it, and whenever the power goes, sees the old or the new.
    pub(crate) fn save(&self, path: &Path, temp: &Path) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let mut file = File::create(temp)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(temp, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    /// The names of an image, in order.
    pub(crate) fn names_of<'a>(&'a self, id: &'a Digest) -> impl Iterator<Item = &'a str> + 'a {
        self.references.iter().filter(move |(_, to)| *to == id).map(|(name, _)| name.as_str())
    }

    /// Adds what is known of an image; what is known already stays.
    pub(crate) fn add(&mut self, id: &Digest, record: Record) {
        match self.images.get_mut(id) {
            Some(known) => known.documents.extend(record.documents),
            None => drop(self.images.insert(id.clone(), record)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_disk_and_refuses_another_version() {
        let dir = tempfile::tempdir().unwrap();
        let id = Digest::of(b"x");
        let mut index = Index::default();
        index.references.insert("docker.io/library/a:1".into(), id.clone());
        index.add(&id, Record { layers: vec![id.clone()], documents: BTreeSet::new() });
        let path = dir.path().join("index.json");
        index.save(&path, &dir.path().join("t")).unwrap();
        let back = Index::parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((back.images, back.references), (index.images, index.references));
        assert!(Index::parse(br#"{"version":2,"references":{},"images":{}}"#).is_err());
        assert!(Index::parse(b"{").is_err());
    }
}
