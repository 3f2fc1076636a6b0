use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::compression::Compression;
use super::super::testing::{Tar, config, pack};
use super::super::{ErrorClass, RegistrySettings, Settings};
use super::*;

fn settings() -> RegistrySettings {
    let short = Duration::from_millis(600);
    RegistrySettings {
        stall: short,
        attempts: 3,
        backoff: Duration::from_millis(10),
        ..RegistrySettings::default()
    }
}

fn store_with(registry: RegistrySettings) -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store =
        ImageStore::open_with(dir.path().join("s"), Settings { registry, ..Settings::default() }).unwrap();
    (dir, store)
}

fn quiet(_: PullProgress) {}

/// A pull that failed left no image, no pin and no file behind, once a layer it was just unpacking is done.
async fn assert_nothing_left(store: &ImageStore) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !store.inner.state().pins.is_empty() {
        assert!(Instant::now() < deadline, "pins are given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(store.list().is_empty());
    assert_eq!(std::fs::read_dir(store.inner.root.join("tmp")).unwrap().count(), 0);
    store.prune(true).unwrap();
    for dir in ["layers", "blobs/sha256"] {
        assert_eq!(std::fs::read_dir(store.inner.root.join(dir)).unwrap().count(), 0, "{dir}");
    }
}

fn layers(texts: &[&str]) -> Vec<Vec<u8>> {
    texts
        .iter()
        .map(|t| Tar::default().file("f", t).file("big", &"0123456789".repeat(20_000)).end())
        .collect()
}

/// Debian's registry on a loopback port, killed when dropped.
struct RealRegistry {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
}

impl RealRegistry {
    async fn start(extra: &str) -> RealRegistry {
        let dir = tempfile::tempdir().unwrap();
        let address = {
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            probe.local_addr().unwrap().to_string()
        };
        let at = dir.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp:\n  addr: {address}\n{extra}\n"
        )
        .replace("@DIR@", &at.to_string());
        std::fs::write(dir.path().join("c.yml"), config).unwrap();
        // bcrypt of `secret`
        std::fs::write(
            dir.path().join("users"),
            "bob:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n",
        )
        .unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.path().join("c.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("Debian's package docker-registry is installed");
        let registry = RealRegistry { child, dir, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).await.is_err() {
            assert!(Instant::now() < deadline, "the registry starts");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        registry
    }

    async fn push(&self, name: &str, layers: &[Vec<u8>], how: Compression, auth: Option<&RegistryAuth>) {
        let client = oci_client::Client::new(oci_client::client::ClientConfig {
            protocol: oci_client::client::ClientProtocol::Http,
            ..Default::default()
        });
        let at: oci_client::Reference = format!("{}/{name}", self.address).parse().unwrap();
        let auth = auth.map_or(oci_client::secrets::RegistryAuth::Anonymous, |a| {
            oci_client::secrets::RegistryAuth::Basic(a.username.clone(), a.password.clone())
        });
        let packed: Vec<_> = layers
            .iter()
            .map(|l| {
                oci_client::client::ImageLayer::new(pack(l, how), how.layer_media_type().to_string(), None)
            })
            .collect();
        let config = oci_client::client::Config::oci_v1(config(layers), None);
        client.push(&at, &packed, config, &auth, None).await.unwrap();
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).unwrap()
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

#[tokio::test]
async fn a_real_registry_gives_images_whose_layers_are_shared() {
    provider();
    let registry = RealRegistry::start("").await;
    registry.push("team/a:1", &layers(&["base", "a"]), Compression::Gzip, None).await;
    registry.push("team/b:1", &layers(&["base", "b"]), Compression::Zstd, None).await;
    let (_dir, store) = store_with(settings());
    let seen = Mutex::new(Vec::new());
    let note = |p: PullProgress| seen.lock().unwrap().push(p);
    let a = registry.reference("team/a:1");
    let pulled = store.pull(&a, None, &note).await.unwrap();
    let image = store.resolve(&a.familiar()).unwrap();
    assert_eq!((&image.id, &image.repo_digests[0]), (&pulled.id, &pulled.repo_digest));
    assert_eq!(std::fs::read_to_string(image.layers[1].join("f")).unwrap(), "a");
    assert_eq!(seen.lock().unwrap().iter().filter(|p| matches!(p, PullProgress::Done { .. })).count(), 2);
    seen.lock().unwrap().clear();
    let b = store.pull(&registry.reference("team/b:1"), None, &note).await.unwrap();
    assert_eq!(seen.lock().unwrap().iter().filter(|p| matches!(p, PullProgress::Exists { .. })).count(), 1);
    // by digest: no tag, and the same image
    let digest = Reference::parse(&b.repo_digest).unwrap();
    store.remove(&registry.reference("team/b:1").familiar(), false).unwrap();
    assert!(store.resolve(&b.repo_digest).is_none());
    assert_eq!(store.pull(&digest, None, &quiet).await.unwrap().id, b.id);
    assert!(store.resolve(&b.repo_digest).unwrap().repo_tags.is_empty());
    // what is not there
    let error = store.pull(&registry.reference("team/a:nope"), None, &quiet).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {}/team/a:nope not found: manifest unknown", registry.address)
    );
    assert_eq!(error.class(), ErrorClass::Fatal);
    // the copy on another node has the same digests, though one layer is packed otherwise here than in b's manifest
    let (_other, there) = store_with(settings());
    for name in [a.familiar(), b.repo_digest.clone()] {
        let mut bytes = Vec::new();
        store.export(&name).unwrap().read_to_end(&mut bytes).await.unwrap();
        there.load_archive(&bytes[..]).await.unwrap();
    }
    assert_eq!(there.resolve(&pulled.repo_digest).unwrap().id, pulled.id);
    assert!(there.resolve(b.id.as_str()).is_some());
}

#[tokio::test]
async fn credentials_are_asked_for_and_checked() {
    provider();
    let registry = RealRegistry::start("auth: {htpasswd: {realm: r, path: @DIR@/users}}").await;
    let auth = |p: &str| RegistryAuth { username: "bob".into(), password: p.into() };
    registry.push("a:1", &layers(&["x"]), Compression::Gzip, Some(&auth("secret"))).await;
    let (_dir, store) = store_with(RegistrySettings { stall: Duration::from_secs(5), ..settings() });
    let a = registry.reference("a:1");
    let words = store.pull(&a, None, &quiet).await.unwrap_err().to_string();
    assert!(
        words.starts_with("pull access denied for 127.0.0.1:") && words.contains("repository does not exist"),
        "{words}"
    );
    let words = store.pull(&a, Some(&auth("wrong")), &quiet).await.unwrap_err().to_string();
    assert!(words.starts_with("unauthorized: "), "{words}");
    assert_nothing_left(&store).await;
    store.pull(&a, Some(&auth("secret")), &quiet).await.unwrap();
}

#[tokio::test]
async fn a_damaged_blob_is_refused() {
    provider();
    let registry = RealRegistry::start("").await;
    let layers = layers(&["good", "bad"]);
    registry.push("a:1", &layers, Compression::Gzip, None).await;
    let packed = pack(&layers[1], Compression::Gzip);
    let hex = Digest::of(&packed).hex().to_string();
    let path =
        registry.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes, packed);
    bytes[30] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();
    let (_dir, store) = store_with(settings());
    let error = store.pull(&registry.reference("a:1"), None, &quiet).await.unwrap_err();
    assert!(matches!(&error, PullError::Digest { wanted, .. } if wanted.hex() == hex), "{error}");
    assert_nothing_left(&store).await;
}

#[tokio::test]
async fn a_private_authority_must_be_known() {
    provider();
    let keys = tempfile::tempdir().unwrap();
    let (key, cert) = (keys.path().join("k"), keys.path().join("c"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=registry",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let tls = format!("  tls: {{certificate: {}, key: {}}}", cert.display(), key.display());
    let registry = RealRegistry::start(&tls).await;
    let a = registry.reference("a:1");
    let (_dir, stranger) = store_with(settings());
    let error = stranger.pull(&a, None, &quiet).await.unwrap_err();
    assert!(matches!(error, PullError::Registry { .. }), "{error}");
    let known = RegistrySettings { ca_pems: vec![std::fs::read(&cert).unwrap()], ..settings() };
    let (_dir, friend) = store_with(known);
    // TLS is fine, and there is nothing of that name
    assert!(matches!(friend.pull(&a, None, &quiet).await, Err(PullError::ManifestUnknown { .. })));
}

/// What a made-up registry answers.
#[derive(Clone)]
enum Answer {
    Full(Vec<u8>),
    Status(u16),
    /// So many bytes, then the connection breaks.
    Cut(Vec<u8>, usize),
    /// So many bytes, then nothing for ever.
    Hang(Vec<u8>, usize),
}

type Behaviour = Arc<dyn Fn(&str, u32) -> Answer + Send + Sync>;

/// A registry that misbehaves as told, and counts.
struct FakeRegistry {
    address: String,
    hits: Arc<Mutex<BTreeMap<String, u32>>>,
    _tasks: JoinSet<()>,
}

impl FakeRegistry {
    async fn start(behaviour: Behaviour) -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hits = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = Arc::clone(&hits);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&behaviour), Arc::clone(&counted)));
            }
        });
        FakeRegistry { address, hits, _tasks: tasks }
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    fn hits(&self, part: &str) -> u32 {
        self.hits.lock().unwrap().iter().filter(|(path, _)| path.contains(part)).map(|(_, n)| n).sum()
    }
}

