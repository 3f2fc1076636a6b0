//! `--network NAME` and `--network name=NAME,alias=A,driver-opt=K=V`: the networks that a service's tasks are on.

use std::collections::BTreeMap;

use swarm_types::container::ContainerNetwork;
use swarm_types::id::NetworkId;
use swarm_types::network::AttachmentSpec;
use swarm_types::task::TaskSpec;

/// One flag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Name or id.
    pub(crate) name: String,
    aliases: Vec<String>,
    options: BTreeMap<String, String>,
}

/// Turns the reference of a network into its id; managers were asked before.
pub(crate) type Known<'a> = &'a dyn Fn(&str) -> Result<NetworkId, String>;

/// Reads one flag.
pub(crate) fn parse(text: &str) -> Result<Wish, String> {
    if !text.contains('=') {
        return match text.trim() {
            "" => Err("a network must be named".into()),
            name => Ok(Wish { name: name.to_owned(), ..Wish::default() }),
        };
    }
    let mut wish = Wish::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => wish.name = value.trim().to_owned(),
            "alias" => wish.aliases.push(value.trim().to_owned()),
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or("driver-opt: a key=value pair is expected")?;
                wish.options.insert(key.trim().to_owned(), value.to_owned());
            }
            other => return Err(format!("invalid field key {other}")),
        }
    }
    match wish.name.is_empty() {
        true => Err("network name/id is not specified".into()),
        false => Ok(wish),
    }
}

impl Wish {
    /// Managers know it, or it is there on every node.
    pub(crate) fn predefined(&self) -> Option<ContainerNetwork> {
        predefined(&self.name)
    }
}

/// The network that each node has by itself under this name.
pub(crate) fn predefined(name: &str) -> Option<ContainerNetwork> {
    match name {
        "host" => Some(ContainerNetwork::Host),
        "bridge" => Some(ContainerNetwork::Bridge),
        "none" => Some(ContainerNetwork::Loopback),
        _ => None,
    }
}

/// Removes first, then adds.
pub(crate) fn change(
    task: &mut TaskSpec,
    add: &[Wish],
    remove: &[String],
    known: Known<'_>,
) -> Result<(), String> {
    for reference in remove {
        match predefined(reference) {
            Some(network) if task.container.network == network => {
                task.container.network = ContainerNetwork::Loopback;
            }
            Some(_) => {}
            None => {
                let id = known(reference)?;
                task.networks.retain(|attachment| attachment.network != id);
            }
        }
    }
    for wish in add {
        match wish.predefined() {
            Some(network) if wish.aliases.is_empty() && wish.options.is_empty() => {
                task.container.network = network;
            }
            Some(_) => return Err(format!("network {}: it has neither aliases nor options", wish.name)),
            None => attach(task, wish, known(&wish.name)?)?,
        }
    }
    match add.iter().any(|wish| wish.name == "none") && !(task.networks.is_empty() && is_none(task)) {
        true => Err("network none cannot be combined with others".into()),
        false => Ok(()),
    }
}

fn is_none(task: &TaskSpec) -> bool {
    task.container.network == ContainerNetwork::Loopback
}

fn attach(task: &mut TaskSpec, wish: &Wish, network: NetworkId) -> Result<(), String> {
    if task.networks.iter().any(|attachment| attachment.network == network) {
        return Err(format!("service is already attached to network {}", wish.name));
    }
    let (aliases, options) = (wish.aliases.clone(), wish.options.clone());
    task.networks.push(AttachmentSpec { network, aliases, options });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(reference: &str) -> Result<NetworkId, String> {
        match reference {
            "foo" => Err("network foo not found".into()),
            name => Ok(format!("id-{name}").into()),
        }
    }
    fn changed(task: &TaskSpec, add: &[&str], remove: &[&str]) -> Result<TaskSpec, String> {
        let add = add.iter().map(|a| parse(a)).collect::<Result<Vec<_>, _>>()?;
        let remove: Vec<_> = remove.iter().map(ToString::to_string).collect();
        let mut task = task.clone();
        change(&mut task, &add, &remove, &known)?;
        Ok(task)
    }
    fn ids(task: &TaskSpec) -> Vec<&str> {
        task.networks.iter().map(|a| a.network.as_str()).collect()
    }

    #[test]
    fn names_become_ids() {
        let task = changed(&TaskSpec::default(), &["a", "name=b,alias=db,alias=sql,driver-opt=k=v=w"], &[]);
        let task = task.unwrap();
        assert_eq!(ids(&task), ["id-a", "id-b"]);
        assert_eq!(task.networks[1].aliases, ["db", "sql"]);
        assert_eq!(task.networks[1].options["k"], "v=w");
        let task = changed(&task, &["c"], &["a", "never"]).unwrap();
        assert_eq!(ids(&task), ["id-b", "id-c"]);
        assert_eq!(changed(&task, &["b"], &[]).unwrap_err(), "service is already attached to network b");
        assert_eq!(changed(&task, &["name=b,alias=x"], &["b"]).unwrap().networks[1].aliases, ["x"]);
        assert_eq!(changed(&task, &["foo"], &[]).unwrap_err(), "network foo not found");
    }

    #[test]
    fn predefined_networks_are_the_nodes_own() {
        let task = changed(&TaskSpec::default(), &["host"], &[]).unwrap();
        assert_eq!(task.container.network, ContainerNetwork::Host);
        assert_eq!(changed(&task, &[], &["bridge"]).unwrap().container.network, ContainerNetwork::Host);
        assert_eq!(changed(&task, &["a"], &["host"]).unwrap().container.network, ContainerNetwork::Loopback);
        let bridge = changed(&TaskSpec::default(), &["bridge", "a"], &[]).unwrap();
        assert_eq!((bridge.container.network, bridge.networks.len()), (ContainerNetwork::Bridge, 1));
        assert!(changed(&TaskSpec::default(), &["none", "a"], &[]).unwrap_err().contains("combined"));
        assert!(changed(&TaskSpec::default(), &["none", "host"], &[]).unwrap_err().contains("combined"));
        assert!(changed(&TaskSpec::default(), &["name=host,alias=x"], &[]).unwrap_err().contains("aliases"));
    }

    #[test]
    fn refusals() {
        for (text, part) in [
            ("", "must be named"),
            ("alias=x", "network name/id is not specified"),
            ("name=a,colour=red", "invalid field key colour"),
            ("name=a,x", "invalid field x"),
            ("name=a,driver-opt=x", "key=value"),
        ] {
            assert!(parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
