//! The one place where seeds and keys of the tunnel are drawn from the operating system.

use ring::rand::{SecureRandom, SystemRandom};
use swarm_types::id::Seed;

/// The system gives no random numbers: nothing can be done then.
#[derive(Debug, thiserror::Error)]
#[error("draw a seed from the system's random numbers")]
pub(crate) struct NoEntropy;

/// A fresh seed.
pub(crate) fn seed() -> Result<Seed, NoEntropy> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(Seed(u64::from_be_bytes(bytes)))
}

/// Random octets that are fit for keys.
pub(crate) fn fill(octets: &mut [u8; 32]) -> std::io::Result<()> {
    SystemRandom::new().fill(octets).map_err(|_| std::io::Error::other(NoEntropy))
}
