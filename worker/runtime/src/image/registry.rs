//! [`Registry`]: one registry, spoken to with deadlines and a bounded number of tries. The only file that names the client library.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, SizedStream,
};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth as ClientAuth;
use oci_client::{Client, Reference as ClientReference};

use super::auth::RegistryAuth;
use super::digest::Digest;
use super::error::{ErrorClass, PullError};
use super::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::reference::Reference;

/// A try that brought so many bytes starts the count of tries anew.
const GOOD_PIECE: u64 = 1 << 20;

const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// `host:port` that may be spoken to without TLS. Loopback addresses always may.
    pub insecure_registries: Vec<String>,
    /// PEM certificates trusted besides the system's.
    pub ca_pems: Vec<Vec<u8>>,
    /// A registry that sends nothing for so long is given up.
    pub stall: Duration,
    /// How often a thing is tried in all.
    pub attempts: u32,
    /// Between the first and the second try; doubles after each, up to 5 s.
    pub backoff: Duration,
    /// Layers of one image that are fetched at the same time.
    pub parallel_layers: usize,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            insecure_registries: Vec::new(),
            ca_pems: Vec::new(),
            stall: Duration::from_secs(60),
            attempts: 4,
            backoff: Duration::from_millis(250),
            parallel_layers: 3,
        }
    }
}

/// One registry, for one pull.
pub(crate) struct Registry<'a> {
    settings: &'a RegistrySettings,
    reference: &'a Reference,
    auth: ClientAuth,
    client: Mutex<Arc<Client>>,
    may_be_plain: bool,
}

/// A try that failed: over for good, or worth another.
enum Failed {
    Stalled,
    Answer(OciDistributionError),
}

