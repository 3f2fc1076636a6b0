//! People who are no nodes: bad tokens, false managers, garbage and floods. And what a thief would
//! like to find: keys and tokens in answers, log lines and files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm_identity::ca::{Grant, RootCa};
use swarm_identity::credentials::Credentials;
use swarm_identity::csr::NodeKey;
use swarm_identity::handshake;
use swarm_identity::pin::PinnedClient;
use swarm_identity::role::Role;
use swarm_identity::tls::TlsIdentity;
use swarm_identity::token::JoinToken;
use swarm_proto::v1;
use swarm_tests::harness::{Cluster, capture, eventually, next_ip, service, wire};
use swarm_types::time::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::Code;
use v1::watch_message::Message;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn bad_tokens_are_refused() {
    let mut cluster = Cluster::start(1, 0).await;
    let stranger = cluster.add("s1").await;
    let tokens = cluster.tokens().await;
    let addr = [cluster.hosts[0].addr()];
    let host = &cluster.hosts[stranger];
    let good: JoinToken = tokens.worker.parse().unwrap();
    let wrong_secret = JoinToken::generate(good.digest()).unwrap().to_string();
    for (token, code, words) in [
        (String::new(), Code::InvalidArgument, "a join token is necessary"),
        ("garbage".into(), Code::InvalidArgument, "invalid join token"),
        (format!("{} ", tokens.worker), Code::InvalidArgument, "invalid join token"),
        (tokens.worker.replace("SWMTKN-1", "SWMTKN-2"), Code::InvalidArgument, "invalid join token"),
        (wrong_secret, Code::FailedPrecondition, "invalid join token"),
    ] {
        let refused = host.join(&token, &addr).await.unwrap_err();
        assert_eq!(refused.code(), code, "{token}: {refused:?}");
        assert!(refused.message().contains(words), "{token}: {refused:?}");
        assert_eq!(host.info().await.state, "inactive", "after `{token}`");
    }
    // One that was rotated is as bad; the other one and the new one are good.
    let version = cluster_version(&cluster).await;
    let rotate = v1::UpdateClusterRequest { version, rotate_worker_token: true, ..Default::default() };
    cluster.any().control().update_cluster(rotate).await.unwrap();
    let refused = host.join(&tokens.worker, &addr).await.unwrap_err();
    assert!(refused.message().contains("invalid join token"), "{refused:?}");
    let now = cluster.tokens().await;
    assert_ne!(now.worker, tokens.worker);
    assert_eq!(now.manager, tokens.manager);
    assert!(host.join(&now.worker, &addr).await.unwrap().joined);
    // Once is enough.
    let twice = host.join(&now.worker, &addr).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice:?}");
    assert!(twice.message().contains("already part of a swarm"), "{twice:?}");
    let init = host.local().init(v1::InitRequest::default()).await.unwrap_err();
    assert_eq!(init.code(), Code::FailedPrecondition, "{init:?}");
    assert_eq!(cluster.nodes().await.unwrap().len(), 2);
}

async fn cluster_version(cluster: &Cluster) -> u64 {
    let answer = cluster.any().control().get_cluster(v1::GetClusterRequest {}).await.unwrap();
    answer.into_inner().cluster.unwrap().meta.unwrap().version
}

/// A false manager: proves itself with `credentials` and keeps all that it is told after that.
async fn false_manager(
    credentials: Credentials,
    clock: Arc<dyn Clock>,
) -> (String, Arc<Mutex<Vec<u8>>>, JoinSet<()>) {
    let listener = TcpListener::bind((next_ip(), 2377)).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let mut tasks = JoinSet::new();
    let kept = heard.clone();
    tasks.spawn(async move {
        let identity = TlsIdentity::new(credentials, clock).unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let Ok(mut stream) = handshake::accept(stream, &identity, LIMIT).await else { continue };
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                kept.lock().unwrap().extend_from_slice(&bytes[..n]);
            }
        }
    });
    (addr, heard, tasks)
}

