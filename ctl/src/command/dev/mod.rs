//! `swarmctl dev`: a local cluster of network namespaces, to try things on.

mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand, ValueEnum};
use swarm_deploy_dev::{
    Cluster, DownError, HostError, ImageError, OpenError, Places, Programs, Role, Settings, Step, UpError,
    demo_image,
};

use crate::endpoint::{Context, Contexts};
use crate::error::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum DevCommand {
    /// Make a cluster of hosts on this machine and select its context, dev-NAME
    Up(UpArgs),
    /// List the hosts of a cluster and what they are doing
    Ls(LsArgs),
    /// Remove a cluster and all that belongs to it
    Down(ClusterArgs),
    /// Run a command in the network of a host
    Exec(ExecArgs),
    /// Power loss: end the daemon of a host and its containers at once
    Kill(HostArgs),
    /// Boot a host again, with its disk
    Start(HostArgs),
    /// Stop the daemon of a host without ending it (SIGSTOP)
    Pause(HostArgs),
    /// Let a paused daemon go on (SIGCONT)
    Resume(HostArgs),
    /// Drop the link of a host
    Cut(HostArgs),
    /// Bring the link of a host up again
    Heal(HostArgs),
    /// Write the demo image to a file for `image load`
    Image(ImageArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Number of managers: m1, m2, ...
    #[arg(long, default_value_t = 3)]
    managers: usize,
    /// Number of workers: w1, w2, ...
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Name of the cluster, up to eight of a-z and 0-9 [default: the first number that is free]
    #[arg(long)]
    name: Option<String>,
    /// Leave what was made if something fails
    #[arg(long)]
    keep_failed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster [default: the newest]
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to print: a table, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// m1, w1, ..., or client
    host: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// m1, w1, ..., or client
    host: String,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The file to write
    #[arg(long, short)]
    out: PathBuf,
    /// Name of the image
    #[arg(long, default_value = "demo:1")]
    name: String,
    /// A static busybox
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
}

/// Why a `dev` command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevError {
    #[error(transparent)]
    Up(#[from] UpError),
    #[error(transparent)]
    Down(#[from] DownError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Context(#[from] Failure),
    #[error("find {0}: it is neither in SWARM_BIN_DIR, nor beside swarmctl, nor in PATH")]
    Program(&'static str),
    #[error("write the answer")]
    Write(#[from] io::Error),
    #[error("wait for the cluster")]
    Panicked(#[source] tokio::task::JoinError),
}

impl DevCommand {
    /// Does it; returns the exit code, which for `exec` is the command's.
    pub(crate) async fn run(self, out: &mut (dyn Write + Send)) -> Result<i32, DevError> {
        let places = Places::from_env();
        match self {
            DevCommand::Up(args) => up(args, places, out).await.map(|()| 0),
            DevCommand::Ls(args) => {
                let rows = args.cluster.open(&places)?.list();
                match args.format {
                    Format::Table => table::table(&rows, out)?,
                    Format::Json => table::json(&rows, out)?,
                }
                Ok(0)
            }
            DevCommand::Down(args) => down(&args, &places, out).map(|()| 0),
            DevCommand::Exec(args) => Ok(args.cluster.open(&places)?.exec(&args.host, &args.command)?),
            DevCommand::Kill(args) => args.on(&places, Cluster::kill),
            DevCommand::Start(args) => args.on(&places, Cluster::start),
            DevCommand::Pause(args) => args.on(&places, Cluster::pause),
            DevCommand::Resume(args) => args.on(&places, Cluster::resume),
            DevCommand::Cut(args) => args.on(&places, Cluster::cut),
            DevCommand::Heal(args) => args.on(&places, Cluster::heal),
            DevCommand::Image(args) => {
                demo_image(&args.busybox, &args.out, &args.name)?;
                writeln!(out, "{}", args.name)?;
                Ok(0)
            }
        }
    }
}

impl ClusterArgs {
    fn open(&self, places: &Places) -> Result<Cluster, OpenError> {
        Cluster::open(places, self.name.as_deref())
    }
}

impl HostArgs {
    fn on(
        &self,
        places: &Places,
        action: impl Fn(&Cluster, &str) -> Result<(), HostError>,
    ) -> Result<i32, DevError> {
        action(&self.cluster.open(places)?, &self.host)?;
        Ok(0)
    }
}

/// Makes the cluster on a thread of its own; an interrupt makes it give up and clean up.
async fn up(args: UpArgs, places: Places, out: &mut (dyn Write + Send)) -> Result<(), DevError> {
    let name = args.name.unwrap_or_else(|| free_number(&places));
    let programs = Programs { swarmd: program("swarmd")?, swarmctl: program("swarmctl")? };
    let mut settings = Settings::new(&name, programs);
    (settings.managers, settings.workers) = (args.managers, args.workers);
    (settings.places, settings.keep_failed) = (places, args.keep_failed);
    let cancel = settings.cancel.clone();
    let (said, mut steps) = tokio::sync::mpsc::unbounded_channel::<Step>();
    let made = tokio::task::spawn_blocking(move || {
        // if nobody listens any more the cluster is made all the same
        Cluster::up(&settings, &mut |step| drop(said.send(step.clone())))
    });
    let stop = interrupted(cancel);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            step = steps.recv() => match step {
                Some(step) => writeln!(out, "{:>6.2} s  {}", step.elapsed.as_secs_f64(), step.text)?,
                None => break,
            },
            () = &mut stop => {}
        }
    }
    let cluster = made.await.map_err(DevError::Panicked)??;
    let context = context(&cluster);
    let contexts = Contexts::open()?;
    contexts.write(context.clone(), None)?;
    contexts.choose(Some(&context.name))?;
    writeln!(out, "context {} is selected: try `swarmctl node ls`", context.name)?;
    Ok(())
}

/// Sets the flag at the first SIGINT or SIGTERM, then never ends.
async fn interrupted(cancel: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    if let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        cancel.store(true, Ordering::Relaxed);
    }
    std::future::pending().await
}

fn down(args: &ClusterArgs, places: &Places, out: &mut dyn Write) -> Result<(), DevError> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.open(places)?.name().to_owned(),
    };
    let was_there = Cluster::down(places, &name)?;
    forget_context(&format!("dev-{name}"))?;
    let said = if was_there { "is gone" } else { "was not there" };
    writeln!(out, "cluster {name} {said}")?;
    Ok(())
}

