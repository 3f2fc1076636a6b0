//! The flags of `service create`, and the spec that they make.

use std::path::PathBuf;
use std::sync::Arc;

use swarm_types::container::Mount;
use swarm_types::placement::Constraint;
use swarm_types::policy::UpdatePolicy;
use swarm_types::service::{Mode, ServiceSpec};
use swarm_types::task::TaskSpec;

use super::env::{self, Lookup};
use super::network::{self, Known, Wish};
use super::publish::{self, Published};
use super::spec::SpecFlags;
use super::{label, mount};

/// See the module.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CreateFlags {
    /// Name of the service [default: a random one]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// replicated or global [default: replicated]
    #[arg(long, value_name = "MODE", value_parser = ["replicated", "global"])]
    mode: Option<String>,
    /// Environment variable NAME=VALUE; a bare NAME takes the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File of environment variables; --env wins over it
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Label of the service
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label::parse)]
    label: Vec<(String, String)>,
    /// Label of the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = label::parse)]
    container_label: Vec<(String, String)>,
    /// Only nodes for which this holds, e.g. node.labels.zone==a
    #[arg(long, value_name = "EXPRESSION", value_parser = constraint)]
    constraint: Vec<Constraint>,
    /// Mount, e.g. type=bind,source=/srv,target=/srv,readonly or type=tmpfs,target=/tmp
    #[arg(long, value_name = "MOUNT", value_parser = mount::parse)]
    mount: Vec<Mount>,
    /// Network by name or id, or name=NET,alias=NAME,driver-opt=K=V; also host, bridge (a way out) and none
    /// [default: none, loopback only]
    #[arg(long, value_name = "NETWORK", value_parser = network::parse)]
    pub(crate) network: Vec<Wish>,
    /// Publish a port on all nodes: [IP:][published:]target[/tcp|udp|sctp], with ranges, or
    /// published=P,target=P,protocol=tcp,mode=ingress|host,ip=IP
    #[arg(short, long, value_name = "PORT", value_parser = publish::parse)]
    publish: Vec<Published>,
    #[command(flatten)]
    pub(crate) common: SpecFlags,
    /// Image to run
    image: String,
    /// Arguments for it; they replace the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    args: Vec<String>,
}

/// Reads a constraint.
pub(crate) fn constraint(text: &str) -> Result<Constraint, String> {
    Constraint::parse(text).map_err(|e| e.to_string())
}

impl CreateFlags {
    /// The spec; `files` are the texts of the environment files, in order.
    pub(crate) fn spec(
        &self,
        name: &str,
        files: &[(String, String)],
        own: Lookup<'_>,
        known: Known<'_>,
    ) -> Result<ServiceSpec, String> {
        let mut task = TaskSpec::default();
        task.container.image = self.image.clone();
        task.container.args = self.args.clone();
        task.container.env = env::merge(files, &self.env, own)?;
        task.container.labels = self.container_label.iter().cloned().collect();
        task.container.mounts = self.mount.clone();
        task.placement.constraints = self.constraint.clone();
        network::change(&mut task, &self.network, &[], known)?;
        if !self.publish.is_empty() && self.network.iter().any(|wish| wish.name == "none") {
            return Err("--publish cannot be used with --network none: nothing leads there".into());
        }
        let mut spec = ServiceSpec {
            task: Arc::new(task),
            mode: match self.mode.as_deref() {
                Some("global") => Mode::Global,
                _ => Mode::default(),
            },
            update: UpdatePolicy::default(),
            ..ServiceSpec::default()
        };
        spec.annotations.name = name.to_owned();
        spec.annotations.labels = self.label.iter().cloned().collect();
        spec.endpoint.ports = self.publish.iter().flat_map(|published| published.0.clone()).collect();
        self.common.apply(&mut spec)?;
        swarm_types::valid::service(&spec).map_err(|e| e.to_string())?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use expect_test::expect;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: CreateFlags,
    }

    fn spec(line: &str) -> Result<ServiceSpec, String> {
        let words = super::super::words::split(line).unwrap();
        let line = Line::try_parse_from(std::iter::once("create".to_owned()).chain(words));
        line.map_err(|e| e.to_string())?.flags.spec("web", &[], &|_| None, &known)
    }

    fn known(reference: &str) -> Result<swarm_types::id::NetworkId, String> {
        match reference {
            "foo" => Err("network foo not found".into()),
            name => Ok(format!("id-{name}").into()),
        }
    }