#[tokio::test]
async fn the_secret_is_told_to_no_false_manager() {
    let mut cluster = Cluster::start(1, 1).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let stranger = cluster.add("s1").await;
    let token = cluster.tokens().await.worker;
    let own = cluster.hosts[0].credentials();
    let identity = own.identity().unwrap();
    let root = RootCa::create(clock.now()).unwrap();
    let grant = Grant {
        node: identity.node,
        role: Role::Manager,
        cluster: identity.cluster,
        ttl: Duration::from_secs(7200),
    };
    let other = root.credentials(NodeKey::generate().unwrap(), &grant, clock.now()).unwrap();
    // It shows the right root beside its own, but that one has not signed its certificate.
    let mut both = other.clone();
    both.roots.extend(own.roots.clone());
    // A worker of the right cluster.
    let worker = cluster.host("w1").credentials();
    for (who, credentials, words) in [
        ("another cluster's manager", other, "does not match fingerprint"),
        ("one with a borrowed root", both, ""),
        ("a worker", worker, ""),
    ] {
        let (addr, heard, _tasks) = false_manager(credentials, clock.clone()).await;
        let host = &cluster.hosts[stranger];
        let join = tokio::time::timeout(Duration::from_millis(1500), host.join(&token, &[addr])).await;
        if let Ok(answer) = join {
            let refused = answer.unwrap_err();
            assert!(refused.message().contains(words), "{who}: {refused:?}");
        }
        assert_eq!(String::from_utf8_lossy(&heard.lock().unwrap()), "", "told to {who}");
        let leave = host.local().leave(v1::LeaveRequest { force: true }).await;
        drop(leave);
        assert_eq!(host.info().await.state, "inactive", "{who}");
    }
}

#[tokio::test]
async fn two_clusters_do_not_mix() {
    let one = Cluster::start(1, 1).await;
    let mut two = Cluster::start(1, 0).await;
    let stranger = two.add("s1").await;
    // The token of one, the address of the other.
    let token = one.tokens().await.worker;
    let refused = two.hosts[stranger].join(&token, &[two.hosts[0].addr()]).await.unwrap_err();
    assert!(refused.message().contains("fingerprint"), "{refused:?}");
    assert_eq!(two.hosts[stranger].info().await.state, "inactive");
    // A node of one calls a manager of the other.
    let worker = one.host("w1").credentials();
    let clock: Arc<dyn Clock> = two.clock.clone();
    let called = wire::with_certificate(&two.hosts[0].addr(), worker.clone(), clock.clone()).await;
    assert!(called.is_err(), "the client must notice");
    // Even if the client does not care, the server does.
    let mut careless = worker;
    careless.roots.extend(two.hosts[0].credentials().roots);
    let called = wire::with_certificate(&two.hosts[0].addr(), careless, clock).await;
    assert!(called.is_err(), "the name of the server is that of another cluster");
    assert_eq!(two.nodes().await.unwrap().len(), 1);
}

/// All that is secret in a cluster, as text.
fn secrets(cluster: &Cluster, tokens: &v1::GetJoinTokensResponse) -> Vec<String> {
    let secret_of = |token: &String| token.rsplit('-').next().unwrap().to_owned();
    let mut secrets = vec![secret_of(&tokens.worker), secret_of(&tokens.manager), "PRIVATE KEY".to_owned()];
    for host in &cluster.hosts {
        let pem = host.credentials().to_pem();
        let key = pem.split("-----").nth(2).unwrap().trim().lines().next().unwrap().to_owned();
        secrets.push(key);
    }
    secrets
}

