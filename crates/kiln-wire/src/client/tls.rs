//! TLS to a server: whom to trust.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::ClientError;

/// Trusts what this host trusts, and the certificates of a file.
pub(super) fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, ClientError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (_, unread) = roots.add_parsable_certificates(native.certs);
    tracing::debug!(unread, errors = ?native.errors, "the host's certificates are read");
    if let Some(path) = ca {
        for certificate in read(path)? {
            roots.add(certificate).map_err(|error| {
                ClientError::Wrong(format!(
                    "a certificate in {} can't be used: {error}",
                    path.display()
                ))
            })?;
        }
    }
    if roots.is_empty() {
        return Err(ClientError::Wrong(
            "this host trusts no certificates; install ca-certificates, or give a file by --ca"
                .to_owned(),
        ));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Wrong(format!("TLS can't be used here: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let wrong = |why: String| ClientError::Wrong(format!("{}: {why}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("no certificates can be read from it: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong(
            "there is no certificate in it; it should be PEM".to_owned(),
        ));
    }
    Ok(certificates)
}
