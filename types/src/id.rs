//! Ids: opaque names that the cluster gives to its objects, and where they come from.
//!
//! An id is 25 characters of base 36 made from 128 random bits (the shape that users know from
//! Docker Swarm). Ids are drawn from an [`IdSource`], a seeded generator, so that whoever decides
//! can be replayed: same seed, same ids.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest id, in bytes.
pub const MAX_ID_BYTES: usize = 25;

/// A text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid id `{0}`: an id has at most 25 printable ASCII characters")]
pub struct InvalidId(pub String);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        // Inline bytes, padded with zeros: a million tasks carry several ids each, and `Copy` keeps
        // the code that compares them free of clones.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name([u8; MAX_ID_BYTES]);

        impl $name {
            /// Takes over an id that the cluster made. Text from outside goes through [`FromStr`],
            /// which refuses what cannot be an id; here it would be cut or come out empty.
            pub fn new(id: impl AsRef<str>) -> Self {
                Self(pad(id.as_ref()))
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                let end = self.0.iter().position(|&b| b == 0).unwrap_or(MAX_ID_BYTES);
                std::str::from_utf8(&self.0[..end]).unwrap_or_default()
            }
            /// True for the id that stands for "none" (also what a missing wire field becomes).
            pub fn is_empty(&self) -> bool {
                self.0[0] == 0
            }
            /// The first 12 characters: what tables show.
            pub fn short(&self) -> &str {
                self.as_str().get(..12).unwrap_or(self.as_str())
            }
            /// The least id there is: where a range over all ids starts.
            pub const MIN: Self = Self([0; MAX_ID_BYTES]);
            /// Above every id: where a range over all ids ends.
            pub const MAX: Self = Self([0xff; MAX_ID_BYTES]);
        }
        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                words(&self.0).cmp(&words(&other.0))
            }
        }
        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let good = text.len() <= MAX_ID_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
                if good { Ok(Self(pad(text))) } else { Err(InvalidId(text.chars().take(64).collect())) }
            }
        }
        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self::new(id)
            }
        }
        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self::new(id)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    )+};
}

/// Two numbers in the order of the bytes (they overlap, which does not matter: where the first are
/// equal, so is the overlap). Ordering ids is what a manager does most; this needs no call.
#[inline]
fn words(bytes: &[u8; MAX_ID_BYTES]) -> (u128, u128) {
    let first = bytes.first_chunk::<16>().expect("an id has more bytes");
    let last = bytes.last_chunk::<16>().expect("an id has more bytes");
    (u128::from_be_bytes(*first), u128::from_be_bytes(*last))
}

fn pad(text: &str) -> [u8; MAX_ID_BYTES] {
    let mut bytes = [0; MAX_ID_BYTES];
    for (to, from) in bytes.iter_mut().zip(text.bytes().take_while(|b| b.is_ascii_graphic())) {
        *to = from;
    }
    bytes
}

ids! {
    /// A service.
    ServiceId,
    /// A task: one run of one container.
    TaskId,
    /// A node, for as long as it belongs to one cluster.
    NodeId,
    /// The cluster itself.
    ClusterId,
    /// A network.
    NetworkId,
    /// One registration of an agent with a dispatcher.
    SessionId,
}

/// Sixteen random bytes from which everything that needs "randomness" to decide is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

/// Draws ids and other unpredictable-enough numbers from a seed: same seed, same sequence.
///
/// Not for secrets: keys and tokens come from the operating system's generator.
#[derive(Debug, Clone)]
pub struct IdSource {
    state: [u64; 2],
}

impl IdSource {
    /// A source that yields the sequence that belongs to `seed`.
    pub fn new(seed: Seed) -> Self {
        let mut s = seed.0;
        Self { state: [split_mix(&mut s), split_mix(&mut s) | 1] }
    }

    /// The next number (xoroshiro128+: small, fast, well spread).
    pub fn next_u64(&mut self) -> u64 {
        let [a, mut b] = self.state;
        let out = a.wrapping_add(b);
        b ^= a;
        self.state = [a.rotate_left(24) ^ b ^ (b << 16), b.rotate_left(37)];
        out
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// A new id: 25 characters of base 36.
    pub fn next_id(&mut self) -> String {
        let high = u128::from(self.next_u64());
        let low = u128::from(self.next_u64());
        base36((high << 64) | low)
    }
}

fn base36(mut n: u128) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut out = [b'0'; 25];
    for slot in out.iter_mut().rev() {
        *slot = DIGITS[usize::try_from(n % 36).expect("below 36")];
        n /= 36;
    }
    out.iter().map(|&b| char::from(b)).collect()
}

fn split_mix(s: &mut u64) -> u64 {
    *s = s.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *s;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_ids() {
        let mut a = IdSource::new(Seed(7));
        let mut b = IdSource::new(Seed(7));
        for _ in 0..100 {
            assert_eq!(a.next_id(), b.next_id());
        }
        assert_ne!(IdSource::new(Seed(8)).next_id(), IdSource::new(Seed(7)).next_id());
    }

    #[test]
    fn foreign_text_is_checked() {
        assert_eq!("abc".parse::<NodeId>().unwrap().as_str(), "abc");
        assert!("a b".parse::<NodeId>().is_err());
        assert!("x".repeat(26).parse::<NodeId>().is_err());
        assert!(NodeId::new("").is_empty());
        assert!(NodeId::new("a") < NodeId::new("aa"));
    }

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let texts = ["", "a", "aa", "ab", "b", "0123456789abcdef", "0123456789abcdeg", "0123456789abcdef0"];
        let long = ["0123456789abcdefghijklmno", "0123456789abcdefghijklmnp", "0123456789abcdefghijklmn"];
        for a in texts.iter().chain(&long) {
            for b in texts.iter().chain(&long) {
                assert_eq!(NodeId::new(a).cmp(&NodeId::new(b)), a.cmp(b), "{a} {b}");
            }
        }
        assert!(NodeId::MIN < NodeId::new("0") && NodeId::new("zzz") < NodeId::MAX);
    }

    #[test]
    fn ids_are_25_characters_and_distinct() {
        let mut source = IdSource::new(Seed(1));
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| source.next_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 25 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