#[tokio::test]
async fn no_secret_is_answered_or_logged() {
    let mut cluster = Cluster::start(3, 1).await;
    let tokens = cluster.tokens().await;
    let version = cluster_version(&cluster).await;
    let mut control = cluster.any().control();
    let mut answers = Vec::new();
    let mut watch = control.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let rotate = v1::UpdateClusterRequest { version, rotate_manager_token: true, ..Default::default() };
    answers.push(format!("{:?}", control.update_cluster(rotate).await.unwrap()));
    let again = cluster.tokens().await;
    loop {
        let message = watch.message().await.unwrap().unwrap();
        answers.push(format!("{message:?}"));
        if let Some(Message::Event(v1::WatchEvent { object: Some(object), .. })) = message.message
            && matches!(object.object, Some(v1::object::Object::Cluster(_)))
        {
            break;
        }
    }
    let spec = Some(service("web", "nginx", 2));
    control.create_service(v1::CreateServiceRequest { spec }).await.unwrap();
    answers.push(format!("{:?}", control.get_cluster(v1::GetClusterRequest {}).await.unwrap()));
    answers.push(format!("{:?}", control.list_nodes(v1::ListNodesRequest {}).await.unwrap()));
    for host in &cluster.hosts {
        answers.push(format!("{:?}", host.info().await));
    }
    // A restart reads everything again; a failed join is complained of.
    let stranger = cluster.add("s1").await;
    let bad = JoinToken::generate(tokens.worker.parse::<JoinToken>().unwrap().digest()).unwrap().to_string();
    let addr = cluster.hosts[0].addr();
    let refused = cluster.hosts[stranger].join(&bad, &[addr]).await.unwrap_err();
    answers.push(format!("{refused:?}"));
    let gone = cluster.hosts.pop().unwrap();
    drop(gone);
    let follower = cluster.follower().await;
    cluster.host_mut(&follower).kill().await;
    cluster.host_mut(&follower).start().await;
    cluster.all_ready(4).await;

    let mut secrets = secrets(&cluster, &tokens);
    secrets.extend(self::secrets(&cluster, &again));
    secrets.push(bad.rsplit('-').next().unwrap().to_owned());
    let log = capture().text();
    assert!(log.contains("this manager leads"), "the log is kept");
    for secret in secrets {
        let told: Vec<_> = answers.iter().filter(|a| a.contains(&secret)).collect();
        assert!(told.is_empty(), "`{secret}` was answered: {told:?}");
        let logged: Vec<_> = log.lines().filter(|l| l.contains(&secret)).collect();
        assert!(logged.is_empty(), "`{secret}` was logged: {logged:?}");
    }
}

fn modes(dir: &Path, into: &mut BTreeMap<String, u32>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        into.insert(path.display().to_string(), meta.permissions().mode() & 0o7777);
        if meta.is_dir() {
            modes(&path, into);
        }
    }
}

