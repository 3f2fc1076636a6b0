//! The keys of this node's tunnel, kept where nobody else may read, and changed without losing a packet.
//!
//! A change goes in steps, and each is taken when the managers have said that everybody has followed the
//! one before (see [`swarm_worker_wireguard`]):
//!
//! 1. [`Stage::Announced`]: the new key is taken, and published beside the old one.
//! 2. [`Stage::Switched`]: all nodes know the new key: it is the one to begin with.
//! 3. [`Stage::Retiring`]: all sessions are of the new key: the old one is published no more.
//! 4. [`Stage::Steady`]: all nodes have forgotten the old key, and so do we.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use swarm_worker_wireguard::{KEY_LEN, KeyPair};

/// Writes random octets that are fit for keys.
pub(crate) type Random = fn(&mut [u8; KEY_LEN]) -> io::Result<()>;

/// How far a change of keys has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Steady,
    Announced,
    Switched,
    Retiring,
}

/// The keys of this node.
#[derive(Debug)]
pub(crate) struct Keys {
    file: PathBuf,
    random: Random,
    /// The managers' number of the newest key; none: they have not said any yet.
    epoch: Option<u64>,
    stage: Stage,
    newest: KeyPair,
    older: Option<KeyPair>,
}

impl Keys {
    /// Those on disk, or a new one.
    pub(crate) fn open(file: PathBuf, random: Random) -> io::Result<Self> {
        let read = fs::read_to_string(&file).ok();
        if let Some(keys) = read.and_then(|text| parse(&text, file.clone(), random)) {
            return Ok(keys);
        }
        let newest = KeyPair::generate(random)?;
        let keys = Self { file, random, epoch: None, stage: Stage::Steady, newest, older: None };
        keys.save()?;
        Ok(keys)
    }

    /// What handshakes are taken to, the one to begin with first.
    pub(crate) fn own(&self) -> Vec<KeyPair> {
        let newest_first = self.stage != Stage::Announced;
        let mut own: Vec<_> = self.older.iter().cloned().collect();
        own.insert(if newest_first { 0 } else { own.len() }, self.newest.clone());
        own
    }

    /// What other nodes are to know, the one to be used first.
    pub(crate) fn published(&self) -> Vec<String> {
        let retired = self.stage == Stage::Retiring;
        let own = self.own();
        let shown = own.iter().take(if retired { 1 } else { own.len() });
        shown.map(|pair| pair.public().to_string()).collect()
    }

    /// The managers want keys of this epoch, and `known` are those of ours that all nodes know.
    /// `moved`: all sessions are of the newest key. True if something has changed.
    pub(crate) fn follow(&mut self, epoch: u64, known: &[String], moved: bool) -> io::Result<bool> {
        let newest = self.newest.public().to_string();
        let older = self.older.as_ref().map(|pair| pair.public().to_string());
        match self.epoch {
            None => self.epoch = Some(epoch),
            Some(have) if epoch > have && self.stage == Stage::Steady => {
                let made = KeyPair::generate(self.random)?;
                self.older = Some(std::mem::replace(&mut self.newest, made));
                self.epoch = Some(epoch);
                self.stage = Stage::Announced;
            }
            Some(_) => {
                let forgotten = older.as_ref().is_none_or(|key| !known.contains(key));
                self.stage = match self.stage {
                    Stage::Announced if known.contains(&newest) => Stage::Switched,
                    Stage::Switched if moved => Stage::Retiring,
                    Stage::Retiring if forgotten => {
                        self.older = None;
                        Stage::Steady
                    }
                    _ => return Ok(false),
                }
            }
        }
        self.save()?;
        Ok(true)
    }

    /// The newest key, and whether it is to be the only one soon.
    pub(crate) fn switching(&self) -> Option<swarm_worker_wireguard::PublicKey> {
        (self.stage == Stage::Switched).then(|| self.newest.public())
    }

