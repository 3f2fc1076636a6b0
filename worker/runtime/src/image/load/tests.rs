use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::super::testing::{Tar, config, docker_archive, oci_archive, pack};
use super::*;

fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("images")).unwrap();
    (dir, store)
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::default().file("bin/a", "lower").end(),
        Tar::default().file("b", "upper").file(".wh.bin", "").end(),
    ]
}

/// Nothing of a refused archive stays: not in the index, not on disk after a collection.
fn assert_empty(store: &ImageStore) {
    assert!(store.list().is_empty());
    store.prune(true).unwrap();
    for dir in ["layers", "blobs/sha256", "tmp"] {
        assert_eq!(std::fs::read_dir(store.inner.root.join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[tokio::test]
async fn docker_archives_load_however_packed() {
    for how in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let (_dir, store) = store();
        let archive = pack(&docker_archive(&["web:1", "reg:5000/web:2"], &layers()), how);
        let loaded = store.load_archive(&archive[..]).await.unwrap();
        assert_eq!(loaded[0].lines(), ["Loaded image: web:1", "Loaded image: reg:5000/web:2"]);
        let image = store.resolve("web:1").unwrap();
        assert_eq!((image.id.clone(), image.layers.len()), (Digest::of(&config(&layers())), 2));
        assert_eq!(std::fs::read_to_string(image.layers[0].join("bin/a")).unwrap(), "lower");
        assert_eq!(image.config.healthcheck.as_ref().unwrap().test, ["CMD", "true"]);
        assert_eq!(store.resolve(&image.id.hex()[..6]).unwrap().repo_tags, ["web:1", "reg:5000/web:2"]);
    }
}

#[tokio::test]
async fn layouts_load_with_packed_layers_and_share_what_is_there() {
    let (_dir, store) = store();
    store.load_archive(&docker_archive(&["web:1"], &layers()[..1])[..]).await.unwrap();
    for how in [Compression::Gzip, Compression::Zstd, Compression::Plain] {
        let loaded = store
            .load_archive(&oci_archive("docker.io/library/oci:latest", &layers(), how)[..])
            .await
            .unwrap();
        assert_eq!(loaded[0].lines(), ["Loaded image: oci:latest"]);
    }
    assert_eq!(std::fs::read_dir(store.inner.root.join("layers")).unwrap().count(), 2);
    assert_eq!(store.list().len(), 2);
    assert_eq!(store.resolve("web:1").unwrap().layers[0], store.resolve("oci").unwrap().layers[0]);
}

#[tokio::test]
async fn broken_archives_are_refused_whole() {
    let good = docker_archive(&["web:1"], &layers());
    let (_dir, store) = store();
    let words = |archive: Vec<u8>| {
        let store = store.clone();
        async move {
            let error = store.load_archive(&archive[..]).await.unwrap_err();
            assert_eq!(error.class(), super::super::ErrorClass::Fatal);
            error.to_string()
        }
    };
    assert_eq!(words(Vec::new()).await, "invalid archive: it holds neither manifest.json nor index.json");
    assert_eq!(words(b"no tar at all".repeat(100)).await, "read archive");
    let packed = pack(&good, Compression::Gzip);
    for cut in [700, good.len() / 4, good.len() / 2] {
        words(good[..cut].to_vec()).await;
    }
    for cut in [20, packed.len() / 4, packed.len() / 2] {
        words(packed[..cut].to_vec()).await;
    }
    let missing =
        Tar::default().file("manifest.json", r#"[{"Config":"../../etc/passwd","Layers":[]}]"#).end();
    assert_eq!(words(missing).await, "invalid archive: `../../etc/passwd` is missing");
    let named = Tar::default()
        .file(&format!("{}.json", "a".repeat(64)), "{}")
        .file("manifest.json", &format!(r#"[{{"Config":"{}.json"}}]"#, "a".repeat(64)));
    assert!(words(named.end()).await.contains("has digest"));
    let loop_ = Tar::default().symlink("manifest.json", "x").symlink("x", "manifest.json").end();
    assert!(words(loop_).await.contains("neither"));
    let mut evil = layers();
    evil.push(Tar::default().file("../out", "x").end());
    let error = store.load_archive(&docker_archive(&["evil:1"], &evil)[..]).await.unwrap_err();
    assert!(
        matches!(&error, LoadError::Unpack { source, .. } if source.to_string().contains("`../out`")),
        "{error}"
    );
    assert!(words(docker_archive(&["Upper:1"], &layers())).await.contains("name `Upper:1`"));
    assert_empty(&store);
}

#[tokio::test]
async fn a_changed_byte_of_a_blob_is_found() {
    let archive = oci_archive("a:1", &layers(), Compression::Gzip);
    let (_dir, store) = store();
    let needle = pack(&layers()[0], Compression::Gzip);
    let at = archive.windows(needle.len()).position(|w| w == needle).unwrap();
    let mut bad = archive.clone();
    bad[at + 20] ^= 1;
    assert!(matches!(store.load_archive(&bad[..]).await, Err(LoadError::Digest { .. })));
    assert_empty(&store);
    store.load_archive(&archive[..]).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_fails_is_an_error() {
    let good = docker_archive(&["web:1"], &layers());
    let (_dir, store) = store();
    let failing = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(Bytes::copy_from_slice(&good[..2000])),
        Err(io::Error::other("connection reset")),
    ]));
    assert!(matches!(store.load_archive(failing).await, Err(LoadError::Read { .. })));
    assert_empty(&store);
}

#[tokio::test]
async fn an_exported_image_is_the_same_elsewhere() {
    let (_a, here) = store();
    let (_b, there) = store();
    here.load_archive(&oci_archive("a:1", &layers(), Compression::Gzip)[..]).await.unwrap();
    here.tag("a:1", &Reference::parse("b/c:2").unwrap()).unwrap();
    let mut bytes = Vec::new();
    here.export("a:1").unwrap().read_to_end(&mut bytes).await.unwrap();
    let loaded = there.load_archive(&bytes[..]).await.unwrap();
    assert_eq!(loaded[0].names, ["b/c:2", "a:1"]);
    let (x, y) = (here.resolve("a:1").unwrap(), there.resolve("b/c:2").unwrap());
    assert_eq!((x.id, x.size, x.repo_tags), (y.id, y.size, y.repo_tags));
    assert!(matches!(here.export("nope").map(|_| ()), Err(super::super::ExportError::NoSuchImage(_))));
}

#[tokio::test]
async fn many_load_the_same_at_once() {
    let (_dir, store) = store();
    let archive = docker_archive(&["web:1"], &layers());
    let loads = (0..6).map(|_| store.load_archive(&archive[..]));
    for done in futures::future::join_all(loads).await {
        done.unwrap();
    }
    assert_eq!((store.list().len(), store.inner.state().pins.len()), (1, 0));
    assert_eq!(std::fs::read_dir(store.inner.root.join("tmp")).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..2000), at in 0usize..12_000, packed in 0usize..3) {
        let how = [Compression::Plain, Compression::Gzip, Compression::Zstd][packed];
        let (_dir, store) = store();
        drop(load(&store, &noise[..]));
        let mut archive = docker_archive(&["web:1"], &layers());
        for (n, byte) in noise.iter().take(40).enumerate() {
            if let Some(place) = archive.get_mut(at + n) { *place = *byte; }
        }
        drop(load(&store, &pack(&archive, how)[..]));
    }
}