/// The context of a cluster that is gone is not to be chosen any more either.
fn forget_context(name: &str) -> Result<(), Failure> {
    let contexts = Contexts::open()?;
    if contexts.current().as_deref() == Some(name) {
        contexts.choose(None)?;
    }
    match contexts.remove(name) {
        Err(Failure::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// All nodes, the managers first, so that plain commands go on working when one is killed or demoted;
/// and each host by name.
fn context(cluster: &Cluster) -> Context {
    let url = |host: &str| format!("unix://{}", cluster.socket(host).display());
    let of_role = |role: Role| cluster.hosts().iter().filter(move |host| host.role == role);
    let all = of_role(Role::Manager).chain(of_role(Role::Worker));
    let all: Vec<String> = all.map(|host| url(&host.name)).collect();
    let nodes = cluster.hosts().iter().filter(|host| host.role != Role::Client);
    Context {
        name: format!("dev-{}", cluster.name()),
        endpoint: all.join(","),
        hosts: nodes.map(|host| (host.name.clone(), url(&host.name))).collect(),
        credentials: None,
    }
}

fn free_number(places: &Places) -> String {
    let taken = Cluster::names(places);
    (1..).map(|n: u32| n.to_string()).find(|n| !taken.contains(n)).expect("numbers do not end")
}

/// Finds a program of this product.
fn program(name: &'static str) -> Result<PathBuf, DevError> {
    let set = std::env::var_os("SWARM_BIN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = set.into_iter().chain(beside).chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file()).ok_or(DevError::Program(name))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        dev: DevCommand,
    }

    fn parse(line: &str) -> Result<DevCommand, clap::Error> {
        Line::try_parse_from(std::iter::once("dev").chain(line.split(' '))).map(|line| line.dev)
    }

    #[test]
    fn the_commands_of_a_users_day() {
        let up = parse("up --managers 1 --workers 0 --name demo").unwrap();
        assert!(
            matches!(up, DevCommand::Up(UpArgs { managers: 1, workers: 0, name: Some(n), .. }) if n == "demo")
        );
        assert!(matches!(parse("up").unwrap(), DevCommand::Up(UpArgs { managers: 3, workers: 2, .. })));
        let DevCommand::Exec(exec) = parse("exec m1 -- ip -4 address --name x").unwrap() else {
            panic!("not exec");
        };
        assert_eq!((exec.host.as_str(), exec.command.len()), ("m1", 5));
        for line in
            ["kill w1", "start w1", "pause m2", "resume m2", "cut w2", "heal w2 --name 2", "ls --format json"]
        {
            parse(line).unwrap();
        }
        assert!(parse("exec m1").is_err());
        assert!(parse("kill").is_err());
    }

    #[tokio::test]
    async fn a_cluster_that_is_not_there() {
        let mut out = Vec::new();
        let error = parse("kill w1 --name nothere").unwrap().run(&mut out).await.unwrap_err();
        assert_eq!(error.to_string(), "open cluster `nothere`: there is none of that name");
    }
}