async fn serve(mut socket: TcpStream, behaviour: Behaviour, hits: Arc<Mutex<BTreeMap<String, u32>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0u8; 1];
        if socket.read_exact(&mut byte).await.is_err() {
            return;
        }
        request.push(byte[0]);
        if request[0] != b'G' {
            return; // somebody tries TLS
        }
    }
    let text = String::from_utf8(request).unwrap();
    let path = text.split(' ').nth(1).unwrap().to_string();
    let range = text
        .to_lowercase()
        .split("range: bytes=")
        .nth(1)
        .and_then(|r| r.split('-').next()?.parse::<usize>().ok());
    let nth = {
        let mut hits = hits.lock().unwrap();
        let n = hits.entry(path.clone()).or_insert(0);
        *n += 1;
        *n
    };
    let (body, sent, hang) = match behaviour(&path, nth) {
        Answer::Status(code) => {
            let head = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return drop(socket.write_all(head.as_bytes()).await);
        }
        Answer::Full(body) => (body.clone(), body.len(), false),
        Answer::Cut(body, n) => (body, n, false),
        Answer::Hang(body, n) => (body, n, true),
    };
    let from = range.unwrap_or(0);
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len() - from);
    drop(socket.write_all(head.as_bytes()).await);
    drop(socket.write_all(&body[from..sent.max(from)]).await);
    drop(socket.flush().await);
    if hang {
        std::future::pending::<()>().await;
    }
}

