//! Where log lines go: to standard error, for the service manager to keep.

use tracing_subscriber::EnvFilter;

use crate::args::{Args, LogFormat};

/// Starts logging.
///
/// # Errors
/// If the filter is not one.
pub(crate) fn start(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
