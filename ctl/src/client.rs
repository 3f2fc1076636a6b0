//! The connection to a daemon, and the words for what it answers when it says no.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_identity::credentials::Credentials;
use swarm_identity::handshake;
use swarm_identity::tls::TlsIdentity;
use swarm_proto::v1;
use swarm_proto::v1::control_client::ControlClient;
use swarm_proto::v1::local_node_client::LocalNodeClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::endpoint::{Globals, Target};
use crate::error::{Failure, Outcome, chain};
use crate::system::SystemClock;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A daemon that does not say within this what it is (it may be frozen) is passed over.
const INFO_LIMIT: Duration = Duration::from_secs(2);
/// Lists of many tasks are long.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// A connection to one daemon. It is made again by itself when it breaks.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to the daemon that the flags choose.
    pub(crate) async fn connect(globals: &Globals) -> Outcome<Client> {
        Client::to(&globals.target()?).await
    }

    /// Connects to a target. Of several local daemons the first manager is taken: roles change.
    pub(crate) async fn to(target: &Target) -> Outcome<Client> {
        let urls: Vec<&str> = target.url.split(',').map(str::trim).collect();
        if urls.len() < 2 || !urls.iter().all(|url| url.starts_with("unix://")) {
            return Client::to_first(target).await;
        }
        let mut answered = None;
        let mut refused = None;
        for url in urls {
            let one = Target { url: url.to_owned(), credentials: None };
            match Client::to_first(&one).await {
                Ok(client) if client.is_manager().await => return Ok(client),
                Ok(client) => answered = answered.or(Some(client)),
                Err(e) => refused = Some(e),
            }
        }
        answered.ok_or_else(|| refused.unwrap_or_else(|| Failure::Usage("no daemon is named".into())))
    }

    async fn is_manager(&self) -> bool {
        let mut local = self.local();
        let asked = tokio::time::timeout(INFO_LIMIT, local.info(v1::InfoRequest {})).await;
        asked.is_ok_and(|answer| answer.is_ok_and(|info| info.into_inner().is_manager))
    }

    /// Connects to the first address that answers.
    async fn to_first(target: &Target) -> Outcome<Client> {
        let dialer = Arc::new(Dialer::new(target)?);
        let connector = tower::service_fn(move |_| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.dial().await.map(TokioIo::new) }
        });
        // The name is never looked up: the connector knows where to go.
        let channel = Endpoint::from_static("http://swarmd").connect_with_connector(connector).await;
        Ok(Client { channel: channel.map_err(|e| unreachable(&target.url, &e))? })
    }

    /// The managers' API.
    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
    /// The API of the daemon on this machine.
    pub(crate) fn local(&self) -> LocalNodeClient<Channel> {
        LocalNodeClient::new(self.channel.clone())
    }

    /// Id of the node that we talk to; none if it does not say (a remote manager).
    pub(crate) async fn own_node(&self) -> Option<String> {
        let info = self.local().info(v1::InfoRequest {}).await.ok()?.into_inner();
        Some(info.node_id).filter(|id| !id.is_empty())
    }
    /// `self` as the id of the node that we talk to; anything else as it is.
    pub(crate) async fn node_reference(&self, reference: &str) -> Outcome<String> {
        if reference != "self" {
            return Ok(reference.to_owned());
        }
        let id = self.own_node().await;
        id.ok_or_else(|| Failure::Refused("`self`: this node is not part of a swarm, or not local".into()))
    }
}

enum Address {
    Unix(PathBuf),
    Tcp(String, Arc<TlsIdentity>),
}

struct Dialer {
    addresses: Vec<Address>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    fn new(target: &Target) -> Outcome<Dialer> {
        let mut identity = None;
        let mut addresses = Vec::new();
        for url in target.url.split(',').map(str::trim) {
            if let Some(path) = url.strip_prefix("unix://") {
                addresses.push(Address::Unix(path.into()));
            } else if let Some(host) = url.strip_prefix("tcp://") {
                let identity = match &identity {
                    Some(known) => Arc::clone(known),
                    None => Arc::clone(identity.insert(load(target.credentials.as_deref(), url)?)),
                };
                let port = host.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
                let default = swarm_types::defaults::LISTEN_PORT;
                addresses.push(Address::Tcp(
                    if port { host.into() } else { format!("{host}:{default}") },
                    identity,
                ));
            } else {
                return Err(Failure::Usage(format!("`{url}` is neither unix:///PATH nor tcp://HOST:PORT")));
            }
        }
        Ok(Dialer { addresses })
    }

