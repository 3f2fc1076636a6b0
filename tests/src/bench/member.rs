//! One of three managers that keep a log and do nothing else: the shipped consensus and transport, in
//! a process of its own, with etcd's `Put` in front of it.
//!
//! Without TLS, as etcd beside it. `bench log-member ID DIR OWN-ADDR [OTHER-ADDR…]`: the member 1 founds
//! the cluster and adds the others, telling their ids on its standard output; the others are started
//! with the id and the founder's address.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use swarm_manager_raft::members::{Member, MemberRole};
use swarm_manager_raft::node::{Response, RestoreError, SnapshotSource};
use swarm_manager_raft::{DataKey, RaftHandle, RaftNode, Settings, StateMachine};
use swarm_manager_server::serve::calls;
use swarm_manager_server::transport::GrpcTransport;
use swarm_manager_server::{Peer, Peers, serve_connection};
use swarm_proto::v1;
use swarm_types::id::{NodeId, Seed};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::kv::{PUT, PutRequest, PutResponse};

pub(crate) const WORD: &str = "log-member";

pub(crate) async fn run(words: &[String]) -> Result<()> {
    let [id, dir, own, others @ ..] = words else { bail!("log-member ID DIR OWN-ADDR [OTHER-ADDR…]") };
    let id: u64 = id.parse().context("an id")?;
    let founder = id == 1;
    let settings = if founder {
        Settings::found(node(1), own.clone(), Seed(1))
    } else {
        let founder = others.first().context("the founder's address")?.clone();
        let known = vec![Member { raft_id: 1, node_id: node(1), address: founder, role: MemberRole::Voter }];
        Settings { known, ..Settings::new(id, Seed(id)) }
    };
    let transport = GrpcTransport::new(Arc::new(Plain), id);
    let key = DataKey::new([1; 32]);
    let raft = RaftNode::start(settings, Path::new(dir), key, Box::new(Values::default()), transport.clone())
        .context("start consensus")?;
    transport.attach(&raft);
    let listener = TcpListener::bind(own).await.with_context(|| format!("listen on {own}"))?;
    let routes =
        Routes::new(v1::raft_server::RaftServer::new(Steps(raft.clone()))).add_service(Kv(raft.clone()));
    let mut work = JoinSet::new();
    if founder {
        work.spawn(grow(raft, others.to_vec()));
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept")?;
                stream.set_nodelay(true).context("accept")?;
                let calls = calls(routes.clone());
                work.spawn(async move {
                    // a client that hangs up is no failure
                    serve_connection(stream, Peer::local(), calls).await.ok();
                    Ok(())
                });
            }
            Some(ended) = work.join_next() => ended.context("a connection")??,
        }
    }
}

fn node(number: u64) -> NodeId {
    NodeId::new(format!("n{number}"))
}

/// The founder adds the others, one after the other.
async fn grow(raft: RaftHandle, others: Vec<String>) -> Result<()> {
    let mut watch = raft.watch();
    watch.wait_for(|status| status.is_leader()).await.context("lead")?;
    for (n, addr) in others.into_iter().enumerate() {
        let node = node(n as u64 + 2);
        let member = raft.add_member(node, addr).await.context("add a member")?;
        say(&member.raft_id.to_string())?;
        let votes = |status: &swarm_manager_raft::node::Status| {
            let found = status.members.iter().find(|m| m.member.raft_id == member.raft_id);
            found.is_some_and(|m| m.member.role == MemberRole::Voter)
        };
        watch.wait_for(votes).await.context("wait for a vote")?;
    }
    say("whole")
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("tell the parent")
}

/// Channels without TLS.
struct Plain;

impl Peers for Plain {
    fn channel(&self, addr: &str, _: Option<NodeId>) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{addr}"));
        endpoint.expect("the parent gives proper addresses").tcp_nodelay(true).connect_lazy()
    }
}

/// What was put, as etcd holds it: in memory, by key.
#[derive(Default)]
struct Values(BTreeMap<Vec<u8>, Bytes>);

impl StateMachine for Values {
    fn apply(&mut self, _: u64, _: u64, data: &[u8]) -> Response {
        if let Some((key, value)) = data.split_at_checked(8) {
            self.0.insert(key.to_vec(), Bytes::copy_from_slice(value));
        }
        Box::new(())
    }
    fn snapshot(&mut self) -> Box<dyn SnapshotSource> {
        Box::new(Values(self.0.clone()))
    }
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), RestoreError> {
        io::copy(from, &mut io::sink())?;
        Ok(())
    }
}

impl SnapshotSource for Values {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|(key, value)| out.write_all(key).and_then(|()| out.write_all(value)))
    }
}

/// The other managers' messages.
struct Steps(RaftHandle);

#[tonic::async_trait]
impl v1::raft_server::Raft for Steps {
    async fn step(
        &self,
        request: Request<Streaming<v1::StepRequest>>,
    ) -> Result<tonic::Response<v1::StepResponse>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            batch.messages.into_iter().for_each(|message| self.0.step(message));
        }
        Ok(tonic::Response::new(v1::StepResponse {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotRequest>>,
    ) -> Result<tonic::Response<v1::SnapshotResponse>, Status> {
        use v1::snapshot_request::Message;
        let failed = |e: &dyn std::fmt::Display| Status::internal(e.to_string());
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|m| m.message);
        let Some(Message::Header(header)) = first else { return Err(failed(&"no header")) };
        let mut incoming = self.0.receive_snapshot(header.message).map_err(|e| failed(&e))?;
        while let Some(next) = chunks.message().await? {
            if let Some(Message::Chunk(chunk)) = next.message {
                incoming.write_all(&chunk).map_err(|e| failed(&e))?;
            }
        }
        incoming.finish().map_err(|e| failed(&e))?;
        Ok(tonic::Response::new(v1::SnapshotResponse {}))
    }

    async fn join_group(
        &self,
        _: Request<v1::JoinGroupRequest>,
    ) -> Result<tonic::Response<v1::JoinGroupResponse>, Status> {
        Err(Status::unimplemented("the founder adds members"))
    }

    async fn leave_group(
        &self,
        _: Request<v1::LeaveGroupRequest>,
    ) -> Result<tonic::Response<v1::LeaveGroupResponse>, Status> {
        Err(Status::unimplemented("members stay"))
    }
}

/// etcd's `Put`, answered when the entry is committed and applied.
#[derive(Clone)]
struct Kv(RaftHandle);

impl NamedService for Kv {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl tower::Service<http::Request<Body>> for Kv {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let put = Put(self.0.clone());
        Box::pin(async move {
            if request.uri().path() != PUT {
                return Ok(Status::unimplemented("only Put").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<PutResponse, PutRequest>::default());
            Ok(grpc.unary(put, request).await)
        })
    }
}

struct Put(RaftHandle);

impl UnaryService<PutRequest> for Put {
    type Response = PutResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<PutResponse>, Status>>;

    fn call(&mut self, request: Request<PutRequest>) -> Self::Future {
        let raft = self.0.clone();
        Box::pin(async move {
            let PutRequest { mut key, value } = request.into_inner();
            key.extend(value);
            raft.propose(key).await.map_err(|e| Status::unavailable(e.to_string()))?;
            Ok(tonic::Response::new(PutResponse::default()))
        })
    }
}
