//! The thread: how wishes get to the engine, and how it is started and ended.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};

use nix::sys::eventfd::{EfdFlags, EventFd};
use swarm_types::network_set::NetworkProblem;
use swarm_worker_core::network::kernel::{Place, Plan};
use tokio::sync::{oneshot, watch};

use crate::engine::Engine;
use crate::kernel::{Applied, Connections, Difference, KernelError, Settings};
use crate::namespace::{Folder, OWN, look};

/// A wish.
#[derive(Debug)]
pub(crate) enum Command {
    Apply(Box<Plan>, oneshot::Sender<Applied>),
    Check(Option<Place>, oneshot::Sender<Result<Vec<Difference>, KernelError>>),
    Namespace(Place, oneshot::Sender<io::Result<File>>),
    Reset(Place, IpAddr, oneshot::Sender<io::Result<u64>>),
    Count(Place, IpAddr, oneshot::Sender<io::Result<Connections>>),
}

/// The other end of the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: Option<mpsc::Sender<Command>>,
    bell: Arc<EventFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn send(&self, command: Command) -> Result<(), KernelError> {
        let commands = self.commands.as_ref().ok_or(KernelError::Stopped)?;
        commands.send(command).map_err(|_| KernelError::Stopped)?;
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        // it can only fail if it has been rung 2^64 times
        let _rung = self.bell.write(1);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.ring();
        // what it is doing is finished: nothing is left half done
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

/// Starts the thread in the host's namespace.
pub(crate) fn start(
    settings: Settings,
    folder: Folder,
    problems: watch::Sender<Vec<NetworkProblem>>,
    repairs: watch::Sender<u64>,
) -> Result<Handle, KernelError> {
    let host = settings.host.clone().unwrap_or_else(|| OWN.into());
    let open = |path: &Path| look(path)?.ok_or_else(|| io::ErrorKind::InvalidInput.into());
    let host_file = open(&host).map_err(|err| KernelError::Open(host.clone(), err))?;
    let own_file = open(Path::new(OWN)).map_err(|err| KernelError::Open(OWN.into(), err))?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = EventFd::from_flags(flags).map_err(|errno| KernelError::Thread(errno.into()))?;
    let bell = Arc::new(bell);
    let (commands, wishes) = mpsc::channel();
    let (started, outcome) = mpsc::channel();
    let thread_bell = bell.clone();
    let run = move || {
        let engine = Engine::new(settings, folder, host_file, own_file, &thread_bell, (problems, repairs));
        match engine {
            Ok(mut engine) => {
                drop(started.send(Ok(())));
                engine.run(&wishes, &thread_bell);
            }
            Err(err) => drop(started.send(Err(err))),
        }
    };
    let thread = std::thread::Builder::new().name("sw-network".into()).spawn(run);
    let thread = thread.map_err(KernelError::Thread)?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(Handle { commands: Some(commands), bell, thread: Some(thread) }),
        Ok(Err(err)) => Err(KernelError::Open(host, err)),
        Err(_) => Err(KernelError::Stopped),
    }
}
