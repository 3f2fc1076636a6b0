//! Keys of a node: a secret that is never shown, and a public key with a text form.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Octets in a key of either kind.
pub const KEY_LEN: usize = 32;

/// The public half of a [`KeyPair`]. Its text is base64, as everywhere with WireGuard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// Whether this can be anyone's key. Zero is the one value that a forgotten field would have, and with it
    /// the shared secret would be known to everybody.
    pub fn is_valid(&self) -> bool {
        self.0 != [0; KEY_LEN]
    }

    pub(crate) fn point(&self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// What was given is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read public key: not {KEY_LEN} octets in base64, or all zero")]
pub struct BadKey;

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let octets = STANDARD.decode(text).map_err(|_| BadKey)?;
        let key = PublicKey(octets.try_into().map_err(|_| BadKey)?);
        if key.is_valid() { Ok(key) } else { Err(BadKey) }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = BadKey;

    fn try_from(text: String) -> Result<Self, BadKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// An X25519 key pair. The secret is wiped from memory when the last copy is dropped, and no way of printing
/// the pair shows it.
#[derive(Clone)]
pub struct KeyPair {
    secret: x25519::StaticSecret,
    public: PublicKey,
}

impl KeyPair {
    /// A new pair. `fill` writes random octets and is the only source of the secret: it has to be one that is
    /// fit for keys (the kernel's), and its error is handed through.
    pub fn generate<E>(fill: impl FnOnce(&mut [u8; KEY_LEN]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        fill(&mut secret)?;
        Ok(Self::from_secret(&secret))
    }

    /// The pair of a secret that was saved.
    pub fn from_secret(secret: &[u8; KEY_LEN]) -> Self {
        let secret = x25519::StaticSecret::from(*secret);
        let public = PublicKey(x25519::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret, to be saved where nobody else may read.
    pub fn secret(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    pub(crate) fn scalar(&self) -> x25519::StaticSecret {
        self.secret.clone()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(first: u8) -> KeyPair {
        KeyPair::from_secret(&[first; KEY_LEN])
    }

    #[test]
    fn text_and_back() {
        let public = pair(7).public();
        assert_eq!(public.to_string().len(), 44);
        assert_eq!(public.to_string().parse(), Ok(public));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let zero = PublicKey([0; KEY_LEN]).to_string();
        for text in ["", "abc", "not base64!", zero.as_str(), "AAAA", "\u{0}"] {
            assert_eq!(text.parse::<PublicKey>(), Err(BadKey), "{text}");
        }
    }

    #[test]
    fn saved_and_read_again_is_the_same() {
        let made = KeyPair::generate(|octets| {
            octets.copy_from_slice(&[9; KEY_LEN]);
            Ok::<(), ()>(())
        });
        let made = made.expect("filled");
        assert_eq!(KeyPair::from_secret(&made.secret()).public(), made.public());
    }

    #[test]
    fn no_entropy_no_key() {
        assert_eq!(KeyPair::generate(|_| Err("none")).err(), Some("none"));
    }

    #[test]
    fn debug_hides_the_secret() {
        let pair = pair(0xab);
        let shown = format!("{pair:?} {pair:#?}");
        assert!(shown.contains(&pair.public().to_string()));
        let secret = pair.secret();
        assert!(!shown.contains(&STANDARD.encode(*secret)), "{shown}");
        assert!(!shown.contains("171, 171") && !shown.contains("abab"), "{shown}");
    }
}