#[tokio::test]
async fn files_are_for_root_alone_and_hold_no_secret_in_the_clear() {
    let cluster = Cluster::start(1, 1).await;
    let tokens = cluster.tokens().await;
    for host in &cluster.hosts {
        let dir = host.state_dir();
        let own = std::fs::metadata(&dir).unwrap().permissions().mode() & 0o7777;
        assert_eq!(own, 0o700, "{}", dir.display());
        let mut found = BTreeMap::new();
        modes(&dir, &mut found);
        let keys: Vec<_> = found.iter().filter(|(path, _)| path.contains("/certs")).collect();
        assert!(keys.len() >= 2, "{keys:?}");
        for (path, mode) in keys {
            let wanted = if Path::new(path).is_dir() { 0o700 } else { 0o600 };
            assert_eq!(*mode, wanted, "{path} has {mode:o}");
        }
        let secret = tokens.manager.rsplit('-').next().unwrap();
        for path in found.keys().filter(|p| Path::new(p).is_file()) {
            let content = std::fs::read(path).unwrap();
            let clear = String::from_utf8_lossy(&content);
            assert!(!clear.contains(secret), "{path} holds a token");
            assert!(path.contains("/certs/") || !clear.contains("PRIVATE KEY"), "{path} holds a key");
        }
        let socket = std::fs::metadata(host.socket()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(socket, 0o660);
    }
}

#[tokio::test]
async fn tls_below_1_3_is_refused() {
    let cluster = Cluster::start(1, 0).await;
    let roots = {
        let mut store = rustls::RootCertStore::empty();
        for root in cluster.hosts[0].credentials().roots {
            store.add(root).unwrap();
        }
        store
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let name = {
        let id = cluster.hosts[0].credentials().identity().unwrap();
        swarm_identity::ca::server_name(&id.cluster).unwrap()
    };
    for (version, accepted) in [(&rustls::version::TLS12, false), (&rustls::version::TLS13, true)] {
        let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(cluster.hosts[0].addr()).await.unwrap();
        let opened = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await;
        assert_eq!(opened.is_ok(), accepted, "{version:?}: {opened:?}");
    }
}

/// The cluster answers others while `what` goes on.
async fn still_answers(cluster: &Cluster, what: &str) {
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let asked = async {
        let own = cluster.hosts[0].credentials();
        let channel = wire::with_certificate(&cluster.hosts[0].addr(), own, clock).await.unwrap();
        wire::call(&channel, "/swarm.v1.Control/ListNodes").await
    };
    let status = tokio::time::timeout(Duration::from_secs(3), asked).await;
    assert_eq!(status.unwrap_or_else(|_| panic!("no answer: {what}")).code(), Code::Ok, "{what}");
}

#[tokio::test]
async fn garbage_and_silence_do_no_harm() {
    let cluster = Cluster::start(1, 0).await;
    let addr = cluster.hosts[0].addr();
    let mut silent = Vec::new();
    for n in 0..300_u32 {
        let mut stream = TcpStream::connect(&addr).await.unwrap();
        let bytes: Vec<u8> = match n % 4 {
            0 => Vec::new(),
            1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            // The first bytes of a handshake that never goes on.
            2 => vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
            _ => (0..2000).map(|i| u8::try_from((i * 7 + n) % 251).unwrap()).collect(),
        };
        // Who is refused at once cannot be written to.
        let _refused = stream.write_all(&bytes).await;
        silent.push(stream);
    }
    still_answers(&cluster, "300 strangers who say nothing or nonsense").await;
    // None of them is kept for long.
    for mut stream in silent {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "a connection without a handshake is kept open");
    }
    still_answers(&cluster, "after them").await;
}

#[tokio::test]
async fn strangers_with_a_handshake_are_few_and_short() {
    let cluster = Cluster::start(1, 0).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let token: JoinToken = cluster.tokens().await.worker.parse().unwrap();
    let addr = cluster.hosts[0].addr();
    let mut open = Vec::new();
    for _ in 0..200 {
        let pin = PinnedClient::new(token.digest(), &clock).unwrap();
        let stream = TcpStream::connect(&addr).await.unwrap();
        let (stream, _) = handshake::connect_pinned(stream, &pin, LIMIT).await.unwrap();
        open.push(stream);
    }
    let kept = futures::future::join_all(open.iter_mut().map(|stream| async {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
        end.is_err()
    }));
    let kept = kept.await.into_iter().filter(|open| *open).count();
    assert!((1..=64).contains(&kept), "{kept} of 200 strangers are kept");
    still_answers(&cluster, "200 strangers with a handshake").await;
    drop(open);
    eventually("who comes later is heard", || async {
        let channel = wire::without_certificate(&addr, &token, clock.clone()).await?;
        let status = wire::call(&channel, "/swarm.v1.Ca/GetRootCertificate").await;
        if status.code() == Code::Ok { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// A frame of gRPC with `size` bytes of zeros.
fn frame(size: u32) -> String {
    let mut bytes = vec![0];
    bytes.extend(size.to_be_bytes());
    bytes.resize(5 + usize::try_from(size).unwrap(), 0);
    String::from_utf8(bytes).expect("sizes of which every byte is ASCII")
}

#[tokio::test]
async fn messages_that_are_too_long_are_refused() {
    let cluster = Cluster::start(1, 0).await;
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    let token: JoinToken = cluster.tokens().await.worker.parse().unwrap();
    let addr = cluster.hosts[0].addr();
    let stranger = wire::without_certificate(&addr, &token, clock.clone()).await.unwrap();
    let size = 0x0011_0000;
    let status =
        wire::call_with(&stranger, "/swarm.v1.Ca/JoinCluster", http::HeaderMap::new(), frame(size)).await;
    assert_eq!(status.code(), Code::OutOfRange, "1 MiB from a stranger: {status:?}");
    let own = cluster.hosts[0].credentials();
    let manager = wire::with_certificate(&addr, own, clock).await.unwrap();
    let size = 0x0501_0000;
    let status =
        wire::call_with(&manager, "/swarm.v1.Control/CreateService", http::HeaderMap::new(), frame(size))
            .await;
    assert_eq!(status.code(), Code::OutOfRange, "80 MiB from a user: {status:?}");
    still_answers(&cluster, "after long messages").await;
}
