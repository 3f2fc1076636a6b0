//! `swarmctl service ls`.

use serde_json::json;
use swarm_proto::convert::Malformed;
use swarm_proto::v1::{ListServicesRequest, ServiceEntry};
use swarm_types::service::Service;

use crate::client::Client;
use crate::error::Outcome;
use crate::flags::filter::Filters;
use crate::output;
use crate::output::listing::{Column, Format, Listing, Row};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only services that fit: id, name, label or mode
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    format: Format,
}

const KEYS: &[&str] = &["id", "label", "mode", "name"];
const COLUMNS: &[Column] = &[
    Column { field: "ID", header: "ID" },
    Column { field: "Name", header: "NAME" },
    Column { field: "Mode", header: "MODE" },
    Column { field: "Replicas", header: "REPLICAS" },
    Column { field: "Image", header: "IMAGE" },
    Column { field: "Ports", header: "PORTS" },
];

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let filters = Filters::parse(&args.filter, KEYS)?;
    let services = client.control().list_services(ListServicesRequest {}).await?.into_inner().services;
    output::text(&listing(services, &filters)?.render(&args.format)?);
    Ok(())
}

fn listing(entries: Vec<ServiceEntry>, filters: &Filters) -> Outcome<Listing> {
    let mut services = Vec::with_capacity(entries.len());
    for entry in entries {
        let missing = Malformed { field: "service".into(), problem: "missing".into() };
        let service = Service::try_from(entry.service.ok_or(missing)?)?;
        if fits(&service, filters) {
            services.push((service, entry.running_tasks, entry.desired_tasks));
        }
    }
    services.sort_by_cached_key(|(service, _, _)| natural(&service.spec.annotations.name));
    let rows = services.iter().map(|(service, running, desired)| row(service, *running, *desired)).collect();
    Ok(Listing { columns: COLUMNS, rows })
}

fn fits(service: &Service, filters: &Filters) -> bool {
    let annotations = &service.spec.annotations;
    filters.id("id", service.id.as_str())
        && filters.any("name", |v| annotations.name.starts_with(v))
        && filters.word("mode", service.spec.mode.as_str())
        && filters.labels("label", &annotations.labels)
}

fn row(service: &Service, running: u64, desired: u64) -> Row {
    let task = &service.spec.task;
    let most = match task.placement.max_replicas_per_node {
        0 => String::new(),
        n => format!(" (max {n} per node)"),
    };
    let image = task.container.image.split('@').next().unwrap_or_default();
    Row {
        shown: None,
        values: vec![
            json!(service.id.short()),
            json!(service.spec.annotations.name),
            json!(service.spec.mode.as_str()),
            json!(format!("{running}/{desired}{most}")),
            json!(image),
            json!(output::port::ingress(&service.endpoint.ports)),
        ],
    }
}

/// Sorts `web2` before `web10`: runs of digits by length first.
fn natural(name: &str) -> Vec<(usize, String)> {
    let mut parts: Vec<(usize, String)> = Vec::new();
    let mut digits = None;
    for c in name.chars() {
        if digits.replace(c.is_ascii_digit()) != Some(c.is_ascii_digit()) {
            parts.push((0, String::new()));
        }
        if let Some((length, part)) = parts.last_mut() {
            *length += usize::from(c.is_ascii_digit());
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use swarm_types::testing;

    use super::*;

    fn entry(id: &str, spec: testing::SpecBuilder, running: u64, desired: u64) -> ServiceEntry {
        let service = Service { id: id.into(), spec: spec.build(), ..Service::default() };
        ServiceEntry { service: Some((&service).into()), running_tasks: running, desired_tasks: desired }
    }

    #[test]
    fn services_in_natural_order() {
        let entries = vec![
            entry("aaaaaaaaaaaaaaaaaaaaaaaaa", testing::service("web10").image("nginx:1@sha256:1"), 1, 3),
            entry("bbbbbbbbbbbbbbbbbbbbbbbbb", testing::service("web2").global(), 5, 5),
            entry(
                "ccccccccccccccccccccccccc",
                testing::service("api").with(|_, t| t.placement.max_replicas_per_node = 2),
                1,
                1,
            ),
        ];
        let list = listing(entries, &Filters::default()).unwrap();
        expect![[r#"
            ID             NAME      MODE         REPLICAS               IMAGE     PORTS
            cccccccccccc   api       replicated   1/1 (max 2 per node)   image:1
            bbbbbbbbbbbb   web2      global       5/5                    image:1
            aaaaaaaaaaaa   web10     replicated   1/3                    nginx:1
        "#]]
        .assert_eq(&list.render(&Format::default()).unwrap());
    }

    #[test]
    fn ports_are_those_that_every_node_has() {
        let mut service =
            Service { id: "s1".into(), spec: testing::service("web").build(), ..Service::default() };
        for text in ["8080-8081:80-81", "published=90,target=90,mode=host", "30000:53/udp"] {
            service.endpoint.ports.extend(crate::flags::publish::parse(text).unwrap().0);
        }
        let entry = ServiceEntry { service: Some((&service).into()), running_tasks: 1, desired_tasks: 1 };
        let list = listing(vec![entry], &Filters::default()).unwrap();
        let format = Format { format: Some("{{.Ports}}".into()), quiet: false };
        assert_eq!(list.render(&format).unwrap(), "*:8080-8081->80-81/tcp, *:30000->53/udp\n");
    }

    #[test]
    fn none_is_no_error() {
        let list = listing(Vec::new(), &Filters::default()).unwrap();
        assert_eq!(
            list.render(&Format::default()).unwrap(),
            "ID        NAME      MODE      REPLICAS   IMAGE     PORTS\n"
        );
    }
}
