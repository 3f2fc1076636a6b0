//! `swarmctl image ls`: the images of all nodes as one list.

use std::collections::BTreeMap;

use serde_json::json;
use swarm_proto::v1::{ImageInfo, ListImagesRequest, NodeImages};
use swarm_types::time::Timestamp;

use super::Nodes;
use crate::client::Client;
use crate::error::{Failure, Outcome};
use crate::flags::filter::Filters;
use crate::output::listing::{Column, Format, Listing, Row};
use crate::output::{self, human};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only images that fit: reference (name[:tag])
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    format: Format,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    nodes: Nodes,
}

const COLUMNS: &[Column] = &[
    Column { field: "ID", header: "IMAGE ID" },
    Column { field: "Repository", header: "REPOSITORY" },
    Column { field: "Tag", header: "TAG" },
    Column { field: "Digest", header: "" },
    Column { field: "CreatedSince", header: "CREATED" },
    Column { field: "Size", header: "SIZE" },
    Column { field: "CreatedAt", header: "" },
    Column { field: "Nodes", header: "NODES" },
];

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let filters = Filters::parse(&args.filter, &["reference"])?;
    let nodes = args.nodes.references(client).await?;
    let answer = client.control().list_images(ListImagesRequest { nodes }).await?.into_inner();
    let listing = listing(&answer.nodes, &filters, args.no_trunc, crate::system::now());
    output::text(&listing.render(&args.format)?);
    let failed: Vec<_> = answer.nodes.iter().filter(|n| !n.error.is_empty()).collect();
    failed.iter().for_each(|node| output::error(&format!("{}: {}", node.node_name, node.error)));
    if failed.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn listing(nodes: &[NodeImages], filters: &Filters, whole: bool, now: Timestamp) -> Listing {
    let mut images: BTreeMap<(String, String, &str), (&ImageInfo, Vec<&str>)> = BTreeMap::new();
    for node in nodes {
        for image in &node.images {
            let nameless = ["<none>:<none>".to_owned()];
            let tags = if image.tags.is_empty() { &nameless[..] } else { &image.tags };
            for tag in tags {
                let (repository, tag) = split(tag);
                let fits = |v: &str| v == repository || v == format!("{repository}:{tag}");
                if filters.any("reference", fits) {
                    let key = (repository.to_owned(), tag.to_owned(), image.id.as_str());
                    images.entry(key).or_insert((image, Vec::new())).1.push(&node.node_name);
                }
            }
        }
    }
    let rows = images
        .iter()
        .map(|((repository, tag, _), (image, nodes))| row(repository, tag, image, nodes, whole, now));
    Listing { columns: COLUMNS, rows: rows.collect() }
}

fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

fn row(repository: &str, tag: &str, image: &ImageInfo, nodes: &[&str], whole: bool, now: Timestamp) -> Row {
    let bare = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    let id = if whole { image.id.as_str() } else { bare.get(..12).unwrap_or(bare) };
    let digest = image.digests.first().map_or("<none>", |d| d.rsplit('@').next().unwrap_or(d));
    let created = Timestamp(image.created_at_ms);
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    Row {
        shown: None,
        values: vec![
            json!(id),
            json!(repository),
            json!(tag),
            json!(digest),
            json!(if created.is_zero() {
                "N/A".into()
            } else {
                format!("{} ago", human::duration(now.since(created)))
            }),
            json!(human::size(image.size_bytes)),
            json!(created.to_string()),
            json!(nodes.join(",")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn images_of_all_nodes_are_merged() {
        let image = |tags: &[&str]| ImageInfo {
            id: "sha256:0123456789abcdef".into(),
            tags: tags.iter().map(ToString::to_string).collect(),
            size_bytes: 4_200_000,
            created_at_ms: 1,
            ..ImageInfo::default()
        };
        let node =
            |name: &str, images| NodeImages { node_name: name.into(), images, ..NodeImages::default() };
        let nodes = [
            node("m2", vec![image(&["demo:1", "localhost:5000/demo"])]),
            node("m1", vec![image(&["demo:1"]), image(&[])]),
        ];
        let list = listing(&nodes, &Filters::default(), false, Timestamp(7_200_001));
        expect![[r#"
            IMAGE ID       REPOSITORY            TAG       CREATED       SIZE      NODES
            0123456789ab   <none>                <none>    2 hours ago   4.2MB     m1
            0123456789ab   demo                  1         2 hours ago   4.2MB     m1,m2
            0123456789ab   localhost:5000/demo   latest    2 hours ago   4.2MB     m2
        "#]]
        .assert_eq(&list.render(&Format::default()).unwrap());
    }
}
