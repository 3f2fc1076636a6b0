//! [`RegistryAuth`]: a name and a password for a registry, given or read from Docker's `config.json`.

use std::fmt;

use serde::Deserialize;

use super::reference::Reference;

/// A name and a password. Its `Debug` hides the password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryAuth {
    /// The user's name.
    pub username: String,
    /// The password, or an access token in its place.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A credential file cannot be used. Never shows its content.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// No JSON of the known shape.
    #[error("read registry credentials")]
    Json(#[source] serde_json::Error),
    /// An `auth` field that is not base64 of `name:password`.
    #[error("read registry credentials for `{0}`")]
    Encoding(String),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

/// The credentials for `reference` in Docker's `config.json` (field `auths`; credential helpers are programs and not run here).
pub fn auth_for(config_json: &[u8], reference: &Reference) -> Result<Option<RegistryAuth>, AuthFileError> {
    let file: File = serde_json::from_slice(config_json).map_err(AuthFileError::Json)?;
    let Some((key, entry)) = file.auths.into_iter().find(|(key, _)| host_of(key) == reference.domain())
    else {
        return Ok(None);
    };
    if !entry.username.is_empty() {
        return Ok(Some(RegistryAuth { username: entry.username, password: entry.password }));
    }
    if entry.auth.is_empty() {
        return Ok(None);
    }
    let text = base64(&entry.auth).and_then(|b| String::from_utf8(b).ok());
    let pair = text.as_deref().and_then(|t| t.split_once(':'));
    let (username, password) = pair.ok_or(AuthFileError::Encoding(key))?;
    Ok(Some(RegistryAuth { username: username.into(), password: password.trim_end_matches('\0').into() }))
}

/// Docker Hub's key is a URL of an API that is long gone.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// RFC 4648 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut have) = (Vec::new(), 0u32, 0u32);
    for c in text.trim().trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from((bits >> have) & 0xff).expect("masked to a byte"));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_registry_of_the_image() {
        let json = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"Ym9iOnM6ZWNyZXQ="},"reg:5000":{"username":"u","password":"p"},"bad":{"auth":"!!"},"empty.io":{}},"credsStore":"x"}"#;
        let find = |name: &str| auth_for(json, &Reference::parse(name).unwrap());
        let bob = find("nginx").unwrap().unwrap();
        assert_eq!((bob.username.as_str(), bob.password.as_str()), ("bob", "s:ecret"));
        assert!(!format!("{bob:?}").contains("ecret"));
        assert_eq!(find("reg:5000/a").unwrap().unwrap().password, "p");
        assert!(find("other.io/a").unwrap().is_none() && find("empty.io/a").unwrap().is_none());
        assert!(auth_for(b"{", &Reference::parse("a").unwrap()).is_err());
    }
}
