//! One operation of one task, through the executor, until it is done or dropped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use swarm_types::id::TaskId;
use swarm_types::task::Task;
use swarm_worker_core::step::{Failure, Op, Outcome};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::executor::{ExecError, Executor};

/// Performs `op`; what came of it. A panic of the executor is the failure of this one operation.
pub(crate) async fn perform(
    executor: Arc<dyn Executor>,
    task: Arc<Task>,
    op: Op,
    cancel: CancellationToken,
) -> (TaskId, Op, Outcome) {
    let id = task.id;
    let work = AssertUnwindSafe(execute(executor, &task, op)).catch_unwind();
    let outcome = tokio::select! {
        // What is done already counts, though it was told to stop.
        biased;
        done = work => done.unwrap_or_else(|_| failed(false, format!("{} panicked", op.as_str()))),
        () = cancel.cancelled() => Outcome::Cancelled,
    };
    match &outcome {
        // A task that cannot be made or run is no wonder of this node: its status says so.
        Outcome::Failed(failure) if failure.temporary || matches!(op, Op::Shutdown | Op::Remove) => {
            warn!(task.id = %id, op = op.as_str(), error = failure.err, "operation failed, trying again");
        }
        outcome => debug!(task.id = %id, op = op.as_str(), ?outcome, "operation ended"),
    }
    (id, op, outcome)
}

async fn execute(executor: Arc<dyn Executor>, task: &Task, op: Op) -> Outcome {
    let outcome = match op {
        Op::Prepare => executor.prepare(task).await.map(|()| Outcome::Done),
        Op::Start => executor.start(task).await.map(Outcome::Started),
        Op::Wait => executor.wait(task.id).await.map(Outcome::Ended),
        Op::Shutdown => executor.shutdown(task.id).await.map(Outcome::Ended),
        Op::Remove => executor.remove(task.id).await.map(|()| Outcome::Done),
    };
    outcome.unwrap_or_else(|e| match e {
        ExecError::Temporary(err) => failed(true, err),
        ExecError::Fatal(err) => failed(false, err),
    })
}

fn failed(temporary: bool, err: String) -> Outcome {
    Outcome::Failed(Failure { temporary, err })
}