    /// Other keys: this node has left, and those who knew it are to know nothing of it.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        (self.newest, self.older) = (KeyPair::generate(self.random)?, None);
        (self.epoch, self.stage) = (None, Stage::Steady);
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let stage = match self.stage {
            Stage::Steady => "steady",
            Stage::Announced => "announced",
            Stage::Switched => "switched",
            Stage::Retiring => "retiring",
        };
        let epoch = self.epoch.map_or("none".into(), |epoch| epoch.to_string());
        let mut text = format!("epoch {epoch}\nstage {stage}\n");
        for pair in [Some(&self.newest), self.older.as_ref()].into_iter().flatten() {
            text.push_str(&format!("secret {}\n", hex::encode(*pair.secret())));
        }
        let new = self.file.with_extension("new");
        let options = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new);
        let mut file = options?;
        file.write_all(text.as_bytes())?;
        // A key that others know must not be lost to a power cut.
        file.sync_all()?;
        fs::rename(&new, &self.file)
    }
}

fn parse(text: &str, file: PathBuf, random: Random) -> Option<Keys> {
    let (mut epoch, mut stage, mut pairs) = (None, Stage::Steady, Vec::new());
    for line in text.lines() {
        match line.split_once(' ')? {
            ("epoch", "none") => {}
            ("epoch", number) => epoch = Some(number.parse().ok()?),
            ("stage", "steady") => {}
            ("stage", "announced") => stage = Stage::Announced,
            ("stage", "switched") => stage = Stage::Switched,
            ("stage", "retiring") => stage = Stage::Retiring,
            ("secret", secret) => {
                let octets: [u8; KEY_LEN] = hex::decode(secret).ok()?.try_into().ok()?;
                pairs.push(KeyPair::from_secret(&octets));
            }
            _ => return None,
        }
    }
    let mut pairs = pairs.into_iter();
    let (newest, older) = (pairs.next()?, pairs.next());
    if older.is_none() {
        stage = Stage::Steady;
    }
    Some(Keys { file, random, epoch, stage, newest, older })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU8, Ordering};

    #[allow(clippy::unnecessary_wraps, reason = "the type of a source of random octets")]
    fn counted(octets: &mut [u8; KEY_LEN]) -> io::Result<()> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        octets.fill(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }

    #[test]
    fn a_change_waits_for_everybody_at_each_step_and_survives_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        let open = || Keys::open(file.clone(), counted).unwrap();
        let mut keys = open();
        let old = keys.published();
        assert!(keys.follow(3, &old, true).unwrap(), "the first epoch is taken as it is");
        assert_eq!((keys.published(), open().published()), (old.clone(), old.clone()));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        assert!(keys.follow(4, &old, true).unwrap());
        let both = open().published();
        assert_eq!((both.len(), &both[0]), (2, &old[0]), "the old one is still the one to use");
        assert!(!keys.follow(4, &old, true).unwrap(), "not all know the new one");
        assert!(!keys.follow(5, &old, true).unwrap(), "one change after the other");

        let mut keys = open();
        assert!(keys.follow(4, &both, false).unwrap());
        let swapped = [both[1].clone(), both[0].clone()];
        assert_eq!(open().published(), swapped);
        assert!(!keys.follow(4, &both, false).unwrap(), "sessions of the old key are left");
        assert!(keys.follow(4, &both, true).unwrap());
        assert_eq!((keys.published(), keys.own().len()), (vec![both[1].clone()], 2));
        assert!(!keys.follow(4, &both, true).unwrap(), "others may still begin with the old one");
        assert!(keys.follow(4, &both[1..], true).unwrap());
        let keys = open();
        assert_eq!((keys.published(), keys.own().len()), (vec![both[1].clone()], 1));
    }

    #[test]
    fn a_damaged_file_costs_the_key_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        for bad in ["", "epoch x\n", "secret 00\n", "nonsense"] {
            fs::write(&file, bad).unwrap();
            assert_eq!(Keys::open(file.clone(), counted).unwrap().published().len(), 1);
        }
    }
}
