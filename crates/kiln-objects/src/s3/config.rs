//! Where an object store is, and how one connects to it.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// How long a connection may take to be made, and an answer to go on.
const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(10);
/// How long a request is tried again that failed for a reason that may pass.
const RETRY: Duration = Duration::from_secs(15);

/// Where an object store is, and as whom one comes.
#[derive(Clone)]
pub struct S3Config {
    /// Its URL; none for Amazon's in this region.
    pub endpoint: Option<String>,
    /// What signatures name.
    pub region: String,
    /// The bucket. It must be there.
    pub bucket: String,
    /// What all keys begin with; may be empty.
    pub prefix: String,
    /// Whether the bucket is part of the host's name, not of the path.
    pub virtual_host: bool,
    /// Who comes.
    pub access_key: String,
    /// By what that is proven.
    pub secret_key: String,
    /// Further certificates to trust (PEM).
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP to another host is allowed.
    pub insecure: bool,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// A store that is asked again when it fails, and one that is not.
pub(super) struct Stores {
    pub(super) lasting: AmazonS3,
    pub(super) once: AmazonS3,
}

impl S3Config {
    /// Its URL, for people.
    pub(super) fn place(&self) -> String {
        self.endpoint
            .clone()
            .unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", self.region))
    }

    pub(super) fn stores(&self) -> io::Result<Stores> {
        let endpoint = self.place();
        let plain = match endpoint.split_once("://") {
            Some(("https", _)) => false,
            Some(("http", _)) => true,
            _ => return Err(wrong(format!("`{endpoint}` is no URL of an object store"))),
        };
        if plain && !self.insecure && !is_loopback(&endpoint) {
            return Err(wrong(format!(
                "what is sent to {endpoint} could be read on the way: give an https URL, or allow it by s3-insecure"
            )));
        }
        let connector = Connector(self.client()?);
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                base: 2.0,
            },
            max_retries: usize::MAX,
            retry_timeout: RETRY,
        };
        let never = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        Ok(Stores {
            lasting: self.store(&endpoint, connector.clone(), retry)?,
            once: self.store(&endpoint, connector, never)?,
        })
    }

    fn store(
        &self,
        endpoint: &str,
        connector: Connector,
        retry: RetryConfig,
    ) -> io::Result<AmazonS3> {
        // With the bucket in the host's name the endpoint has to have it already.
        let endpoint = match self.virtual_host {
            true => endpoint.replacen("://", &format!("://{}.", self.bucket), 1),
            false => endpoint.to_owned(),
        };
        AmazonS3Builder::new()
            .with_endpoint(endpoint.trim_end_matches('/'))
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_virtual_hosted_style_request(self.virtual_host)
            .with_allow_http(true)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map_err(|error| wrong(format!("the object store can't be used: {error}")))
    }

    fn client(&self) -> io::Result<reqwest::Client> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls()?)
            // Only the binary reads the environment, and it names no proxy.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .build()
            .map_err(io::Error::other)
    }

    fn tls(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = &self.ca {
            let unread = |why: String| wrong(format!("{}: {why}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| unread(format!("no certificates can be read from it: {error}")))?;
            if certificates.is_empty() {
                return Err(unread(
                    "there is no certificate in it; it should be PEM".into(),
                ));
            }
            for certificate in certificates {
                let added = roots.add(certificate);
                added.map_err(|error| unread(format!("a certificate can't be used: {error}")))?;
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// One client for all.
#[derive(Debug, Clone)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

pub(super) fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Whether a URL's host is this one.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str) -> S3Config {
        S3Config {
            endpoint: Some(endpoint.to_owned()),
            region: "eu-1".to_owned(),
            bucket: "farm".to_owned(),
            prefix: String::new(),
            virtual_host: false,
            access_key: "AKIAEXAMPLE".to_owned(),
            secret_key: "hunter2".to_owned(),
            ca: None,
            insecure: false,
        }
    }

    #[test]
    fn nothing_goes_in_the_clear_to_another_host_unless_that_is_allowed() {
        for clear in [
            "http://s3.example",
            "http://10.0.0.1:9000",
            "http://localhost.example",
        ] {
            let error = config(clear).stores().err().unwrap().to_string();
            assert!(
                error.contains(clear) && error.contains("s3-insecure"),
                "{error}"
            );
            let allowed = S3Config {
                insecure: true,
                ..config(clear)
            };
            assert!(allowed.stores().is_ok());
        }
        for fine in [
            "https://s3.example",
            "http://localhost:9000",
            "http://[::1]:1",
            "http://127.0.0.1",
        ] {
            assert!(config(fine).stores().is_ok(), "{fine}");
        }
        assert!(config("s3.example").stores().is_err());
    }

    #[test]
    fn no_key_is_ever_shown() {
        let text = format!("{:?}", config("https://s3.example"));
        assert!(
            !text.contains("hunter2") && !text.contains("AKIA"),
            "{text}"
        );
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = S3Config {
            ca: Some(file.path().to_owned()),
            ..config("https://s3.example")
        };
        let error = config.stores().err().unwrap().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
