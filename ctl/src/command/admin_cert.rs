//! `swarmctl admin-cert NAME -o FILE`: a certificate to carry to another machine.

use std::path::PathBuf;
use std::time::Duration;

use swarm_identity::credentials::{Credentials, certs_from_pem};
use swarm_identity::csr::NodeKey;
use swarm_proto::v1::IssueAdminCertificateRequest;

use crate::client::Client;
use crate::endpoint::{self, Globals};
use crate::error::{Failure, Outcome, chain};
use crate::output;

/// What the line with the managers' addresses starts with, in the file.
pub(crate) const ENDPOINT_LINE: &str = "# swarm-endpoint: ";

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: swarmctl admin-cert alice -o alice.pem, then on alice's machine:\n\
             swarmctl context import prod alice.pem && swarmctl context use prod")]
pub(crate) struct Args {
    /// Who it is for
    name: String,
    /// File to write, readable by you alone
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How long it is good for [default: as node certificates]
    #[arg(long, value_name = "DURATION", value_parser = crate::flags::duration::parse)]
    ttl: Option<Duration>,
}

pub(crate) async fn run(args: Args, globals: &Globals) -> Outcome {
    let failed = |e: &dyn std::error::Error| Failure::Refused(format!("make a certificate: {}", chain(e)));
    let key = NodeKey::generate().map_err(|e| failed(&e))?;
    let request = IssueAdminCertificateRequest {
        csr: key.request().map_err(|e| failed(&e))?.into(),
        name: args.name,
        ttl_ms: args.ttl.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
    };
    let client = Client::connect(globals).await?;
    let answer = client.control().issue_admin_certificate(request).await?.into_inner();
    let chain = certs_from_pem(&answer.cert_pem).map_err(|e| failed(&e))?;
    let roots = certs_from_pem(&answer.root_cert_pem).map_err(|e| failed(&e))?;
    let credentials = Credentials { key, chain, roots };
    credentials.check().map_err(|e| failed(&e))?;
    let urls: Vec<_> = answer.manager_addrs.iter().map(|addr| format!("tcp://{addr}")).collect();
    let text = format!("{ENDPOINT_LINE}{}\n{}", urls.join(","), credentials.to_pem());
    endpoint::put(&args.output, text.as_bytes())?;
    let file = args.output.display();
    output::line(&format!("Wrote {file}. Whoever has it controls the cluster. On the other machine, run:\n"));
    output::line(&format!("    swarmctl context import NAME {file} && swarmctl context use NAME"));
    Ok(())
}