    #[test]
    fn every_flag_reaches_the_spec() {
        let spec = spec(
            "--replicas 3 --replicas-max-per-node 2 --env A=1 --label l=1 --container-label c=2 \
             --constraint node.role==worker --reserve-cpu 0.5 --reserve-memory 64m --limit-cpu 1 \
             --limit-memory 128m --limit-pids 10 --restart-condition on-failure --restart-delay 1s \
             --restart-max-attempts 3 --restart-window 1m --stop-signal SIGINT --stop-grace-period 3s \
             --user 1:2 --workdir /w --entrypoint 'sh -c' --hostname h --read-only --network front \
             --network name=back,alias=db -p 8080:80 -p target=53,published=53,protocol=udp,mode=host \
             --endpoint-mode vip --endpoint-balance sticky --endpoint-weight node.labels.speed \
             --mount type=tmpfs,target=/t --update-parallelism 2 --update-delay 1s --update-order start-first \
             --update-monitor 9s --update-failure-action rollback --update-max-failure-ratio 0.25 \
             alpine:3 sleep --help -x",
        );
        let text = crate::output::json::pretty(&crate::output::inspect::spec(&spec.unwrap()));
        expect![[r#"
            {
                "Name": "web",
                "Labels": {
                    "l": "1"
                },
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": "alpine:3",
                        "Labels": {
                            "c": "2"
                        },
                        "Command": [
                            "sh",
                            "-c"
                        ],
                        "Args": [
                            "sleep",
                            "--help",
                            "-x"
                        ],
                        "Hostname": "h",
                        "Env": [
                            "A=1"
                        ],
                        "Dir": "/w",
                        "User": "1:2",
                        "ReadOnly": true,
                        "Mounts": [
                            {
                                "Type": "tmpfs",
                                "Target": "/t",
                                "TmpfsOptions": {
                                    "SizeBytes": 0,
                                    "Mode": 0
                                }
                            }
                        ],
                        "StopSignal": "SIGINT",
                        "StopGracePeriod": 3000000000
                    },
                    "Resources": {
                        "Limits": {
                            "NanoCPUs": 1000000000,
                            "MemoryBytes": 134217728,
                            "Pids": 10
                        },
                        "Reservations": {
                            "NanoCPUs": 500000000,
                            "MemoryBytes": 67108864
                        }
                    },
                    "RestartPolicy": {
                        "Condition": "on-failure",
                        "Delay": 1000000000,
                        "MaxAttempts": 3,
                        "Window": 60000000000
                    },
                    "Placement": {
                        "Constraints": [
                            "node.role==worker"
                        ],
                        "MaxReplicas": 2,
                        "Platforms": []
                    },
                    "ForceUpdate": 0,
                    "Runtime": "container",
                    "Networks": [
                        {
                            "Target": "id-front"
                        },
                        {
                            "Target": "id-back",
                            "Aliases": [
                                "db"
                            ]
                        }
                    ]
                },
                "Mode": {
                    "Replicated": {
                        "Replicas": 3
                    }
                },
                "UpdateConfig": {
                    "Parallelism": 2,
                    "Delay": 1000000000,
                    "FailureAction": "rollback",
                    "Monitor": 9000000000,
                    "MaxFailureRatio": 0.25,
                    "Order": "start-first"
                },
                "EndpointSpec": {
                    "Mode": "vip",
                    "Balance": "sticky",
                    "WeightLabel": "speed",
                    "Ports": [
                        {
                            "Protocol": "tcp",
                            "TargetPort": 80,
                            "PublishedPort": 8080,
                            "PublishMode": "ingress"
                        },
                        {
                            "Protocol": "udp",
                            "TargetPort": 53,
                            "PublishedPort": 53,
                            "PublishMode": "host"
                        }
                    ]
                }
            }"#]]
        .assert_eq(&text);
    }

    #[test]
    fn refusals() {
        let refused = |line: &str| spec(line).unwrap_err();
        assert!(refused("--mode global --replicas 2 x").contains("--replicas can only"));
        assert_eq!(refused("--network foo x"), "network foo not found");
        assert!(refused("--network none -p 80 x").contains("--publish cannot be used with --network none"));
        assert!(refused("--network host -p 80 x").contains("invalid publish"));
        assert!(refused("--network host --network a x").contains("invalid network"));
        assert!(refused("--network name=a,alias=b/c x").contains("alias `b/c`"));
        assert!(refused("-p 80:0 x").contains("--publish") && refused("-p 80/x x").contains("--publish"));
        assert!(refused("-p 80:80 -p 80:20 x").contains("duplicate published ports"));
        assert!(refused("--endpoint-mode dnsrr -p 80 x").contains("can't be used with dnsrr mode"));
        assert!(refused("--endpoint-mode mesh x").contains("--endpoint-mode"));
        assert!(refused("--endpoint-weight speed x").contains("expected node.labels.KEY"));
        assert_eq!(spec("-p 5005:80 -p 5006:80 -p 80 -p 80 x").unwrap().endpoint.ports.len(), 4);
        assert!(refused("--constraint nonsense x").contains("nonsense"));
        assert!(refused("--limit-memory 1k x").contains("limit-memory"));
        assert!(refused("--replicas -1 x").contains("--replicas"));
        assert!(refused("--mount type=volume,src=a,dst=/b x").contains("volumes are not supported yet"));
        assert!(refused("").contains("IMAGE"));
        assert!(!spec("--read-only=false x").unwrap().task.container.read_only);
    }
}
