//! `swarmctl image load`.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use swarm_proto::v1::load_image_request::Message;
use swarm_proto::v1::{LoadImageHeader, LoadImageRequest};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::{Nodes, report};
use crate::client::Client;
use crate::error::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: docker save demo:1 | swarmctl image load")]
pub(crate) struct Args {
    /// Archive [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print only the result
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    nodes: Nodes,
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let nodes = args.nodes.references(client).await?;
    let (name, reader): (String, Box<dyn AsyncRead + Send + Unpin>) = match &args.input {
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            let file = file.map_err(|e| Failure::io(format!("open {}", path.display()), &e))?;
            (path.display().to_string(), Box::new(file))
        }
        None => {
            let own = std::io::stdin().as_fd().try_clone_to_owned();
            let own = own.map_err(|e| Failure::io("read standard input", &e))?;
            ("standard input".into(), Box::new(tokio::fs::File::from_std(own.into())))
        }
    };
    let broken = Arc::new(Mutex::new(None));
    let header = LoadImageRequest { message: Some(Message::Header(LoadImageHeader { nodes })) };
    let chunks = ReaderStream::with_capacity(reader, swarm_proto::CHUNK_BYTES).scan(
        Arc::clone(&broken),
        |broken, chunk| {
            // A stream of requests cannot carry an error: it ends, and the error is told below.
            let chunk = chunk.map_err(|e| *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(e));
            std::future::ready(
                chunk.ok().map(|bytes| LoadImageRequest { message: Some(Message::Chunk(bytes)) }),
            )
        },
    );
    let request = futures::stream::iter([header]).chain(chunks);
    let answer = client.control().load_image(request).await;
    if let Some(e) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(Failure::io(format!("read {name}"), &e));
    }
    report::follow(answer?.into_inner(), "Loaded image", args.quiet).await?;
    match broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(e) => Err(Failure::io(format!("read {name}"), &e)),
        None => Ok(()),
    }
}