/// One image with one layer, and what its parts are called.
struct Parts {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Parts {
    fn new(text: &str) -> Parts {
        let plain = layers(&[text]);
        let (layer, config) = (pack(&plain[0], Compression::Zstd), config(&plain));
        let manifest = serde_json::json!({"schemaVersion": 2,
            "config": {"mediaType": "c", "digest": Digest::of(&config), "size": config.len()},
            "layers": [{"mediaType": "l", "digest": Digest::of(&layer), "size": layer.len()}]});
        Parts { layer, config, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    /// The honest answer.
    fn answer(&self, path: &str) -> Answer {
        if path == "/v2/" {
            return Answer::Full(b"{}".to_vec());
        }
        let found = [&self.layer, &self.config, &self.manifest]
            .into_iter()
            .find(|b| path.ends_with(Digest::of(b).hex()));
        match found {
            Some(bytes) => Answer::Full(bytes.clone()),
            None if path.contains("/manifests/") => Answer::Full(self.manifest.clone()),
            None => Answer::Status(404),
        }
    }

    fn layer_hex(&self) -> String {
        Digest::of(&self.layer).hex().to_string()
    }
}

/// A registry that answers honestly but for the layer.
async fn with_layer(
    parts: &Arc<Parts>,
    layer: impl Fn(&Parts, u32) -> Answer + Send + Sync + 'static,
) -> FakeRegistry {
    let parts = Arc::clone(parts);
    let hex = parts.layer_hex();
    FakeRegistry::start(Arc::new(
        move |path, n| if path.ends_with(&hex) { layer(&parts, n) } else { parts.answer(path) },
    ))
    .await
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up_by_all_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reference = Reference::parse(&format!("{}/a:1", listener.local_addr().unwrap())).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    let (_dir, store) = store_with(settings());
    let start = Instant::now();
    let pulls = (0..5).map(|_| store.pull(&reference, None, &quiet));
    for done in futures::future::join_all(pulls).await {
        let error = done.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Temporary);
        assert!(
            error.to_string().contains(&format!("give up on registry {}", reference.domain())),
            "{error}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_nothing_left(&store).await;
}

#[tokio::test]
async fn a_registry_that_hangs_or_dies_midway_leaves_nothing() {
    let parts = Arc::new(Parts::new("x"));
    let (_dir, store) = store_with(settings());
    let hangs = with_layer(&parts, |p, _| Answer::Hang(p.layer.clone(), 100)).await;
    let error = store.pull(&hangs.reference("a:1"), None, &quiet).await.unwrap_err();
    assert!(matches!(error, PullError::Stalled { .. }), "{error}");
    assert_nothing_left(&store).await;
    let dies = with_layer(&parts, |p, _| Answer::Cut(p.layer.clone(), 100)).await;
    let error = store.pull(&dies.reference("a:1"), None, &quiet).await.unwrap_err();
    assert!(matches!(error, PullError::Registry { class: ErrorClass::Temporary, .. }), "{error}");
    assert!((2..=4).contains(&dies.hits(&parts.layer_hex())), "{}", dies.hits(&parts.layer_hex()));
    assert_nothing_left(&store).await;
    let gone = dies.reference("a:1");
    drop(dies);
    assert_eq!(store.pull(&gone, None, &quiet).await.unwrap_err().class(), ErrorClass::Temporary);
}

#[tokio::test]
async fn a_broken_download_is_taken_up_where_it_broke() {
    let parts = Arc::new(Parts::new("x"));
    let registry = with_layer(&parts, |p, n| match n {
        1 => Answer::Status(503),
        2 => Answer::Cut(p.layer.clone(), p.layer.len() / 2),
        _ => Answer::Full(p.layer.clone()),
    })
    .await;
    let (_dir, store) = store_with(RegistrySettings { attempts: 4, ..settings() });
    store.pull(&registry.reference("a:1"), None, &quiet).await.unwrap();
    assert_eq!(registry.hits(&parts.layer_hex()), 3);
}

#[tokio::test]
async fn many_pulls_fetch_once() {
    let parts = Arc::new(Parts::new("x"));
    let registry = with_layer(&parts, |p, _| Answer::Full(p.layer.clone())).await;
    let (_dir, store) = store_with(settings());
    let names: Vec<_> = (0..9).map(|n| registry.reference(&format!("a:{}", n % 3))).collect();
    for done in futures::future::join_all(names.iter().map(|n| store.pull(n, None, &quiet))).await {
        done.unwrap();
    }
    assert_eq!(registry.hits(&parts.layer_hex()), 1, "three tags, nine pulls, one layer");
    assert_eq!(registry.hits("/manifests/"), 3);
    assert_eq!((store.list().len(), store.resolve(&names[0].familiar()).unwrap().repo_tags.len()), (1, 3));
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing_and_another_takes_over() {
    let parts = Arc::new(Parts::new("x"));
    let registry = with_layer(&parts, |p, n| {
        if n == 1 { Answer::Hang(p.layer.clone(), 10) } else { Answer::Full(p.layer.clone()) }
    })
    .await;
    let (_dir, store) = store_with(RegistrySettings { stall: Duration::from_secs(30), ..settings() });
    let name = registry.reference("a:1");
    // Not before the answer that hangs was asked for: else the next one gets it.
    let asked = async {
        while registry.hits(&parts.layer_hex()) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = store.pull(&name, None, &quiet) => panic!("the registry hangs: {:?}", done.err()),
        () = asked => {}
    }
    assert_nothing_left(&store).await;
    store.pull(&name, None, &quiet).await.unwrap();
}

#[tokio::test]
async fn lies_of_a_registry_are_found() {
    let parts = Arc::new(Parts::new("x"));
    let (_dir, store) = store_with(settings());
    let longer = with_layer(&parts, |p, _| Answer::Full([&p.layer[..], b"more"].concat())).await;
    assert!(matches!(store.pull(&longer.reference("a:1"), None, &quiet).await, Err(PullError::Size { .. })));
    let other = Arc::clone(&parts);
    let swapped = FakeRegistry::start(Arc::new(move |path, _| match other.answer(path) {
        Answer::Full(_) if path.contains("/manifests/") => Answer::Full(b"{\"schemaVersion\":2}".to_vec()),
        honest => honest,
    }))
    .await;
    assert!(matches!(store.pull(&swapped.reference("a:1"), None, &quiet).await, Err(PullError::Json { .. })));
    let by_digest = swapped.reference("a").with_digest(Digest::of(&parts.manifest));
    assert!(store.pull(&by_digest, None, &quiet).await.is_err());
    assert_nothing_left(&store).await;
}

#[tokio::test]
async fn an_index_gives_this_platform_and_only_it() {
    let parts = Arc::new(Parts::new("x"));
    let index = |arch: &str| {
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": "m", "size": 3, "digest": Digest::of(b"other"), "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": "m", "size": parts.manifest.len(), "digest": Digest::of(&parts.manifest), "platform": {"os": "linux", "architecture": arch}}
        ]}))
        .unwrap()
    };
    let (ours, theirs) = (index(architecture()), index("riscv128"));
    let top = Digest::of(&ours);
    let honest = Arc::clone(&parts);
    let registry = FakeRegistry::start(Arc::new(move |path, _| match path {
        p if p.ends_with("manifests/ours") || p.ends_with(Digest::of(&ours).hex()) => {
            Answer::Full(ours.clone())
        }
        p if p.ends_with("manifests/theirs") => Answer::Full(theirs.clone()),
        p => honest.answer(p),
    }))
    .await;
    let (_dir, store) = store_with(settings());
    let pulled = store.pull(&registry.reference("a:ours"), None, &quiet).await.unwrap();
    assert_eq!(
        (pulled.manifest, pulled.repo_digest.ends_with(top.as_str())),
        (Digest::of(&parts.manifest), true)
    );
    let words = store.pull(&registry.reference("a:theirs"), None, &quiet).await.unwrap_err().to_string();
    assert!(words.starts_with("no matching manifest for linux/"), "{words}");
    // the index travels with a copy, so that the digest means the same there
    let (_other, there) = store_with(settings());
    let mut bytes = Vec::new();
    store.export(&pulled.repo_digest).unwrap().read_to_end(&mut bytes).await.unwrap();
    there.load_archive(&bytes[..]).await.unwrap();
    assert_eq!(there.resolve(&pulled.repo_digest).unwrap().id, pulled.id);
}
