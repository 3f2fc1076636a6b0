use super::super::testing::{Tar, docker_archive};
use super::super::{LeaseError, RemoveError, Removed};
use super::*;

fn layer(text: &str) -> Vec<u8> {
    Tar::default().file("f", text).end()
}

async fn with_images(root: &Path) -> ImageStore {
    let store = ImageStore::open(root.to_path_buf()).unwrap();
    store.load_archive(&docker_archive(&["a:1", "a:2"], &[layer("shared"), layer("a")])[..]).await.unwrap();
    store.load_archive(&docker_archive(&["b:1"], &[layer("shared"), layer("b")])[..]).await.unwrap();
    store
}

fn count(store: &ImageStore, dir: &str) -> usize {
    fs::read_dir(store.inner.root.join(dir)).unwrap().count()
}

#[tokio::test]
async fn images_outlive_the_process_and_a_crash_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = with_images(&root).await;
    let before = store.resolve("a:1").unwrap();
    store.lease("c1", "a:1").unwrap();
    assert!(matches!(ImageStore::open(root.clone()), Err(OpenError::InUse { .. })));
    drop(store);
    for litter in [
        "tmp/7/diff",
        &format!("layers/{}/diff", "a".repeat(64)),
        &format!("blobs/sha256/{}", "b".repeat(64)),
    ] {
        fs::create_dir_all(root.join(litter)).unwrap();
    }
    let store = ImageStore::open(root).unwrap();
    let after = store.resolve("a:2").unwrap();
    assert_eq!((before.id, before.layers, before.size), (after.id, after.layers, after.size));
    assert_eq!((count(&store, "tmp"), count(&store, "layers")), (0, 3));
    assert_eq!(store.leases().keys().collect::<Vec<_>>(), ["c1"]);
    assert_eq!(
        fs::metadata(&store.inner.root)
            .map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777)
            .unwrap(),
        0o700
    );
}

#[tokio::test]
async fn a_damaged_index_is_refused_and_a_lost_layer_forgets_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = with_images(&root).await;
    let lost = store.resolve("b:1").unwrap().layers[1].clone();
    drop(store);
    fs::remove_dir_all(lost.parent().unwrap()).unwrap();
    let store = ImageStore::open(root.clone()).unwrap();
    assert!(store.resolve("b:1").is_none() && store.resolve("a:1").is_some());
    drop(store);
    fs::write(root.join("index.json"), b"{").unwrap();
    assert!(matches!(ImageStore::open(root), Err(OpenError::Index { .. })));
}

#[tokio::test]
async fn removing_takes_names_then_images_then_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_images(&dir.path().join("s")).await;
    let id = store.resolve("a:1").unwrap().id;
    assert_eq!(store.remove("a:1", false).unwrap(), [Removed::Untagged("a:1".into())]);
    assert_eq!(store.remove("a:2", false).unwrap(), [Removed::Untagged("a:2".into()), Removed::Deleted(id)]);
    assert_eq!(count(&store, "layers"), 2, "the shared layer stays with b");
    assert!(store.resolve("b:1").unwrap().layers.iter().all(|l| l.join("f").exists()));
    assert_eq!(store.remove("a:1", false).unwrap_err().to_string(), "No such image: a:1");
    store.remove("b:1", false).unwrap();
    assert_eq!((count(&store, "layers"), count(&store, "blobs/sha256"), count(&store, "tmp")), (0, 0, 0));
}

#[tokio::test]
async fn an_image_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_images(&dir.path().join("s")).await;
    let image = store.lease("c1", "b:1").unwrap();
    assert!(matches!(store.remove("b:1", false), Err(RemoveError::InUse { .. })));
    assert!(matches!(store.remove(image.id.as_str(), false), Err(RemoveError::InUse { .. })));
    assert_eq!(store.remove("b:1", true).unwrap(), [Removed::Untagged("b:1".into())]);
    assert!(store.resolve("b:1").is_none() && image.layers[1].join("f").exists());
    assert!(store.prune(false).unwrap().is_empty());
    assert!(store.release("c1").unwrap() && !store.release("c1").unwrap());
    assert_eq!(store.prune(false).unwrap(), [Removed::Deleted(image.id)]);
    assert!(!image.layers[1].exists());
    let id = store.resolve("a:1").unwrap().id;
    assert!(matches!(store.remove(id.as_str(), false), Err(RemoveError::ManyNames { .. })));
    assert_eq!(store.remove(id.short(), true).unwrap().len(), 3);
}

#[tokio::test]
async fn a_moved_tag_leaves_an_image_without_name_for_prune() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_images(&dir.path().join("s")).await;
    store.load_archive(&docker_archive(&["b:1"], &[layer("new")])[..]).await.unwrap();
    assert_eq!(store.list().iter().filter(|i| i.repo_tags.is_empty()).count(), 1);
    assert_eq!(store.prune(false).unwrap().len(), 1);
    assert_eq!(store.list().len(), 2);
}

#[tokio::test]
async fn leases_refuse_odd_owners_and_unknown_images() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_images(&dir.path().join("s")).await;
    for owner in ["", "..", "a/b", ".a", &"x".repeat(129)] {
        assert!(matches!(store.lease(owner, "a:1"), Err(LeaseError::Owner(_))), "{owner}");
    }
    assert_eq!(store.lease("c", "nope:1").unwrap_err().to_string(), "No such image: nope:1");
}

#[tokio::test]
async fn a_full_disk_is_a_clean_temporary_error() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let run = |args: &[&str]| {
        assert!(std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success())
    };
    run(&["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", at]);
    let store = ImageStore::open(dir.path().join("s")).unwrap();
    store.load_archive(&docker_archive(&["small:1"], &[layer("small")])[..]).await.unwrap();
    let big = docker_archive(&["big:1"], &[layer("below"), layer(&"x".repeat(2_000_000))]);
    let error = store.load_archive(&big[..]).await.map(|_| ());
    let (tmp, names) = (count(&store, "tmp"), store.list().len());
    let again = store.load_archive(&docker_archive(&["small:2"], &[layer("small")])[..]).await.map(|_| ());
    drop(store);
    run(&["umount", at]);
    assert_eq!(error.unwrap_err().class(), super::super::ErrorClass::Temporary);
    assert_eq!((tmp, names), (0, 1));
    again.unwrap();
}