impl<'a> Registry<'a> {
    pub(crate) fn new(
        settings: &'a RegistrySettings,
        reference: &'a Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Self, PullError> {
        // only fails if somebody installed one before
        drop(rustls::crypto::ring::default_provider().install_default());
        let auth =
            auth.map_or(ClientAuth::Anonymous, |a| ClientAuth::Basic(a.username.clone(), a.password.clone()));
        let host = reference.domain();
        let may_be_plain = is_loopback(host) || settings.insecure_registries.iter().any(|r| r == host);
        let client = client(settings, ClientProtocol::Https).map_err(|e| wrap(reference, "set up TLS", e))?;
        Ok(Registry { settings, reference, auth, client: Mutex::new(Arc::new(client)), may_be_plain })
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The manifest's bytes, as they are, and their digest.
    pub(crate) async fn manifest(&self, digest: Option<&Digest>) -> Result<(Vec<u8>, Digest), PullError> {
        let at = self.address(digest);
        let what =
            format!("get manifest {}", digest.map_or_else(|| self.reference.familiar(), Digest::to_string));
        let bytes = self.try_often(&what, true, || async {
            let client = self.client();
            let (bytes, _) = client.pull_manifest_raw(&at, &self.auth, &ACCEPTED).await?;
            Ok(bytes)
        });
        let bytes = bytes.await?;
        let actual = Digest::of(&bytes);
        if let Some(wanted) = digest.or(self.reference.digest()).filter(|d| **d != actual) {
            return Err(PullError::Digest { what: "manifest".into(), wanted: wanted.clone(), actual });
        }
        Ok((bytes.to_vec(), actual))
    }

    /// Reads a blob into `sink` from the start; `sink` is told where each piece belongs, for a broken stream is taken up where it
    /// broke. The digest is the caller's to check.
    pub(crate) async fn blob(
        &self,
        digest: &Digest,
        size: u64,
        sink: &mut dyn BlobSink,
    ) -> Result<(), PullError> {
        let at = self.address(None);
        let what = format!("get blob {digest}");
        let mut tries = Tries::new(self.settings);
        let mut offset = 0;
        while offset < size {
            let before = offset;
            match self.blob_once(&at, digest, size, &mut offset, sink).await? {
                None => return Ok(()),
                Some(Failed::Stalled) => return Err(self.stalled(&what)),
                Some(Failed::Answer(e)) => {
                    let progressed = offset.saturating_sub(before) >= GOOD_PIECE;
                    if classify(&e) == ErrorClass::Fatal || !tries.wait(progressed).await {
                        return Err(self.failed(&what, e));
                    }
                }
            }
        }
        Ok(())
    }

    async fn blob_once(
        &self,
        at: &ClientReference,
        digest: &Digest,
        size: u64,
        offset: &mut u64,
        sink: &mut dyn BlobSink,
    ) -> Result<Option<Failed>, PullError> {
        let mut stream = match self.open_blob(at, digest, *offset).await {
            Ok((stream, from)) => {
                *offset = from;
                stream
            }
            Err(failed) => return Ok(Some(failed)),
        };
        loop {
            let Ok(next) = tokio::time::timeout(self.settings.stall, stream.next()).await else {
                return Ok(Some(Failed::Stalled));
            };
            match next {
                None if *offset < size => {
                    return Ok(Some(Failed::Answer(
                        std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
                    )));
                }
                None => return Ok(None),
                // all of it came: what the library says of its digest is found out again, and said better
                Some(Err(_)) if *offset >= size => return Ok(None),
                Some(Err(e)) => return Ok(Some(Failed::Answer(e.into()))),
                Some(Ok(bytes)) => {
                    if *offset + bytes.len() as u64 > size {
                        return Err(PullError::Size { what: format!("blob {digest}"), wanted: size });
                    }
                    sink.write(*offset, &bytes).await?;
                    *offset += bytes.len() as u64;
                }
            }
        }
    }

    /// The stream, and where it starts: at `offset`, or at 0 if the registry cannot do that.
    async fn open_blob(
        &self,
        at: &ClientReference,
        digest: &Digest,
        offset: u64,
    ) -> Result<(SizedStream, u64), Failed> {
        let client = self.client();
        let descriptor =
            oci_client::manifest::OciDescriptor { digest: digest.to_string(), ..Default::default() };
        let open = async {
            if offset == 0 {
                return client.pull_blob_stream(at, &descriptor).await.map(|s| (s, 0));
            }
            match client.pull_blob_stream_partial(at, &descriptor, offset, None).await? {
                BlobResponse::Full(s) => Ok((s, 0)),
                BlobResponse::Partial(s) => Ok((s, offset)),
            }
        };
        match tokio::time::timeout(self.settings.stall, open).await {
            Err(_) => Err(Failed::Stalled),
            Ok(opened) => opened.map_err(Failed::Answer),
        }
    }

    async fn try_often<T, F: Future<Output = Result<T, OciDistributionError>>>(
        &self,
        what: &str,
        first_contact: bool,
        work: impl Fn() -> F,
    ) -> Result<T, PullError> {
        let mut tries = Tries::new(self.settings);
        let mut may_be_plain = self.may_be_plain && first_contact;
        loop {
            let Ok(done) = tokio::time::timeout(self.settings.stall, work()).await else {
                return Err(self.stalled(what));
            };
            match done {
                Ok(value) => return Ok(value),
                Err(e) if may_be_plain && speaks_no_tls(&e) => {
                    may_be_plain = false;
                    self.go_plain()?;
                }
                Err(e) if classify(&e) == ErrorClass::Fatal || !tries.wait(false).await => {
                    return Err(self.failed(what, e));
                }
                Err(_) => {}
            }
        }
    }

    fn go_plain(&self) -> Result<(), PullError> {
        let plain = client(self.settings, ClientProtocol::Http)
            .map_err(|e| wrap(self.reference, "set up HTTP", e))?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plain);
        Ok(())
    }

    fn address(&self, digest: Option<&Digest>) -> ClientReference {
        let (domain, path) = (self.reference.domain().to_string(), self.reference.path().to_string());
        match digest.or(self.reference.digest()) {
            Some(digest) => ClientReference::with_digest(domain, path, digest.to_string()),
            None => {
                ClientReference::with_tag(domain, path, self.reference.tag().unwrap_or("latest").to_string())
            }
        }
    }

