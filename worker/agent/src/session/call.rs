//! The calls that a session makes beside its stream.

use std::time::Duration;

use swarm_proto::{LEADER_METADATA, v1};
use swarm_types::defaults;
use swarm_types::id::{SessionId, TaskId};
use swarm_types::task::TaskStatus;
use swarm_types::task_state::TaskState;
use swarm_worker_core::networks::NetworkReport;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use v1::dispatcher_client::DispatcherClient;

use super::{CALL_TIMEOUT, SessionError};

/// A heartbeat that takes longer than this, and than two periods, ends the session.
const MIN_HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn period(ms: u64) -> Duration {
    if ms == 0 { defaults::HEARTBEAT_PERIOD } else { Duration::from_millis(ms) }
}

/// An answer that is an error: perhaps it names the leader.
pub(super) fn refused(call: &'static str, addr: &str, status: Status) -> SessionError {
    let leader = status.metadata().get(LEADER_METADATA).and_then(|v| v.to_str().ok());
    match leader.filter(|l| !l.is_empty() && *l != addr) {
        Some(leader) => SessionError::Redirected { addr: addr.into(), leader: leader.into() },
        None => SessionError::Call { call, addr: addr.into(), status: Box::new(status) },
    }
}

/// Sends heartbeats until one fails.
pub(super) async fn heart(
    mut client: DispatcherClient<Channel>,
    session: SessionId,
    addr: String,
    mut period_watch: watch::Receiver<Duration>,
) -> SessionError {
    let call = "heartbeat";
    let mut every = *period_watch.borrow_and_update();
    let mut next = tokio::time::Instant::now() + every;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            Ok(()) = period_watch.changed() => {
                every = *period_watch.borrow_and_update();
                next = next.min(tokio::time::Instant::now() + every);
                continue;
            }
        }
        next = tokio::time::Instant::now() + every;
        let request = v1::HeartbeatRequest { session_id: session.to_string() };
        let patience = (every * 2).max(MIN_HEARTBEAT_TIMEOUT);
        match timeout(patience, client.heartbeat(request)).await {
            Ok(Ok(answer)) => {
                let ms = answer.into_inner().period_ms;
                if ms > 0 {
                    every = period(ms);
                }
            }
            Ok(Err(status)) => return refused(call, &addr, status),
            Err(_) => return SessionError::CallTimeout { call, addr },
        }
    }
}

pub(super) async fn report(
    mut client: DispatcherClient<Channel>,
    session_id: String,
    addr: String,
    statuses: Vec<(TaskId, TaskStatus)>,
) -> Result<Vec<(TaskId, TaskState)>, SessionError> {
    let call = "report statuses";
    let update = |(id, status): &(TaskId, TaskStatus)| v1::TaskStatusUpdate {
        task_id: id.to_string(),
        status: Some(status.into()),
    };
    let updates = statuses.iter().map(update).collect();
    let request = v1::UpdateTaskStatusRequest { session_id, updates };
    match timeout(CALL_TIMEOUT, client.update_task_status(request)).await {
        Ok(Ok(_)) => Ok(statuses.into_iter().map(|(id, status)| (id, status.state)).collect()),
        Ok(Err(status)) => Err(refused(call, &addr, status)),
        Err(_) => Err(SessionError::CallTimeout { call, addr }),
    }
}

pub(super) async fn report_networks(
    mut client: DispatcherClient<Channel>,
    session_id: String,
    addr: String,
    report: NetworkReport,
) -> Result<(), SessionError> {
    let call = "report networks";
    let request = v1::UpdateNetworkStatusRequest {
        session_id,
        applied: report.applied,
        problems: report.problems.iter().map(Into::into).collect(),
        description: report.description.as_ref().map(Into::into),
    };
    match timeout(CALL_TIMEOUT, client.update_network_status(request)).await {
        Ok(Ok(_)) => Ok(()),
        // A manager from before there were networks: it does not want to know.
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
        Ok(Err(status)) => Err(refused(call, &addr, status)),
        Err(_) => Err(SessionError::CallTimeout { call, addr }),
    }
}
