//! The flags of `service update`, and what they make of the spec that is stored.

use std::sync::Arc;

use swarm_types::container::{ContainerSpec, Mount};
use swarm_types::placement::Constraint;
use swarm_types::service::ServiceSpec;

use super::create::constraint;
use super::env::{self, Lookup};
use super::network::{self, Known, Wish};
use super::publish::{self, Published, Removal};
use super::spec::SpecFlags;
use super::{label, mount, words};

/// See the module.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct UpdateFlags {
    /// Another image
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Other arguments; split like a shell does
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    args: Option<String>,
    /// Add or change an environment variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Add or change a label of the service
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    label_add: Vec<(String, String)>,
    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Add or change a label of the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    container_label_add: Vec<(String, String)>,
    /// Remove a label of the containers
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Add a constraint
    #[arg(long, value_name = "EXPRESSION", value_parser = constraint)]
    constraint_add: Vec<Constraint>,
    /// Remove a constraint
    #[arg(long, value_name = "EXPRESSION", value_parser = constraint)]
    constraint_rm: Vec<Constraint>,
    /// Add a mount, or replace the one with its target
    #[arg(long, value_name = "MOUNT", value_parser = mount::parse)]
    mount_add: Vec<Mount>,
    /// Remove the mount with this target
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Put the tasks on another network too: as --network of `service create`
    #[arg(long, value_name = "NETWORK", value_parser = network::parse)]
    network_add: Vec<Wish>,
    /// Take the tasks off a network
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Publish another port, or the same in another way: as --publish of `service create`
    #[arg(long, value_name = "PORT", value_parser = publish::parse)]
    publish_add: Vec<Published>,
    /// Remove the published ports with this target port
    #[arg(long, value_name = "TARGET[/PROTOCOL]", value_parser = publish::removal)]
    publish_rm: Vec<Removal>,
    #[command(flatten)]
    pub(crate) common: SpecFlags,
    /// Replace all tasks even if nothing changed
    #[arg(long)]
    force: bool,
}

impl UpdateFlags {
    /// Changes `spec`; what is not named stays.
    pub(crate) fn apply(
        &self,
        spec: &mut ServiceSpec,
        own: Lookup<'_>,
        known: Known<'_>,
    ) -> Result<(), String> {
        self.common.apply(spec)?;
        publish::change(&mut spec.endpoint.ports, &self.publish_add, &self.publish_rm);
        label::change(&mut spec.annotations.labels, &self.label_add, &self.label_rm);
        let task = Arc::make_mut(&mut spec.task);
        self.container(&mut task.container, own)?;
        network::change(task, &self.network_add, &self.network_rm, known)?;
        let constraints = &mut task.placement.constraints;
        constraints.retain(|c| !self.constraint_rm.contains(c));
        for add in &self.constraint_add {
            if !constraints.contains(add) {
                constraints.push(add.clone());
            }
        }
        if self.force {
            task.force_update = task.force_update.wrapping_add(1);
        }
        swarm_types::valid::service(spec).map_err(|e| e.to_string())
    }

    /// The networks that managers have to be asked about.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &str> {
        let added = self.network_add.iter().map(|wish| wish.name.as_str());
        added.chain(self.network_rm.iter().map(String::as_str))
    }

    fn container(&self, container: &mut ContainerSpec, own: Lookup<'_>) -> Result<(), String> {
        if let Some(image) = &self.image {
            container.image.clone_from(image);
        }
        if let Some(args) = &self.args {
            container.args = words::split(args)?;
        }
        container.env.retain(|e| !self.env_rm.iter().any(|name| name == env::name(e)));
        for add in env::merge(&[], &self.env_add, own)? {
            env::put(&mut container.env, &add, own);
        }
        label::change(&mut container.labels, &self.container_label_add, &self.container_label_rm);
        let gone = |m: &Mount| {
            self.mount_rm.contains(&m.target) || self.mount_add.iter().any(|add| add.target == m.target)
        };
        container.mounts.retain(|m| !gone(m));
        container.mounts.extend(self.mount_add.iter().cloned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: UpdateFlags,
    }

    fn update(spec: &ServiceSpec, words: &[&str]) -> Result<ServiceSpec, String> {
        let mut spec = spec.clone();
        let line =
            Line::try_parse_from(std::iter::once(&"update").chain(words)).map_err(|e| e.to_string())?;
        line.flags.apply(&mut spec, &|_| None, &|name| Ok(format!("id-{name}").into()))?;
        Ok(spec)
    }

    fn base() -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        spec.annotations.name = "web".into();
        let task = Arc::make_mut(&mut spec.task);
        task.container.image = "image:1".into();
        task.container.env = vec!["A=1".into(), "B=2".into()];
        task.container.mounts = vec![mount::parse("type=tmpfs,target=/t").unwrap()];
        task.placement.constraints = vec![constraint("node.role==worker").unwrap()];
        spec
    }

    #[test]
    fn nothing_given_nothing_changed() {
        assert_eq!(update(&base(), &[]), Ok(base()));
    }

    #[test]
    fn lists_are_added_to_and_removed_from() {
        let spec = update(
            &base(),
            &[
                "--env-rm=A",
                "--env-add=B=3",
                "--env-add=C=4",
                "--mount-rm=/t",
                "--constraint-rm=node.role == worker",
                "--constraint-add=node.hostname!=m1",
                "--label-add=l=1",
                "--args=-c 'x y'",
                "--force",
            ],
        )
        .unwrap();
        assert_eq!(spec.task.container.env, ["B=3", "C=4"]);
        assert_eq!(spec.task.container.mounts, []);
        assert_eq!(spec.task.placement.constraints, [constraint("node.hostname!=m1").unwrap()]);
        assert_eq!(spec.task.container.args, ["-c", "x y"]);
        assert_eq!(spec.task.force_update, 1);
        assert_eq!(spec.annotations.labels["l"], "1");
    }

    #[test]
    fn networks_and_ports_come_and_go() {
        let words = ["--network-add=front", "--publish-add=80:80", "--publish-add=80:80", "--publish-add=81"];
        let spec = update(&base(), &words).unwrap();
        assert_eq!(spec.task.networks[0].network.as_str(), "id-front");
        assert_eq!(spec.endpoint.ports.len(), 2);
        // D5: the same again changes nothing.
        assert_eq!(update(&spec, &["--publish-add=80:80"]), Ok(spec.clone()));
        let spec =
            update(&spec, &["--network-rm=front", "--publish-rm=80", "--endpoint-balance=sticky"]).unwrap();
        assert_eq!((spec.task.networks.len(), spec.endpoint.ports.len()), (0, 1));
        assert_eq!(update(&spec, &["--publish-rm=81"]).unwrap().endpoint.ports, []);
        let dnsrr = update(&spec, &["--endpoint-mode=dnsrr", "--endpoint-balance=random"]);
        assert!(dnsrr.unwrap_err().contains("can't be used with dnsrr mode"));
        let clash = update(&base(), &["--publish-add=80:80", "--publish-add=80:20"]);
        assert!(clash.unwrap_err().contains("duplicate published ports"));
        assert!(update(&base(), &["--publish-rm=x"]).unwrap_err().contains("--publish-rm"));
    }

    #[test]
    fn bad_results_are_refused() {
        assert!(update(&base(), &["--image="]).is_err());
        assert!(update(&base(), &["--stop-signal=NOPE"]).unwrap_err().contains("stop-signal"));
    }
}
