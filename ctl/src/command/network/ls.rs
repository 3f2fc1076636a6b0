//! `swarmctl network ls`.

use serde_json::json;
use swarm_types::network::Network;
use swarm_types::valid::PREDEFINED;

use crate::client::Client;
use crate::error::{Failure, Outcome};
use crate::flags::filter::Filters;
use crate::flags::network::predefined;
use crate::output;
use crate::output::listing::{Column, Format, Listing, Row};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only networks that fit: driver, id, label, name, scope or type (builtin, custom)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    format: Format,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
}

const KEYS: &[&str] = &["driver", "id", "label", "name", "scope", "type"];
const COLUMNS: &[Column] = &[
    Column { field: "ID", header: "NETWORK ID" },
    Column { field: "Name", header: "NAME" },
    Column { field: "Driver", header: "DRIVER" },
    Column { field: "Scope", header: "SCOPE" },
    Column { field: "IPv6", header: "" },
    Column { field: "Internal", header: "" },
    Column { field: "Ingress", header: "" },
    Column { field: "Encrypted", header: "" },
    Column { field: "Labels", header: "" },
    Column { field: "CreatedAt", header: "" },
];

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let filters = filters(&args.filter)?;
    let listing = listing(&super::list(client).await?, &filters, args.no_trunc);
    output::text(&listing.render(&args.format)?);
    Ok(())
}

fn filters(texts: &[String]) -> Outcome<Filters> {
    let filters = Filters::parse(texts, KEYS)?;
    for (i, text) in texts.iter().enumerate() {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let value = value.trim();
        if key.trim().eq_ignore_ascii_case("type") && !matches!(value, "builtin" | "custom") {
            let flag = i + 1;
            return Err(Failure::Usage(format!(
                "invalid filter 'type={value}' (filter {flag}): there are builtin and custom"
            )));
        }
    }
    Ok(filters)
}

fn listing(networks: &[Network], filters: &Filters, whole: bool) -> Listing {
    let own = PREDEFINED.iter().filter(|name| fits_own(name, filters)).map(|name| (*name, own_row(name)));
    let kept = networks.iter().filter(|network| fits(network, filters));
    let kept = kept.map(|network| (network.spec.annotations.name.as_str(), row(network, whole)));
    let mut rows: Vec<(&str, Row)> = own.chain(kept).collect();
    rows.sort_by_key(|(name, _)| *name);
    Listing { columns: COLUMNS, rows: rows.into_iter().map(|(_, row)| row).collect() }
}

/// Docker's name filter takes any part of a name.
fn fits(network: &Network, filters: &Filters) -> bool {
    let annotations = &network.spec.annotations;
    filters.id("id", network.id.as_str())
        && filters.any("name", |v| annotations.name.contains(v))
        && filters.word("driver", network.spec.driver.as_str())
        && filters.word("scope", super::scope(network.spec.driver))
        && filters.word("type", "custom")
        && filters.labels("label", &annotations.labels)
}

fn fits_own(name: &str, filters: &Filters) -> bool {
    let driver = predefined(name).map_or("", output::network::local_driver);
    filters.id("id", name)
        && filters.any("name", |v| name.contains(v))
        && filters.word("driver", driver)
        && filters.word("scope", "local")
        && filters.word("type", "builtin")
        && filters.labels("label", &swarm_types::meta::Labels::new())
}

fn row(network: &Network, whole: bool) -> Row {
    let spec = &network.spec;
    let ipv6 = spec.ipv6 || network.subnets.iter().any(|s| s.net.addr().is_ipv6());
    let labels: Vec<_> = spec.annotations.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Row {
        shown: None,
        values: vec![
            json!(if whole { network.id.as_str() } else { network.id.short() }),
            json!(spec.annotations.name),
            json!(spec.driver.as_str()),
            json!(super::scope(spec.driver)),
            json!(ipv6.to_string()),
            json!(spec.internal.to_string()),
            json!(spec.ingress.to_string()),
            json!(spec.encrypted.to_string()),
            json!(labels.join(",")),
            json!(network.meta.created_at.to_string()),
        ],
    }
}

/// Every node has it by itself: its name is its id.
fn own_row(name: &str) -> Row {
    let driver = predefined(name).map_or("", output::network::local_driver);
    let values = [name, name, driver, "local", "false", "false", "false", "false", "", ""];
    Row { shown: None, values: values.map(|text| json!(text)).to_vec() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use swarm_types::network::NetworkDriver;

    use super::*;

    fn show(filter: &[&str], format: Option<&str>, quiet: bool, whole: bool) -> String {
        let network = |id: &str, name: &str, driver: NetworkDriver| {
            let mut network = Network { id: id.into(), ..Network::default() };
            network.spec.annotations.name = name.into();
            network.spec.driver = driver;
            network.spec.ingress = name == "ingress";
            network
        };
        let mut front = network("bbbbbbbbbbbbbbbbbbbbbbbbb", "front", NetworkDriver::Overlay);
        front.spec.annotations.labels.insert("tier".into(), "web".into());
        let networks = [
            network("aaaaaaaaaaaaaaaaaaaaaaaaa", "ingress", NetworkDriver::Overlay),
            front,
            network("ccccccccccccccccccccccccc", "lan", NetworkDriver::Macvlan),
        ];
        let filters: Vec<String> = filter.iter().map(ToString::to_string).collect();
        let format = Format { format: format.map(Into::into), quiet };
        match super::filters(&filters) {
            Ok(filters) => listing(&networks, &filters, whole).render(&format).unwrap(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn networks_of_the_cluster_and_of_each_node() {
        expect![[r#"
            NETWORK ID     NAME      DRIVER    SCOPE
            bridge         bridge    bridge    local
            bbbbbbbbbbbb   front     overlay   swarm
            host           host      host      local
            aaaaaaaaaaaa   ingress   overlay   swarm
            cccccccccccc   lan       macvlan   swarm
            none           none      null      local
        "#]]
        .assert_eq(&show(&[], None, false, false));
        expect![[r#"
            {"ID":"bbbbbbbbbbbbbbbbbbbbbbbbb","Name":"front","Driver":"overlay","Scope":"swarm","IPv6":"false","Internal":"false","Ingress":"false","Encrypted":"true","Labels":"tier=web","CreatedAt":"1970-01-01T00:00:00.000Z"}
        "#]].assert_eq(&show(&["name=front"], Some("json"), false, true));
    }

    #[test]
    fn filters_fit() {
        let names = |filter: &[&str]| show(filter, Some("{{.Name}}"), false, false).replace('\n', " ");
        assert_eq!(names(&["driver=overlay"]), "front ingress ");
        assert_eq!(names(&["driver=macvlan", "scope=swarm"]), "lan ");
        assert_eq!(names(&["scope=local"]), "bridge host none ");
        assert_eq!(names(&["type=custom"]), "front ingress lan ");
        assert_eq!(names(&["type=builtin"]), "bridge host none ");
        assert_eq!(names(&["label=tier=web"]), "front ");
        assert_eq!(names(&["name=n"]), "front ingress lan none ");
        assert_eq!(names(&["id=aaa"]), "ingress ");
        assert!(names(&["type=x"]).contains("invalid filter 'type=x'"));
        assert_eq!(show(&["name=lan"], None, true, false), "cccccccccccc\n");
        assert_eq!(show(&["name=lan"], None, true, true), "ccccccccccccccccccccccccc\n");
    }
}
