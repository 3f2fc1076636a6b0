//! Credentials and other secrets on disk: one directory (0700), one file each (0600). The only IO of this
//! crate.
//!
//! A file is replaced as a whole: written beside, synced, renamed, directory synced. Key, certificate and
//! roots share one file, so after a crash at any point they still belong together. A file or directory that
//! others can read is refused: what leaked is not a secret any more.
//!
//! One process at a time owns the directory. Calls block for a few milliseconds (fsync).

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::credentials::{Credentials, CredentialsError};

const CREDENTIALS: &str = "node.pem";
const TEMPORARY: &str = ".tmp";
/// No secret of ours is larger. A larger file is not ours.
const LARGEST: u64 = 1 << 20;

/// The directory in which a node keeps its secrets.
#[derive(Debug, Clone)]
pub struct KeyStore {
    dir: PathBuf,
}

/// Why a secret could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The directory could not be made or looked at.
    #[error("open key directory {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Group or others have access.
    #[error("refuse {}: group or others can access it (mode {mode:04o}, wanted {wanted:04o})", path.display())]
    Exposed { path: PathBuf, mode: u32, wanted: u32 },
    /// A link, a device, or far too large.
    #[error("refuse {}: not a regular file of at most 1 MiB", path.display())]
    NotRegular { path: PathBuf },
    /// The file could not be read.
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file could not be replaced; the old content, if any, is still there.
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file could not be removed.
    #[error("remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("read credentials in {}", path.display())]
    Credentials {
        path: PathBuf,
        #[source]
        source: CredentialsError,
    },
    /// Not a name for a secret.
    #[error("malformed secret name `{0}`")]
    Name(String),
    /// The secret has another length than asked for.
    #[error("{} holds {found} bytes, wanted {wanted}", path.display())]
    Length { path: PathBuf, found: usize, wanted: usize },
    /// The system's generator failed.
    #[error("draw a secret")]
    Random,
}

impl KeyStore {
    /// Opens the directory, makes it if it is missing, and removes what an interrupted write left behind.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, KeyStoreError> {
        let dir = dir.into();
        let failed = |source| KeyStoreError::Open { path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent).map_err(failed)?;
        }
        refuse_exposed(&dir, &fs::metadata(&dir).map_err(failed)?, 0o700)?;
        let store = Self { dir };
        store.remove_where(|name| name.starts_with('.') && name.ends_with(TEMPORARY))?;
        Ok(store)
    }

    /// The node's credentials; `None` if there are none yet.
    pub fn load_credentials(&self) -> Result<Option<Credentials>, KeyStoreError> {
        let path = self.dir.join(CREDENTIALS);
        let Some(bytes) = read_private(&path)? else { return Ok(None) };
        let failed = |source| KeyStoreError::Credentials { path: path.clone(), source };
        let text = String::from_utf8_lossy(&bytes);
        Credentials::from_pem(&text).map(Some).map_err(failed)
    }

    /// Keeps `credentials` in place of the ones before. Parts that do not fit together are refused.
    pub fn save_credentials(&self, credentials: &Credentials) -> Result<(), KeyStoreError> {
        let path = self.dir.join(CREDENTIALS);
        credentials.check().map_err(|source| KeyStoreError::Credentials { path, source })?;
        self.replace(CREDENTIALS, credentials.to_pem().as_bytes())
    }

    /// The secret kept under `name`; `None` if there is none.
    pub fn load_secret(&self, name: &str) -> Result<Option<Vec<u8>>, KeyStoreError> {
        read_private(&self.dir.join(checked(name)?))
    }

    /// Keeps `secret` under `name` in place of the one before.
    pub fn save_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyStoreError> {
        self.replace(checked(name)?, secret)
    }

    /// The `N` bytes kept under `name`, drawn from the system's generator and kept if there are none yet.
    pub fn load_or_create_secret<const N: usize>(&self, name: &str) -> Result<[u8; N], KeyStoreError> {
        if let Some(found) = self.load_secret(name)? {
            let path = self.dir.join(name);
            let wrong = |found: Vec<u8>| KeyStoreError::Length { path, found: found.len(), wanted: N };
            return found.try_into().map_err(wrong);
        }
        let mut secret = [0; N];
        SystemRandom::new().fill(&mut secret).map_err(|_| KeyStoreError::Random)?;
        self.save_secret(name, &secret)?;
        Ok(secret)
    }

    /// Removes the secret kept under `name`, if there is one.
    pub fn remove_secret(&self, name: &str) -> Result<(), KeyStoreError> {
        let name = checked(name)?;
        self.remove_where(|found| found == name)
    }

    /// Forgets everything: the node left its cluster. Credentials go first: after a crash midway the node is
    /// one that left, not a member that lost its other secrets.
    pub fn clear(&self) -> Result<(), KeyStoreError> {
        self.remove_where(|name| name == CREDENTIALS)?;
        self.remove_where(|_| true)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), KeyStoreError> {
        let (path, beside) = (self.dir.join(name), self.dir.join(format!(".{name}{TEMPORARY}")));
        let written = write_synced(&beside, content)
            .and_then(|()| fs::rename(&beside, &path))
            .and_then(|()| sync_dir(&self.dir));
        written.map_err(|source| KeyStoreError::Write { path, source })
    }

    fn remove_where(&self, doomed: impl Fn(&str) -> bool) -> Result<(), KeyStoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyStoreError::Remove { path, source }
        };
        let mut removed = false;
        for entry in fs::read_dir(&self.dir).map_err(failed(&self.dir))? {
            let path = entry.map_err(failed(&self.dir))?.path();
            if path.file_name().and_then(|n| n.to_str()).is_some_and(&doomed) {
                fs::remove_file(&path).map_err(failed(&path))?;
                removed = true;
            }
        }
        if removed { sync_dir(&self.dir).map_err(failed(&self.dir)) } else { Ok(()) }
    }
}

/// A plain file name that is not ours and not a temporary one.
fn checked(name: &str) -> Result<&str, KeyStoreError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let good = !name.is_empty() && name.len() <= 64 && name.bytes().all(plain) && !name.starts_with('.');
    if good && name != CREDENTIALS { Ok(name) } else { Err(KeyStoreError::Name(name.to_owned())) }
}

fn refuse_exposed(path: &Path, found: &Metadata, wanted: u32) -> Result<(), KeyStoreError> {
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(KeyStoreError::Exposed { path: path.to_owned(), mode, wanted })
    }
}

fn read_private(path: &Path) -> Result<Option<Vec<u8>>, KeyStoreError> {
    let failed = |source| KeyStoreError::Read { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !found.is_file() || found.len() > LARGEST {
        return Err(KeyStoreError::NotRegular { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    refuse_exposed(path, &file.metadata().map_err(failed)?, 0o600)?;
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