    fn stalled(&self, what: &str) -> PullError {
        let (registry, what) = (self.reference.domain().to_string(), what.to_string());
        PullError::Stalled { registry, what, seconds: self.settings.stall.as_secs() }
    }

    fn failed(&self, what: &str, error: OciDistributionError) -> PullError {
        let codes = |wanted: &[OciErrorCode]| match &error {
            OciDistributionError::RegistryError { envelope, .. } => {
                envelope.errors.iter().any(|e| wanted.contains(&e.code))
            }
            _ => false,
        };
        let refused = codes(&[OciErrorCode::Unauthorized, OciErrorCode::Denied])
            || matches!(
                error,
                OciDistributionError::UnauthorizedError { .. }
                    | OciDistributionError::AuthenticationFailure(_)
            );
        if refused && self.auth == ClientAuth::Anonymous {
            return PullError::Denied { name: self.reference.familiar_name() };
        }
        if refused {
            return PullError::Unauthorized { registry: self.reference.domain().into() };
        }
        let unknown =
            codes(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound])
                || matches!(error, OciDistributionError::ImageManifestNotFoundError(_));
        if unknown {
            return PullError::ManifestUnknown { reference: self.reference.familiar() };
        }
        wrap(self.reference, what, error)
    }
}

/// Takes a blob's pieces.
pub(crate) trait BlobSink: Send {
    /// `bytes` belong at `offset`: where the last ones ended, or at 0 to start again.
    fn write<'a>(
        &'a mut self,
        offset: u64,
        bytes: &'a [u8],
    ) -> futures::future::BoxFuture<'a, Result<(), PullError>>;
}

/// Counts tries and waits between them.
struct Tries {
    left: u32,
    attempts: u32,
    backoff: Duration,
}

impl Tries {
    fn new(settings: &RegistrySettings) -> Tries {
        Tries { left: settings.attempts, attempts: settings.attempts, backoff: settings.backoff }
    }

    /// Waits for the next try; false if there is none. A try that brought a good piece is not held against the registry.
    async fn wait(&mut self, progressed: bool) -> bool {
        if progressed {
            self.left = self.attempts;
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return false;
        }
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(Duration::from_secs(5));
        true
    }
}

fn client(settings: &RegistrySettings, protocol: ClientProtocol) -> Result<Client, OciDistributionError> {
    let certificate = |pem: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() };
    Client::try_from(ClientConfig {
        protocol,
        extra_root_certificates: settings.ca_pems.iter().map(certificate).collect(),
        connect_timeout: Some(settings.stall),
        user_agent: concat!("swarmd/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

fn wrap(reference: &Reference, what: &str, error: OciDistributionError) -> PullError {
    let class = classify(&error);
    PullError::Registry {
        registry: reference.domain().into(),
        what: what.into(),
        class,
        source: Box::new(error),
    }
}

fn classify(error: &OciDistributionError) -> ErrorClass {
    let temporary = match error {
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code >= 500 || matches!(code, 408 | 429),
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|e| e.code == OciErrorCode::Toomanyrequests)
        }
        _ => false,
    };
    if temporary { ErrorClass::Temporary } else { ErrorClass::Fatal }
}

/// The other side closed or answered something that is no TLS. A certificate that is not trusted is TLS.
fn speaks_no_tls(error: &OciDistributionError) -> bool {
    let OciDistributionError::RequestError(e) = error else { return false };
    let mut text = String::new();
    let mut at: Option<&dyn std::error::Error> = Some(e);
    while let Some(e) = at {
        text.push_str(&e.to_string());
        at = e.source();
    }
    !e.is_timeout() && !text.contains("certificate") && !text.contains("refused") && e.is_connect()
}

/// `localhost`, 127.0.0.0/8 and ::1, with or without a port.
fn is_loopback(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.split(']').next()) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok_and(|a| a.is_loopback());
    }
    let name = host.split(':').next().unwrap_or(host);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_trusted_without_tls() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["127.evil.com", "localhost.evil.com:1", "10.0.0.1:5000", "docker.io", "[::2]:1"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
