//! What survives a crash, and what is refused.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::ca::tests::root;
use crate::credentials::tests::credentials;
use crate::role::Role;

fn store() -> (TempDir, KeyStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(dir.path().join("keys")).unwrap();
    (dir, store)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn serial(store: &KeyStore) -> Option<String> {
    store.load_credentials().unwrap().map(|c| c.identity().unwrap().serial)
}

#[test]
fn credentials_come_back() {
    let (_dir, store) = store();
    assert_eq!(serial(&store), None);
    let ca = root();
    for role in [Role::Worker, Role::Manager] {
        let kept = credentials(&ca, "n1", role);
        store.save_credentials(&kept).unwrap();
        let found = store.load_credentials().unwrap().unwrap();
        assert_eq!((&found.chain, &found.roots), (&kept.chain, &kept.roots));
        assert_eq!(found.key.to_pkcs8(), kept.key.to_pkcs8());
    }
    assert_eq!((mode(&store.dir), mode(&store.dir.join("node.pem"))), (0o700, 0o600));
    let again = KeyStore::open(&store.dir).unwrap();
    assert_eq!(again.load_credentials().unwrap().unwrap().identity().unwrap().role, Role::Manager);
    store.clear().unwrap();
    assert_eq!(serial(&store), None);
}

#[test]
fn an_exposed_file_is_refused() {
    let (_dir, store) = store();
    store.save_credentials(&credentials(&root(), "n1", Role::Worker)).unwrap();
    store.save_secret("raft.key", b"s").unwrap();
    for name in ["node.pem", "raft.key"] {
        let path = store.dir.join(name);
        for exposed in [0o640, 0o604, 0o660, 0o601] {
            chmod(&path, exposed);
            let error = match name {
                "node.pem" => store.load_credentials().unwrap_err(),
                _ => store.load_secret(name).unwrap_err(),
            };
            let text = format!(
                "refuse {}: group or others can access it (mode {exposed:04o}, wanted 0600)",
                path.display()
            );
            assert_eq!(error.to_string(), text);
        }
        chmod(&path, 0o400);
    }
    assert!(serial(&store).is_some());
    chmod(&store.dir, 0o755);
    let error = KeyStore::open(&store.dir).unwrap_err().to_string();
    assert!(error.ends_with("group or others can access it (mode 0755, wanted 0700)"), "{error}");
}

#[test]
fn links_and_giants_are_refused() {
    let (dir, store) = store();
    fs::write(dir.path().join("elsewhere"), b"x").unwrap();
    chmod(&dir.path().join("elsewhere"), 0o600);
    symlink(dir.path().join("elsewhere"), store.dir.join("link")).unwrap();
    assert!(matches!(store.load_secret("link"), Err(KeyStoreError::NotRegular { .. })));
    fs::create_dir(store.dir.join("node.pem")).unwrap();
    assert!(matches!(store.load_credentials(), Err(KeyStoreError::NotRegular { .. })));
    store.save_secret("large", &[]).unwrap();
    OpenOptions::new().write(true).open(store.dir.join("large")).unwrap().set_len(LARGEST + 1).unwrap();
    assert!(matches!(store.load_secret("large"), Err(KeyStoreError::NotRegular { .. })));
}

#[test]
fn damage_is_named() {
    let (_dir, store) = store();
    store.save_credentials(&credentials(&root(), "n1", Role::Worker)).unwrap();
    let path = store.dir.join("node.pem");
    let whole = fs::read(&path).unwrap();
    for content in [&b""[..], b"\xff\xfe", &whole[..whole.len() / 2], &whole[..whole.len() - 40]] {
        fs::write(&path, content).unwrap();
        let error = store.load_credentials().unwrap_err();
        assert_eq!(error.to_string(), format!("read credentials in {}", path.display()));
    }
}

/// The states in which a crash can leave the directory: nothing beside, a torn file beside, a whole one
/// beside (not renamed yet). After each, the old credentials are complete, and the next write succeeds.
#[test]
fn a_crash_while_writing_leaves_the_old_credentials_whole() {
    let (_dir, store) = store();
    let ca = root();
    let (old, new) = (credentials(&ca, "n1", Role::Worker), credentials(&ca, "n1", Role::Manager));
    let text = new.to_pem();
    let beside = store.dir.join(".node.pem.tmp");
    for torn_at in (0..=text.len()).step_by(101).chain([text.len()]) {
        store.save_credentials(&old).unwrap();
        fs::write(&beside, &text[..torn_at]).unwrap();
        chmod(&beside, 0o644);
        assert_eq!(serial(&store), Some(old.identity().unwrap().serial), "torn at {torn_at}");
        let booted = KeyStore::open(&store.dir).unwrap();
        assert!(!beside.exists(), "left over after boot, torn at {torn_at}");
        assert_eq!(serial(&booted), Some(old.identity().unwrap().serial));

        fs::write(&beside, &text[..torn_at]).unwrap();
        chmod(&beside, 0o644);
        store.save_credentials(&new).unwrap();
        assert_eq!(serial(&store), Some(new.identity().unwrap().serial));
        assert_eq!(mode(&store.dir.join("node.pem")), 0o600);
    }
}

#[test]
fn a_failed_write_keeps_the_old() {
    let (_dir, store) = store();
    store.save_secret("raft.key", b"old").unwrap();
    fs::create_dir(store.dir.join(".raft.key.tmp")).unwrap();
    let error = store.save_secret("raft.key", b"new").unwrap_err();
    assert_eq!(error.to_string(), format!("write {}", store.dir.join("raft.key").display()));
    assert_eq!(store.load_secret("raft.key").unwrap().unwrap(), b"old");
}

#[test]
fn strangers_are_not_stored() {
    let (_dir, store) = store();
    let ca = root();
    let mut mixed = credentials(&ca, "n1", Role::Worker);
    mixed.key = credentials(&ca, "n1", Role::Worker).key;
    assert!(matches!(store.save_credentials(&mixed), Err(KeyStoreError::Credentials { .. })));
    assert_eq!(serial(&store), None);
}

#[test]
fn secrets_are_drawn_once() {
    let (_dir, store) = store();
    let first = store.load_or_create_secret::<32>("raft.key").unwrap();
    assert_ne!(first, [0; 32]);
    assert_eq!(store.load_or_create_secret::<32>("raft.key").unwrap(), first);
    assert_eq!(mode(&store.dir.join("raft.key")), 0o600);
    let error = store.load_or_create_secret::<16>("raft.key").unwrap_err().to_string();
    assert!(error.ends_with("raft.key holds 32 bytes, wanted 16"), "{error}");
    store.remove_secret("raft.key").unwrap();
    store.remove_secret("raft.key").unwrap();
    assert_eq!(store.load_secret("raft.key").unwrap(), None);
    for bad in ["", ".x", "../x", "a/b", "node.pem", "A", &"x".repeat(65)] {
        assert!(matches!(store.load_secret(bad), Err(KeyStoreError::Name(_))), "{bad}");
    }
}

/// A file is never changed in place: whoever has the old one open reads the old one, whole.
#[test]
fn a_write_replaces_the_file() {
    let (_dir, store) = store();
    store.save_secret("raft.key", b"old").unwrap();
    let mut open = File::open(store.dir.join("raft.key")).unwrap();
    store.save_secret("raft.key", b"newer").unwrap();
    let mut seen = Vec::new();
    open.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, b"old");
    let names: Vec<_> = fs::read_dir(&store.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["raft.key"]);
}
