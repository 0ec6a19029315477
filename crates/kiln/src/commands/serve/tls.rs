//! The server's certificate and key.

use std::sync::Arc;

use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{config::Tls, exit::Failure, host::private};

/// Reads the files.
///
/// # Errors
/// When one can't be read, others may read the key, or they don't belong together.
pub fn server(tls: &Tls) -> Result<Arc<ServerConfig>, Failure> {
    let wrong = |file: &std::path::Path, why: &dyn std::fmt::Display| {
        Failure::usage(format!("{}: {why}", file.display()))
    };
    let certificates = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&tls.cert, &error))?;
    if certificates.is_empty() {
        return Err(wrong(&tls.cert, &"has no certificate (PEM) in it"));
    }
    let key = private::read(&tls.key)?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&tls.key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Failure::host)?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(&tls.cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
