//! Which daemon a command talks to: a URL, or a context: a named file that holds one.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Failure, Outcome};

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "unix:///run/swarmd.sock";

/// The flags that choose the daemon; the environment is read here and nowhere else.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Globals {
    /// Daemon to talk to: unix:///PATH (also SWARM_HOST) [default: unix:///run/swarmd.sock]
    #[arg(short = 'H', long, global = true, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// Context to use, or NAME@HOST for one host of it (also SWARM_CONTEXT)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// What a context's file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Context {
    pub(crate) name: String,
    /// `unix:///…` or `tcp://host:port`; several, separated by commas, are tried in turn.
    pub(crate) endpoint: String,
    /// Sockets of single hosts, for `--context NAME@HOST`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) hosts: BTreeMap<String, String>,
    /// PEM file with key, certificate and roots, for `tcp://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<PathBuf>,
}

/// One daemon's address, or several managers of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) credentials: Option<PathBuf>,
}

impl Globals {
    /// The daemon that these flags, the environment and the current context choose, in this order.
    pub(crate) fn target(&self) -> Outcome<Target> {
        let env = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        if let Some(host) = &self.host {
            return plain(host);
        }
        if let Some(context) = &self.context {
            return Contexts::open()?.target(context);
        }
        if let Some(host) = env("SWARM_HOST") {
            return plain(&host);
        }
        match env("SWARM_CONTEXT").or_else(|| Contexts::open().ok()?.current()) {
            Some(context) => Contexts::open()?.target(&context),
            None => plain(DEFAULT_SOCKET),
        }
    }
}

fn plain(url: &str) -> Outcome<Target> {
    if url.starts_with("tcp://") {
        return Err(Failure::Usage(format!(
            "{url} needs a certificate: make one on a manager with `swarmctl admin-cert NAME -o FILE`, then \
             here `swarmctl context import NAME FILE`"
        )));
    }
    match url.starts_with('/') {
        true => Ok(Target { url: format!("unix://{url}"), credentials: None }),
        false => Ok(Target { url: url.to_owned(), credentials: None }),
    }
}

/// The directory of contexts.
pub(crate) struct Contexts {
    dir: PathBuf,
}

