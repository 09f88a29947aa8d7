//! The certificate with which TLS and HTTPS listeners show themselves. It is read once and replaced while the service
//! runs: every handshake takes the one in force.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_net::tls::default_provider;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::answer::Active;

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

/// A certificate or key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError(String);

impl Certificate {
    /// From PEM: the chain, the server's own certificate first, and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let broken = |what: &str, reason: &dyn fmt::Display| CertificateError(format!("{what}: {reason}"));
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| broken("certificate", &e))?;
        if chain.is_empty() {
            return Err(broken("certificate", &"the file holds none"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| broken("key", &e))?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider());
        // The library also finds out here when the key belongs to another certificate.
        Ok(Self(Arc::new(certified.map_err(|e| broken("certificate and key", &e))?)))
    }
}

/// The same chain, and so the same public key: then it does not matter which of two private keys is used.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Certificate {}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

/// What accepts handshakes for this protocol (ALPN, RFC 7301).
pub(super) fn acceptor(active: &Arc<ArcSwap<Active>>, protocol: &[u8]) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(InForce(Arc::clone(active))));
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificate of the settings in force.
struct InForce(Arc<ArcSwap<Active>>);

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InForce")
    }
}

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().config.certificate.as_ref().map(|certificate| Arc::clone(&certificate.0))
    }
}
