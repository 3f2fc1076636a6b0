//! The front of consensus: messages of other managers, and managers that come and go.

use std::sync::Arc;

use swarm_proto::v1;
use swarm_types::id::NodeId;
use swarm_types::node::Role;
use tonic::{Request, Response, Status, Streaming};
use v1::snapshot_request::Message;

use crate::manager::Shared;
use crate::peer::Peer;

/// Answers [`v1::raft_server::Raft`].
#[derive(Clone)]
pub struct RaftApi {
    shared: Arc<Shared>,
}

impl RaftApi {
    /// Answers for `shared`.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        RaftApi { shared }
    }

    /// A message claims to come from a member: the certificate must say the same.
    fn check_sender<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|p| p.identity.as_ref());
        peer.map(|p| p.node).ok_or_else(|| Status::unauthenticated("managers call with their certificate"))
    }

    fn must_be_manager(&self, node: &NodeId) -> Result<(), Status> {
        let view = self.shared.state.view();
        // One that is on its way out is none either.
        let is_one = view.node(node).is_some_and(|n| n.role == Role::Manager && n.spec.role == Role::Manager);
        match is_one {
            true => Ok(()),
            false => Err(Status::permission_denied(format!("node {node} is not a manager"))),
        }
    }

    fn is_member(&self, node: &NodeId, raft_id: u64) -> bool {
        let status = self.shared.raft.status();
        let known = status.members.iter().find(|m| m.member.raft_id == raft_id);
        // A manager that has just joined may not have the members yet: then it takes what it gets.
        known.is_none_or(|m| m.member.node_id == *node)
    }
}

#[tonic::async_trait]
impl v1::raft_server::Raft for RaftApi {
    async fn step(
        &self,
        request: Request<Streaming<v1::StepRequest>>,
    ) -> Result<Response<v1::StepResponse>, Status> {
        let node = self.check_sender(&request)?;
        let own = self.shared.raft.status().id;
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            if batch.to != own {
                return Err(Status::failed_precondition(format!(
                    "this is manager {own:x}, not {:x}",
                    batch.to
                )));
            }
            if !self.is_member(&node, batch.from) {
                return Err(Status::permission_denied(format!(
                    "node {node} is not manager {:x}",
                    batch.from
                )));
            }
            for message in batch.messages {
                self.shared.raft.step(message);
            }
        }
        Ok(Response::new(v1::StepResponse {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotRequest>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let node = self.check_sender(&request)?;
        let mut chunks = request.into_inner();
        let header = match chunks.message().await?.and_then(|m| m.message) {
            Some(Message::Header(header)) => header,
            Some(Message::Chunk(_)) | None => return Err(Status::invalid_argument("the header comes first")),
        };
        if !self.is_member(&node, header.from) {
            return Err(Status::permission_denied(format!("node {node} is not manager {:x}", header.from)));
        }
        self.shared.receive_snapshot(header, &mut chunks).await?;
        Ok(Response::new(v1::SnapshotResponse {}))
    }

    async fn join_group(
        &self,
        request: Request<v1::JoinGroupRequest>,
    ) -> Result<Response<v1::JoinGroupResponse>, Status> {
        // Passed on by another manager, the connection is that manager's: it is trusted to have checked.
        let caller = self.check_sender(&request)?;
        let forwarded = request.metadata().contains_key(crate::forward::FORWARDED);
        let request = request.into_inner();
        let node: NodeId =
            request.node_id.parse().map_err(|_| Status::invalid_argument("node_id: malformed"))?;
        if node != caller && !forwarded {
            return Err(Status::permission_denied("a node joins for itself"));
        }
        self.must_be_manager(&node)?;
        let raft_id = self.shared.add_member(node, request.addr, request.raft_id).await?;
        // It may have been demoted while the change was on its way. Then it must not begin; the leader's
        // role loop takes it out of the group again.
        self.must_be_manager(&node)?;
        let status = self.shared.raft.status();
        let members = status.members.iter().map(|m| member_out(&m.member)).collect();
        Ok(Response::new(v1::JoinGroupResponse { raft_id, members }))
    }

    async fn leave_group(
        &self,
        request: Request<v1::LeaveGroupRequest>,
    ) -> Result<Response<v1::LeaveGroupResponse>, Status> {
        let node = self.check_sender(&request)?;
        let status = self.shared.raft.status();
        let raft_id = request.into_inner().raft_id;
        let own = status.members.iter().any(|m| m.member.raft_id == raft_id && m.member.node_id == node);
        if !own {
            return Err(Status::permission_denied("a manager leaves for itself"));
        }
        self.shared.remove_member(raft_id).await?;
        Ok(Response::new(v1::LeaveGroupResponse {}))
    }
}

fn member_out(member: &swarm_manager_raft::Member) -> v1::Member {
    v1::Member {
        raft_id: member.raft_id,
        node_id: member.node_id.to_string(),
        addr: member.address.clone(),
        learner: member.role == swarm_manager_raft::MemberRole::Learner,
    }
}
