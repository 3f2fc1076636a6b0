//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`.
//!
//! The first part lets a node recognise the cluster before it says anything; the second, which is secret,
//! lets the cluster recognise the node and decides its role. The form is Docker Swarm's: 50 and 25 digits of
//! base 36.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};

use crate::base36;
use crate::digest::Digest;

const PREFIX: &str = "SWMTKN-1-";
const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

/// A join token. `Display` writes the whole token, secret included; `Debug` hides the secret.
#[derive(Clone)]
pub struct JoinToken {
    digest: Digest,
    secret: [u8; 16],
}

/// A text that is no join token. (It is not repeated in the message: it may be nearly one.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The shape is wrong.
    #[error("invalid join token: expected SWMTKN-1-, 50 characters, a dash and 25 characters")]
    Shape,
    /// A part has other characters than 0-9 and a-z, or a value that is too large.
    #[error("invalid join token: malformed {0}")]
    Part(&'static str),
}

/// The system's generator failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("draw the secret of a join token")]
pub struct NoRandom;

impl JoinToken {
    /// A token with a new secret for the cluster whose root has `digest`.
    pub fn generate(digest: Digest) -> Result<Self, NoRandom> {
        let mut secret = [0; 16];
        SystemRandom::new().fill(&mut secret).map_err(|_| NoRandom)?;
        Ok(Self { digest, secret })
    }

    /// The digest of the root certificate that the token pins.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The same secret for another root (when the root changes and the tokens stay).
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest, secret: self.secret }
    }

    /// Whether both tokens hold the same secret, in a time that tells nothing about where they differ.
    pub fn same_secret(&self, other: &JoinToken) -> bool {
        let differing = self.secret.iter().zip(&other.secret).fold(0u8, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (digest, secret) =
            text.strip_prefix(PREFIX).and_then(|t| t.split_once('-')).ok_or(TokenError::Shape)?;
        if digest.len() != DIGEST_DIGITS || secret.len() != SECRET_DIGITS {
            return Err(TokenError::Shape);
        }
        Ok(Self {
            digest: Digest(base36::decode(digest).ok_or(TokenError::Part("digest"))?),
            secret: base36::decode(secret).ok_or(TokenError::Part("secret"))?,
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36::encode(&self.digest.0, DIGEST_DIGITS);
        let secret = base36::encode(&self.secret, SECRET_DIGITS);
        write!(f, "{PREFIX}{digest}-{secret}")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({:?}, secret)", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_back() {
        let token = JoinToken::generate(Digest::of(b"root")).unwrap();
        let text = token.to_string();
        assert_eq!(text.len(), 9 + 50 + 1 + 25);
        let again: JoinToken = text.parse().unwrap();
        assert_eq!(again.digest(), Digest::of(b"root"));
        assert!(again.same_secret(&token));
        assert_eq!(again.to_string(), text);
        assert!(!JoinToken::generate(Digest::of(b"root")).unwrap().same_secret(&token));
        assert_eq!(token.with_digest(Digest::of(b"new")).to_string()[59..], text[59..]);
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = JoinToken::generate(Digest::of(b"root")).unwrap();
        let shown = format!("{token:?}");
        assert!(!shown.contains(&token.to_string()[60..]), "{shown}");
        assert!(!shown.contains(&hex::encode(token.secret)), "{shown}");
        assert!(!shown.contains(&format!("{:?}", token.secret)), "{shown}");
    }

    #[test]
    fn one_digit_makes_another_secret() {
        let zero = JoinToken { digest: Digest([0; 32]), secret: [0; 16] };
        for at in 0..16 {
            let mut other = zero.clone();
            other.secret[at] = 0x80;
            assert!(!zero.same_secret(&other));
        }
    }

    #[test]
    fn refuses_everything_else() {
        let good = JoinToken::generate(Digest::of(b"root")).unwrap().to_string();
        let too_large = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        let bad = [
            String::new(),
            "SWMTKN-1-".into(),
            good.replace("SWMTKN-1", "SWMTKN-2"),
            good.to_uppercase(),
            format!("{good} "),
            format!("{good}-"),
            good[..good.len() - 1].to_owned(),
            good.replace("-1-", "-1--"),
            too_large,
        ];
        for text in bad {
            let error = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(error.starts_with("invalid join token"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in ".{0,120}") {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }

        #[test]
        fn any_token_shape_never_panics(text in "SWMTKN-1-[0-9a-zé-]{50}-[0-9a-z]{25}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
