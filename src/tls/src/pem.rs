//! Certificates and keys from PEM, and what a server makes of them.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::Error;

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// When there is none, or one is malformed.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(Error::new("no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(Error::new(error)),
    }
}

/// The private key of a PEM text.
///
/// # Errors
/// When there is none, or it is malformed.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(Error::new)
}

/// A server that shows this certificate and speaks these protocols: TLS 1.2 or 1.3, without
/// compression and without early data.
///
/// # Errors
/// When the key is not that of the certificate, or of a kind that is not known.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, Error> {
    // Named, so that another provider elsewhere in the process does not make the choice ambiguous.
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(Error::new)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(Error::new)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (one, other) = (make(), make());
        let config = |key: &rcgen::KeyPair| {
            let chain = chain(one.cert.pem().as_bytes()).unwrap();
            let key = private_key(key.serialize_pem().as_bytes()).unwrap();
            server_config(chain, key, &[b"http/1.1"])
        };
        assert_eq!(config(&one.signing_key).unwrap().alpn_protocols, [b"http/1.1"]);
        assert!(config(&other.signing_key).is_err());
        assert!(chain(b"").is_err());
        assert!(private_key(one.cert.pem().as_bytes()).is_err());
    }
}
