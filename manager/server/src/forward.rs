//! A manager that does not lead passes calls on to the one that does: as they are, without knowing
//! what is in them, streams and all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderValue;
use http_body_util::{BodyExt, Full, Limited};
use swarm_proto::{LEADER_METADATA, MAX_MESSAGE_BYTES};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use crate::gate::{Keeper, Request, Response};

/// Marks a call that was passed on once: it is not passed on again.
pub(crate) const FORWARDED: &str = "swarm-forwarded";
/// How long a call waits for an election to end.
const ELECTION_PATIENCE: Duration = Duration::from_secs(5);

/// A call that only reads is asked again for so long, with a pause between.
const READ_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// Longest request to the certificate authority that is passed on.
const CA_BYTES: usize = 64 << 10;

/// Calls that only the leader can answer; all others are answered where they arrive.
const LEADERS: [&str; 3] = ["/swarm.v1.Control/", "/swarm.v1.Ca/JoinCluster", "/swarm.v1.Raft/JoinGroup"];

/// Where calls should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This manager leads.
    Here,
    /// `host:port` of the leader.
    There(String),
    /// There is no leader: why.
    Nowhere(String),
}

/// Knows who leads.
pub trait Leadership: Send + Sync + 'static {
    /// Where calls should go now; waits for at most `patience` while nobody leads.
    fn target(&self, patience: Duration) -> BoxFuture<'_, Target>;
    /// Returns when another manager than the one at `addr` leads.
    fn moved_from<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, ()>;
    /// A channel to another manager.
    fn channel(&self, addr: &str) -> Channel;
}

/// Passes on what only the leader can answer, as `leadership` says.
#[derive(Clone)]
pub(crate) struct Forward {
    pub(crate) leadership: Arc<dyn Leadership>,
}

impl Keeper for Forward {
    async fn answer<S>(self, mut service: S, request: Request) -> Result<Response, S::Error>
    where
        S: Service<Request, Response = Response, Future: Send, Error: Send> + Send,
    {
        let path = request.uri().path();
        match LEADERS.iter().any(|prefix| path.starts_with(prefix)) {
            true => route(service, self.leadership, request).await,
            false => service.call(request).await,
        }
    }
}

async fn route<S>(
    mut inner: S,
    leadership: Arc<dyn Leadership>,
    request: Request,
) -> Result<Response, S::Error>
where
    S: Service<Request, Response = Response>,
{
    let forwarded = request.headers().contains_key(FORWARDED);
    let mut request = match Attempts::of(request).await {
        Ok(attempts) => attempts,
        Err(refusal) => return Ok(refusal.into_http()),
    };
    loop {
        let (addr, response) = match leadership.target(ELECTION_PATIENCE).await {
            Target::Here => return inner.call(request.next()).await,
            Target::There(addr) if forwarded => return Ok(not_leader(&addr).into_http()),
            Target::There(addr) => {
                let channel = leadership.channel(&addr);
                let response = tokio::select! {
                    response = pass_on(&channel, &addr, request.next()) => response,
                    // A leader that lost its power does not even refuse: its successor is heard first.
                    () = leadership.moved_from(&addr) => Err(Lost { status: leader_changed(), sent: true }),
                };
                (addr, response)
            }
            Target::Nowhere(why) => return Ok(Status::unavailable(why).into_http()),
        };
        match response {
            Ok(response) => return Ok(response),
            Err(lost) if !request.may_repeat(lost.sent) => return Ok(lost.status.into_http()),
            Err(lost) => tracing::debug!(leader.addr = addr, error = %lost.status, "asking again"),
        }
        // The old leader may still be thought to lead for a moment.
        tokio::time::sleep(PAUSE).await;
    }
}

/// A call that was not answered.
struct Lost {
    status: Status,
    /// The leader may have got it.
    sent: bool,
}

/// A call that is passed on: more than once if it only reads, or if it did not get there.
struct Attempts {
    reads: bool,
    whole: Option<Request>,
    kept: Option<(http::request::Parts, Bytes)>,
    until: Instant,
}

impl Attempts {
    /// Keeps the bytes of all calls but those that stream: they are small.
    async fn of(request: Request) -> Result<Attempts, Status> {
        let until = Instant::now() + READ_PATIENCE;
        let rpc = request.uri().path().rsplit('/').next().unwrap_or_default();
        let reads = rpc.starts_with("Get") || rpc.starts_with("List");
        if rpc == "LoadImage" {
            return Ok(Attempts { reads, whole: Some(request), kept: None, until });
        }
        let (parts, body) = request.into_parts();
        // Strangers may call the authority only, and have little to say.
        let limit = if parts.uri.path().starts_with("/swarm.v1.Ca/") { CA_BYTES } else { MAX_MESSAGE_BYTES };
        let bytes = Limited::new(body, limit).collect().await;
        let bytes = bytes.map_err(|e| Status::out_of_range(format!("read the request: {e}")))?.to_bytes();
        Ok(Attempts { reads, whole: None, kept: Some((parts, bytes)), until })
    }

    fn may_repeat(&self, sent: bool) -> bool {
        self.kept.is_some() && (self.reads || !sent) && Instant::now() < self.until
    }

    fn next(&mut self) -> Request {
        match (&self.kept, self.whole.take()) {
            (Some((parts, bytes)), _) => {
                http::Request::from_parts(parts.clone(), Body::new(Full::new(bytes.clone())))
            }
            (None, Some(request)) => request,
            (None, None) => unreachable!("a call that is not kept is made once"),
        }
    }
}

async fn pass_on(channel: &Channel, addr: &str, mut request: Request) -> Result<Response, Lost> {
    request.headers_mut().insert(FORWARDED, HeaderValue::from_static("1"));
    // What this connection proved says nothing to the next.
    request.extensions_mut().clear();
    channel.clone().oneshot(request).await.map_err(|e| {
        let cause = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
        let status = Status::unavailable(format!("pass the call on to the leader at {addr}: {e}{cause}"));
        Lost { status, sent: !was_refused(&e) }
    })
}

/// Nobody listened there: the call cannot have arrived.
fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        let io = e.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = e.source();
    }
    false
}

fn leader_changed() -> Status {
    Status::unavailable(
        "the leader changed before it answered: it is not known whether the command was carried out; \
         look, and give it again if it was not",
    )
}

/// The answer of a manager that does not lead to a call that it does not pass on.
pub fn not_leader(leader: &str) -> Status {
    let mut status = Status::failed_precondition("this manager is not the leader");
    if let Ok(value) = leader.parse() {
        status.metadata_mut().insert(LEADER_METADATA, value);
    }
    status
}
