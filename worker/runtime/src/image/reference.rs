//! [`Reference`]: the name of an image as people write it, normalised as Docker does.
//!
//! `nginx` means `docker.io/library/nginx:latest`. Grammar: distribution's reference grammar, as Docker documents it.

use std::fmt;

use super::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A normalised image name: where it lives, what it is called, and which one of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text names no image. The words are Docker's.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name must be lowercase")]
    Uppercase,
    /// The name is longer than 255 characters.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    /// The name would be mistaken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// Only sha256 digests are understood.
    #[error("unsupported digest algorithm in `{0}`")]
    Algorithm(String),
}

impl Reference {
    /// Reads a name as a person writes it. Without tag and digest, the tag is `latest`.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if Digest::from_hex(text).is_some() {
            return Err(ReferenceError::LooksLikeId(text.to_string()));
        }
        let (rest, digest) = split_digest(text)?;
        let (domain, remote) = split_domain(rest);
        let (path, tag) = split_tag(&remote)?;
        check_path(&path)?;
        if !is_domain(&domain) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_string()));
        Ok(Reference { domain, path, tag, digest })
    }

    /// The registry's host and port, `docker.io` if none was written.
    pub fn domain(&self) -> &str {
        &self.domain
    }
    /// The repository within the registry, `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
    /// Registry and repository: `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
    /// Registry and repository, as people write it: `nginx`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short.to_string(),
            _ => self.path.clone(),
        }
    }
    /// The whole, as people write it: `nginx:1`, `nginx@sha256:…`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }
    /// The same repository by `digest` alone.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }
    /// The same, without the tag if there is a digest: the digest alone says which image is meant.
    pub(crate) fn canonical(&self) -> Reference {
        match &self.digest {
            Some(digest) => self.with_digest(digest.clone()),
            None => self.clone(),
        }
    }
    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|d| format!("@{d}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    /// The normalised whole: `docker.io/library/nginx:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name(), self.suffix())
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Reference::parse(text)
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    let Some((rest, digest)) = text.split_once('@') else { return Ok((text, None)) };
    match Digest::parse(digest) {
        Ok(digest) => Ok((rest, Some(digest))),
        Err(_) if digest.starts_with("sha512:") => Err(ReferenceError::Algorithm(digest.to_string())),
        Err(_) => Err(ReferenceError::Format),
    }
}

/// What stands before the first slash is a host if it has a dot, a port or capitals, or is `localhost`.
fn split_domain(text: &str) -> (String, String) {
    let (mut domain, mut remote) = match text.split_once('/') {
        Some((host, rest)) if is_host_like(host) => (host.to_string(), rest.to_string()),
        _ => (DEFAULT_DOMAIN.to_string(), text.to_string()),
    };
    if domain == LEGACY_DOMAIN {
        domain = DEFAULT_DOMAIN.to_string();
    }
    if domain == DEFAULT_DOMAIN && !remote.contains('/') {
        remote.insert_str(0, OFFICIAL);
    }
    (domain, remote)
}

fn is_host_like(host: &str) -> bool {
    host.contains(['.', ':']) || host == "localhost" || host.chars().any(|c| c.is_ascii_uppercase())
}

fn split_tag(remote: &str) -> Result<(String, Option<String>), ReferenceError> {
    let Some((path, tag)) = remote.split_once(':') else { return Ok((remote.to_string(), None)) };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next().is_some_and(word);
    let all = tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if !first || !all || tag.len() > TAG_MAX {
        // a capital before the tag is the likelier mistake to name
        return Err(if path.chars().any(|c| c.is_ascii_uppercase()) {
            ReferenceError::Uppercase
        } else {
            ReferenceError::Format
        });
    }
    Ok((path.to_string(), Some(tag.to_string())))
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(ReferenceError::Uppercase);
    }
    if path.split('/').all(is_component) { Ok(()) } else { Err(ReferenceError::Format) }
}

/// `[a-z0-9]+`, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(alnum) || !bytes.last().is_some_and(alnum) {
        return false;
    }
    bytes.split(alnum).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rfind(':') {
        Some(at) if !domain.ends_with(']') => (&domain[..at], Some(&domain[at + 1..])),
        _ => (domain, None),
    };
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker() {
        let with_digest = format!("nginx@{D}");
        let both = format!("nginx:1.2@{D}");
        let (long, long_both) =
            (format!("docker.io/library/nginx@{D}"), format!("docker.io/library/nginx:1.2@{D}"));
        for (text, normal, familiar) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1", "docker.io/library/nginx:1", "nginx:1"),
            ("bob/app", "docker.io/bob/app:latest", "bob/app:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("index.docker.io/bob/app:x", "docker.io/bob/app:x", "bob/app:x"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            (
                "localhost:5000/a/b-c__d.e:T_1",
                "localhost:5000/a/b-c__d.e:T_1",
                "localhost:5000/a/b-c__d.e:T_1",
            ),
            ("reg.example.com/app", "reg.example.com/app:latest", "reg.example.com/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            (&with_digest, &long, &with_digest),
            (&both, &long_both, &both),
        ] {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(parsed.to_string(), *normal, "{text}");
            assert_eq!(parsed.familiar(), *familiar, "{text}");
            assert_eq!(Reference::parse(&parsed.familiar()).unwrap(), parsed);
        }
    }

    #[test]
    fn refuses_what_docker_refuses_with_its_words() {
        for text in ["Nginx", "nginx/Foo:1", "docker.io/Nginx", "Foo:"] {
            assert_eq!(
                Reference::parse(text).unwrap_err().to_string(),
                "invalid reference format: repository name must be lowercase",
                "{text}"
            );
        }
        let bad_tag = format!("a:{}", "x".repeat(129));
        for text in [
            "",
            ":",
            "a:",
            "a:-x",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a b",
            "a@sha256:12",
            "a/../b",
            "/a",
            "x.y:port/a",
            &bad_tag,
        ] {
            assert_eq!(Reference::parse(text), Err(ReferenceError::Format), "{text}");
        }
        assert_eq!(Reference::parse(&"a".repeat(300)), Err(ReferenceError::TooLong));
        assert!(matches!(Reference::parse(&D[7..]), Err(ReferenceError::LooksLikeId(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,80}") {
            if let Ok(r) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&r.to_string()).unwrap(), r.clone());
                prop_assert_eq!(Reference::parse(&r.familiar()).unwrap(), r);
            }
        }
        #[test]
        fn name_like_text_survives_its_own_print(text in "[a-z0-9.:/@_-]{0,40}") {
            if let Ok(r) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&r.to_string()).unwrap(), r.clone());
                prop_assert_eq!(Reference::parse(&r.familiar()).unwrap(), r);
            }
        }
    }
}
