//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: made on the node, mounted
//! over the image's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use swarm_types::container::ContainerNetwork;
use swarm_worker_core::container::ContainerPlan;
use swarm_worker_shim::config::FileMount;

/// The folder of these files, one folder in it for each container.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn open(dir: PathBuf) -> io::Result<Files> {
        fs::create_dir_all(&dir)?;
        Ok(Files(dir))
    }

    /// Writes the files of a container.
    pub(super) fn make(&self, id: &str, plan: &ContainerPlan) -> io::Result<Vec<FileMount>> {
        let dir = self.0.join(id);
        fs::create_dir_all(&dir)?;
        let name = &plan.hostname;
        let (hosts, resolv) = match plan.network {
            ContainerNetwork::Loopback | ContainerNetwork::Bridge if plan.addrs.is_empty() => {
                (own_hosts(name), String::new())
            }
            ContainerNetwork::Loopback | ContainerNetwork::Bridge => {
                (networked_hosts(name, &plan.addrs), RESOLVER.to_owned())
            }
            ContainerNetwork::Host => (read("/etc/hosts")?, read("/etc/resolv.conf")?),
        };
        let contents = [("hosts", hosts), ("hostname", format!("{name}\n")), ("resolv.conf", resolv)];
        contents
            .into_iter()
            .map(|(file, text)| {
                let source = dir.join(file);
                fs::write(&source, text)?;
                Ok(FileMount { source, target: format!("/etc/{file}"), read_only: false })
            })
            .collect()
    }

    /// Removes the files of a container, if it has any.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.0.join(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes the files of all containers but these.
    pub(super) fn keep_only(&self, ids: &BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !ids.contains(&name) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

const LOCALHOST6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\n";

fn own_hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost {name}\n{LOCALHOST6}")
}

/// As Docker's on user-defined networks: the node answers at this address.
const RESOLVER: &str = "nameserver 127.0.0.11\noptions ndots:0\n";

fn networked_hosts(name: &str, addrs: &[IpAddr]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost\n{LOCALHOST6}");
    text.extend(addrs.iter().map(|addr| format!("{addr}\t{name}\n")));
    text
}

/// A host may lack either file.
fn read(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("files")).unwrap();
        let plan = ContainerPlan { hostname: "h".into(), ..ContainerPlan::default() };
        let mounts = files.make("a", &plan).unwrap();
        assert_eq!(fs::read_to_string(&mounts[1].source).unwrap(), "h\n");
        files.make("b", &plan).unwrap();
        files.keep_only(&["b".to_owned()].into()).unwrap();
        assert!(!mounts[0].source.exists());
        files.remove("b").unwrap();
        files.remove("b").unwrap();

        let addrs = vec!["10.0.1.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let mounts = files.make("c", &ContainerPlan { addrs, ..plan }).unwrap();
        let text = fs::read_to_string(&mounts[0].source).unwrap();
        assert!(text.ends_with("10.0.1.5\th\nfd00::5\th\n") && !text.contains("localhost h"), "{text}");
        assert_eq!(fs::read_to_string(&mounts[2].source).unwrap(), RESOLVER);
    }
}
