//! Names of the world: asked of the host's resolvers, from the host's own place in the network.
//!
//! One question on its way for all who ask the same; answers are kept for a short while. Sockets are
//! opened by whichever thread runs this, which is in the daemon's network namespace.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use swarm_types::network_set::NetworkProblem;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use crate::message::Request;
use crate::resolv_conf::{ResolvConf, is_dockers};
use crate::server::{Settings, lock};
use crate::upstream;
use crate::wire::Relayed;
use crate::world::World;

/// A server has so long to answer. libc gives up on us after 5 s and asks again, and then the answer
/// is on its way already.
const PATIENCE: Duration = Duration::from_secs(2);
/// All servers are asked so often.
const ROUNDS: usize = 2;
/// A server that did not answer is asked last for so long.
const SHUN: Duration = Duration::from_secs(30);
/// A question that nobody answered is not asked again for so long.
const KEEP_FAILURE: Duration = Duration::from_secs(1);
/// A failure is a problem to be told of for so long, unless something is answered before.
const KEEP_PROBLEM: Duration = Duration::from_secs(60);
/// Most answers kept, and questions on their way.
const MAX_KEPT: usize = 1024;

/// What is asked of another server: what makes two questions the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Lower case.
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) class: DNSClass,
    /// See [`Request::edns`].
    pub(crate) edns: Option<bool>,
    pub(crate) recursion: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) authentic_data: bool,
}

impl Question {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            name: request.query.name.to_lowercase(),
            kind: request.query.query_type,
            class: request.query.query_class,
            edns: request.edns,
            recursion: request.metadata.recursion_desired,
            checking_disabled: request.metadata.checking_disabled,
            authentic_data: request.metadata.authentic_data,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
struct Outcome {
    /// None: nobody answered.
    answer: Option<Relayed>,
    at: Instant,
    until: Instant,
}

impl Outcome {
    fn to(&self, request: &Request, now: Instant) -> Vec<u8> {
        match &self.answer {
            Some(answer) => answer.to(request, now.duration_since(self.at)),
            None => request.error(ResponseCode::ServFail),
        }
    }
}

/// Asks the host's resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    world: Arc<ArcSwap<World>>,
    kept: Mutex<HashMap<Question, Arc<OnceCell<Outcome>>>>,
    upstreams: Mutex<Upstreams>,
    limits: (usize, usize),
    under_way: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

#[derive(Debug)]
struct Upstreams {
    conf: ResolvConf,
    shunned: HashMap<SocketAddr, Instant>,
    answered: Option<Instant>,
    failed: Option<(Instant, String)>,
}

/// The right to have one more question on its way.
#[derive(Debug)]
pub(crate) struct Permit {
    of: Arc<Forwarder>,
    source: IpAddr,
}

impl Forwarder {
    pub(crate) fn new(settings: &Settings, world: Arc<ArcSwap<World>>) -> Self {
        let conf = ResolvConf::new(settings.resolv_conf.clone(), settings.upstream_port);
        Self {
            world,
            kept: Mutex::default(),
            upstreams: Mutex::new(Upstreams { conf, shunned: HashMap::new(), answered: None, failed: None }),
            limits: (settings.forwards, settings.forwards_per_source),
            under_way: Mutex::default(),
        }
    }

    /// The answer, if it is known.
    pub(crate) fn known(&self, request: &Request, now: Instant) -> Option<Vec<u8>> {
        let cell = lock(&self.kept).get(&Question::new(request)).cloned()?;
        cell.get().filter(|outcome| outcome.until > now).map(|outcome| outcome.to(request, now))
    }

    /// Room for one more question of `source`; none: it, or all together, have too many on their way.
    pub(crate) fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Permit> {
        let mut under_way = lock(&self.under_way);
        let (all, sources) = &mut *under_way;
        let own = sources.get(&source).copied().unwrap_or(0);
        if *all >= self.limits.0 || own >= self.limits.1 {
            return None;
        }
        *all += 1;
        sources.insert(source, own + 1);
        Some(Permit { of: self.clone(), source })
    }

    /// Asks, or waits for the answer that somebody else asked for.
    pub(crate) async fn resolve(&self, request: &Request, _permit: &Permit) -> Vec<u8> {
        let question = Question::new(request);
        let cell = self.cell(&question, Instant::now());
        let outcome = cell.get_or_init(|| self.ask(&question)).await;
        outcome.to(request, Instant::now())
    }