impl Contexts {
    /// The directory that `SWARM_CONFIG_DIR` names, or `~/.config/swarm`.
    pub(crate) fn open() -> Outcome<Self> {
        let env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = env("SWARM_CONFIG_DIR").or_else(|| env("HOME").map(|home| home.join(".config/swarm")));
        dir.map(Contexts::at)
            .ok_or_else(|| Failure::Refused("neither SWARM_CONFIG_DIR nor HOME is set".into()))
    }
    pub(crate) fn at(dir: PathBuf) -> Self {
        Contexts { dir }
    }
    fn file(&self, name: &str, ending: &str) -> Outcome<PathBuf> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(good) {
            return Err(Failure::Refused(format!(
                "invalid context name `{name}`: use letters, digits, `-`, `_` and `.`"
            )));
        }
        Ok(self.dir.join("contexts").join(format!("{name}.{ending}")))
    }
    pub(crate) fn read(&self, name: &str) -> Outcome<Context> {
        let path = self.file(name, "json")?;
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::NotFound(format!("no such context: {name} (see `swarmctl context ls`)"))
            }
            _ => Failure::io(format!("read {}", path.display()), &e),
        })?;
        let context = serde_json::from_str::<Context>(&text);
        context.map_err(|e| Failure::Refused(format!("read {}: {e}", path.display())))
    }
    pub(crate) fn list(&self) -> Outcome<Vec<Context>> {
        let dir = self.dir.join("contexts");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Failure::io(format!("read {}", dir.display()), &e)),
        };
        let files = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = files.filter_map(|f| Some(f.strip_suffix(".json")?.to_owned())).collect();
        names.sort();
        names.iter().map(|name| self.read(name)).collect()
    }
    /// Stores a context, and its credentials (PEM) if there are any.
    pub(crate) fn write(&self, mut context: Context, pem: Option<&str>) -> Outcome {
        let path = self.file(&context.name, "json")?;
        if let Some(pem) = pem {
            let file = self.file(&context.name, "pem")?;
            put(&file, pem.as_bytes())?;
            context.credentials = Some(file);
        }
        let mut text = serde_json::to_string_pretty(&context).expect("strings can be written as JSON");
        text.push('\n');
        put(&path, text.as_bytes())
    }
    pub(crate) fn remove(&self, name: &str) -> Outcome {
        self.read(name)?;
        let path = self.file(name, "json")?;
        std::fs::remove_file(&path).map_err(|e| Failure::io(format!("remove {}", path.display()), &e))?;
        match std::fs::remove_file(self.file(name, "pem")?) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove credentials", &e)),
            _ => Ok(()),
        }
    }
    /// The context in use, if one was chosen.
    pub(crate) fn current(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join("current-context")).ok()?;
        Some(text.trim().to_owned()).filter(|name| !name.is_empty())
    }
    /// Chooses a context; none: the local daemon.
    pub(crate) fn choose(&self, name: Option<&str>) -> Outcome {
        let path = self.dir.join("current-context");
        let Some(name) = name else {
            return match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::io(format!("remove {}", path.display()), &e))
                }
                _ => Ok(()),
            };
        };
        self.read(name)?;
        put(&path, format!("{name}\n").as_bytes())
    }
    fn target(&self, reference: &str) -> Outcome<Target> {
        let (name, host) = match reference.split_once('@') {
            Some((name, host)) => (name, Some(host)),
            None => (reference, None),
        };
        if name == "default" && host.is_none() && self.read(name).is_err() {
            return plain(DEFAULT_SOCKET);
        }
        let context = self.read(name)?;
        let url = match host {
            None => context.endpoint.clone(),
            Some(host) => context.hosts.get(host).cloned().ok_or_else(|| {
                let known: Vec<_> = context.hosts.keys().map(String::as_str).collect();
                Failure::NotFound(format!("context {name} has no host {host}; it has: {}", known.join(" ")))
            })?,
        };
        Ok(Target { url, credentials: context.credentials })
    }
}

/// Writes a file whole or not at all; only its owner may read it.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Outcome {
    let attempt = || format!("write {}", path.display());
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| Failure::io(attempt(), &e))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let written = file.and_then(|mut f| f.write_all(bytes)).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| Failure::io(attempt(), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_chosen_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(dir.path().to_owned());
        assert_eq!(contexts.list().unwrap(), []);
        let mut context =
            Context { name: "dev-1".into(), endpoint: "unix:///a".into(), ..Context::default() };
        context.hosts.insert("m2".into(), "unix:///b".into());
        contexts.write(context.clone(), None).unwrap();
        assert_eq!(contexts.list().unwrap(), [context]);
        assert_eq!(contexts.current(), None);
        contexts.choose(Some("dev-1")).unwrap();
        assert_eq!(contexts.current().as_deref(), Some("dev-1"));
        assert_eq!(contexts.target("dev-1").unwrap().url, "unix:///a");
        assert_eq!(contexts.target("dev-1@m2").unwrap().url, "unix:///b");
        assert_eq!(
            contexts.target("dev-1@m9").unwrap_err().to_string(),
            "context dev-1 has no host m9; it has: m2"
        );
        assert!(contexts.choose(Some("nope")).is_err());
        assert!(contexts.read("../x").is_err());
        contexts.remove("dev-1").unwrap();
        assert!(contexts.read("dev-1").is_err());
    }

    #[test]
    fn credentials_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(dir.path().to_owned());
        let context = Context { name: "far".into(), endpoint: "tcp://m:2377".into(), ..Context::default() };
        contexts.write(context, Some("pem")).unwrap();
        let file = contexts.read("far").unwrap().credentials.unwrap();
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn tcp_without_a_certificate_says_what_to_do() {
        assert!(plain("tcp://m1:2377").unwrap_err().to_string().contains("context import"));
        assert_eq!(plain("/run/x.sock").unwrap().url, "unix:///run/x.sock");
    }
}
