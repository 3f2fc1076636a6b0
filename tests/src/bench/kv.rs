//! The few messages of etcd's API that a write takes (`etcdserverpb`, field numbers as published), so
//! that one client measures both: etcd, and our log behind the same call.

use anyhow::{Context, Result};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct PutResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, Copy, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A client with a connection of its own.
#[derive(Clone)]
pub(crate) struct Client(Channel);

impl Client {
    /// Connects when it is used.
    pub(crate) fn at(addr: &str) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).context("an address")?;
        Ok(Client(endpoint.tcp_nodelay(true).connect_lazy()))
    }

    pub(crate) async fn put(&self, key: String, value: Vec<u8>) -> Result<(), tonic::Status> {
        let request = PutRequest { key: key.into_bytes(), value };
        let _answer: PutResponse = self.call(PUT, request).await?;
        Ok(())
    }

    /// Whether an etcd member leads.
    pub(crate) async fn leads(&self) -> Result<bool, tonic::Status> {
        let status: StatusResponse = self.call(STATUS, StatusRequest {}).await?;
        Ok(status.header.is_some_and(|header| header.member_id == status.leader))
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, tonic::Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }
}
