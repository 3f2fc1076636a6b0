//! Watches a service until there is a verdict. Fed by the managers' events: nothing is polled.

use std::time::Duration;

use swarm_proto::v1::{WatchMessage, WatchRequest};
use tokio::time::Instant;
use tonic::{Code, Streaming};

use super::screen::Screen;
use super::{Progress, Verdict, Wait};
use crate::client::Client;
use crate::error::{Failure, Outcome};

/// How long all may wait for a node before we say so and stop waiting.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long no manager may answer.
const RECONNECT_LIMIT: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WaitFlags {
    /// Do not wait for the tasks
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Wait, but show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Shows progress until the service is where it shall be; fails with the reason if it does not get there.
pub(crate) async fn follow(client: &Client, service: &str, flags: &WaitFlags, wait: Wait) -> Outcome {
    if flags.detach {
        return Ok(());
    }
    let mut watcher = Watcher {
        client: client.clone(),
        service: service.to_owned(),
        stable: wait.stable.unwrap_or(Duration::ZERO),
        progress: Progress::new(wait),
        screen: Screen::new(flags.quiet),
        due: None,
    };
    tokio::select! {
        outcome = watcher.run() => outcome,
        _ = tokio::signal::ctrl_c() => {
            crate::output::note(&format!(
                "Operation continuing in background.\nUse `swarmctl service ps {service}` to check progress."
            ));
            Err(Failure::Exit(130))
        }
    }
}

struct Watcher {
    client: Client,
    service: String,
    stable: Duration,
    progress: Progress,
    screen: Screen,
    /// What the verdict is, and when it counts if it stays so.
    due: Option<(Verdict, Instant)>,
}

impl Watcher {
    async fn run(&mut self) -> Outcome {
        let mut silent_since = Instant::now();
        loop {
            self.progress.restart();
            let request = WatchRequest { service: self.service.clone() };
            let failure = match self.client.control().watch(request).await {
                Ok(stream) => match self.read(stream.into_inner(), &mut silent_since).await? {
                    None => return Ok(()),
                    Some(status) => status,
                },
                Err(status) => status,
            };
            // The leader changed or the daemon restarts: another answer will come.
            let passing =
                matches!(failure.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Aborted);
            if !passing || silent_since.elapsed() > RECONNECT_LIMIT {
                return Err(failure.into());
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Reads one stream. `None`: the service has converged. A status: the stream broke.
    async fn read(
        &mut self,
        mut stream: Streaming<WatchMessage>,
        heard: &mut Instant,
    ) -> Outcome<Option<tonic::Status>> {
        loop {
            let due = self.due.as_ref().map(|(_, at)| *at);
            let timer =
                tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)));
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => {
                        *heard = Instant::now();
                        self.progress.take(message)?;
                    }
                    Ok(None) => return Ok(Some(tonic::Status::unavailable("the manager ended the watch"))),
                    Err(status) => return Ok(Some(status)),
                },
                () = timer => {}
            }
            if self.judge()? {
                return Ok(None);
            }
        }
    }

    /// True: converged.
    fn judge(&mut self) -> Outcome<bool> {
        let verdict = self.progress.verdict();
        if verdict != Verdict::Waiting || self.progress.synced {
            self.screen.show(&self.progress);
        }
        let patience = match &verdict {
            Verdict::Waiting => {
                self.due = None;
                return Ok(false);
            }
            Verdict::Failed(_) => Duration::ZERO,
            Verdict::Converged => self.stable,
            Verdict::Stuck(_) => PATIENCE,
        };
        let same = self
            .due
            .take()
            .filter(|(before, _)| std::mem::discriminant(before) == std::mem::discriminant(&verdict));
        let at = same.map_or_else(|| Instant::now() + patience, |(_, at)| at);
        if Instant::now() < at {
            self.due = Some((verdict, at));
            return Ok(false);
        }
        match verdict {
            Verdict::Converged => {
                self.screen.end("verify: Service converged");
                Ok(true)
            }
            Verdict::Failed(why) => Err(Failure::Refused(why)),
            Verdict::Stuck(why) => Err(Failure::Refused(format!(
                "{why}. The service waits for a node that fits; `swarmctl service ps {}` shows how it goes on.",
                self.service
            ))),
            Verdict::Waiting => Ok(false),
        }
    }
}