    /// The first address that answers.
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        let mut last = std::io::Error::other("no address");
        for address in &self.addresses {
            match tokio::time::timeout(CONNECT_LIMIT, address.dial()).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = e,
                Err(_) => last = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 5s"),
            }
        }
        Err(last)
    }
}

impl Address {
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp(host, identity) => {
                let stream = TcpStream::connect(host).await?;
                stream.set_nodelay(true)?;
                let connected = handshake::connect(stream, identity, CONNECT_LIMIT).await;
                let (stream, _) = connected.map_err(|e| std::io::Error::other(chain(&e)))?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn load(file: Option<&Path>, url: &str) -> Outcome<Arc<TlsIdentity>> {
    let Some(file) = file else {
        return Err(Failure::Usage(format!(
            "{url} needs a context with a certificate: `swarmctl context import`"
        )));
    };
    let text =
        std::fs::read_to_string(file).map_err(|e| Failure::io(format!("read {}", file.display()), &e))?;
    let bad = |e: &dyn std::error::Error| Failure::Refused(format!("use {}: {}", file.display(), chain(e)));
    let credentials = Credentials::from_pem(&text).map_err(|e| bad(&e))?;
    Ok(Arc::new(TlsIdentity::new(credentials, Arc::new(SystemClock)).map_err(|e| bad(&e))?))
}

fn unreachable(url: &str, error: &tonic::transport::Error) -> Failure {
    let why = chain(error).replace("transport error: ", "");
    let hint = match (url.starts_with("unix://"), why.contains("ermission denied")) {
        (true, true) => "Run it as root, or join the group `swarm`.",
        (true, false) => {
            "Is it running? Try `systemctl status swarmd`, or name another with --host or --context."
        }
        (false, _) => "Is a manager running there, and does a firewall let port 2377 through?",
    };
    Failure::Refused(format!("Cannot connect to swarmd at {url}: {why}. {hint}"))
}

impl From<Status> for Failure {
    /// The only place where a status becomes words.
    fn from(status: Status) -> Self {
        let text = match status.message() {
            "" => status.code().description().to_owned(),
            text => text.to_owned(),
        };
        match status.code() {
            Code::NotFound => Failure::NotFound(text),
            Code::Aborted => Failure::Stale(text),
            Code::Unimplemented if status.message().is_empty() || text.contains("nimplemented") => {
                Failure::Refused(
                    "This node does not serve this call: it is not a swarm manager, or of another version. Use a \
                     manager: --host, --context, or `swarmctl node promote` on a manager."
                        .into(),
                )
            }
            Code::Unavailable => Failure::Refused(format!(
                "{text}. Nothing is known to have changed; try again, and see `swarmctl info` if it goes on."
            )),
            Code::DeadlineExceeded => Failure::Refused(format!("no answer in time: {text}")),
            Code::PermissionDenied | Code::Unauthenticated => Failure::Refused(format!("not allowed: {text}")),
            Code::Internal | Code::Unknown | Code::DataLoss => {
                Failure::Refused(format!("the daemon failed: {text} (its log says more)"))
            }
            _ => Failure::Refused(text),
        }
    }
}

/// Calls again when another writer was faster: a change that is relative to what is stored now.
pub(crate) const UPDATE_TRIES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_is_said_with_advice() {
        let target = Target { url: "unix:///nonexistent/s.sock".into(), credentials: None };
        let text = Client::to(&target).await.err().unwrap().to_string();
        assert!(text.starts_with("Cannot connect to swarmd at unix:///nonexistent/s.sock: "), "{text}");
        assert!(text.contains("No such file") && text.contains("systemctl status swarmd"), "{text}");
        let target = Target { url: "ftp://x".into(), credentials: None };
        assert_eq!(Client::to(&target).await.err().unwrap().exit_code(), 2);
    }

    #[test]
    fn statuses_have_words() {
        let words = |status: Status| Failure::from(status).to_string();
        assert_eq!(words(Status::not_found("no such service: x")), "no such service: x");
        assert!(words(Status::unimplemented("")).contains("not a swarm manager"));
        assert!(words(Status::unavailable("no leader")).starts_with("no leader. Nothing"));
    }
}