    /// The place of a question's answer: one that is there or awaited, or a new one.
    fn cell(&self, question: &Question, now: Instant) -> Arc<OnceCell<Outcome>> {
        let mut kept = lock(&self.kept);
        let is_fresh = |cell: &OnceCell<Outcome>| cell.get().is_none_or(|outcome| outcome.until > now);
        if let Some(cell) = kept.get(question).filter(|cell| is_fresh(cell)) {
            return cell.clone();
        }
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, cell| is_fresh(cell));
        }
        if kept.len() >= MAX_KEPT {
            // more names than we keep, all of them fresh: a flood, or as good as one
            kept.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        let cell = Arc::new(OnceCell::new());
        kept.insert(question.clone(), cell.clone());
        cell
    }

    async fn ask(&self, question: &Question) -> Outcome {
        let start = Instant::now();
        let servers = self.servers(start);
        let (mut refusal, mut last) = (None, None);
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match upstream::ask(*server, question, PATIENCE).await {
                Ok(answer) => {
                    self.note_answer(*server);
                    if [ResponseCode::NoError, ResponseCode::NXDomain].contains(&answer.code()) {
                        return outcome(Some(answer));
                    }
                    refusal = Some(answer); // another may know better
                }
                Err(error) => {
                    lock(&self.upstreams).shunned.insert(*server, Instant::now() + SHUN);
                    last = Some((*server, error));
                }
            }
            if refusal.is_some() && servers.len() == 1 {
                break; // it has answered; asked again it would say the same
            }
        }
        if refusal.is_none() {
            self.note_failure(start, &servers, last);
        }
        outcome(refusal)
    }

    /// Whom to ask, in this order: those that answer first.
    fn servers(&self, now: Instant) -> Vec<SocketAddr> {
        let world = self.world.load();
        let mut upstreams = lock(&self.upstreams);
        let servers = upstreams.conf.servers(now).iter();
        let others = servers.filter(|s| !world.gateways.contains(&s.ip()) && !is_dockers(s.ip()));
        let mut servers: Vec<SocketAddr> = others.copied().collect();
        upstreams.shunned.retain(|_, until| *until > now);
        servers.sort_by_key(|server| upstreams.shunned.contains_key(server));
        servers
    }

    fn note_answer(&self, server: SocketAddr) {
        let mut upstreams = lock(&self.upstreams);
        upstreams.answered = Some(Instant::now());
        upstreams.shunned.remove(&server);
        if upstreams.failed.take().is_some() {
            info!(server.address = %server, "a resolver of the host answers again");
        }
    }

    fn note_failure(&self, start: Instant, servers: &[SocketAddr], last: Option<(SocketAddr, io::Error)>) {
        let mut upstreams = lock(&self.upstreams);
        if upstreams.answered.is_some_and(|at| at >= start) {
            return; // others were answered meanwhile: it is about this question
        }
        let path = upstreams.conf.path().display().to_string();
        let text = match last {
            None => format!(
                "{path} names no resolver that could be asked: tasks cannot look up names outside the \
                 cluster; add a `nameserver` line with the address of one"
            ),
            Some((server, error)) => {
                let all: Vec<String> = servers.iter().map(|s| s.ip().to_string()).collect();
                let all = all.join(", ");
                format!(
                    "no resolver of {path} ({all}) answers: tasks cannot look up names outside the cluster; \
                     the last one, {}, said: {error}; check that it runs and can be reached from this node",
                    server.ip()
                )
            }
        };
        if upstreams.failed.is_none() {
            warn!(reason = text, "names of the world cannot be looked up");
        }
        upstreams.failed = Some((Instant::now(), text));
    }

    /// The resolvers are down, or there are none.
    pub(crate) fn problem(&self, now: Instant) -> Option<NetworkProblem> {
        let upstreams = lock(&self.upstreams);
        let (at, text) = upstreams.failed.as_ref()?;
        let is_recent = now.duration_since(*at) < KEEP_PROBLEM;
        is_recent.then(|| NetworkProblem { subject: "resolver".into(), text: text.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut under_way = lock(&self.of.under_way);
        let (all, sources) = &mut *under_way;
        *all -= 1;
        if let Some(own) = sources.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

fn outcome(answer: Option<Relayed>) -> Outcome {
    let at = Instant::now();
    let is_answer = |a: &&Relayed| [ResponseCode::NoError, ResponseCode::NXDomain].contains(&a.code());
    let ttl = answer.as_ref().filter(is_answer).map_or(KEEP_FAILURE, |answer| answer.ttl);
    Outcome { answer, at, until: at + ttl }
}
