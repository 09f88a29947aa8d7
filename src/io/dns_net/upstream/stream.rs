//! Questions over TCP, TLS and HTTPS, with the streams of `hickory-net`. A TCP connection serves one long answer; TLS and
//! HTTPS connections stay open for the next questions.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_net::NetError;
use hickory_net::h2::HttpsClientStream;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::tls::{default_provider, tls_exchange};
use hickory_net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, Query};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Failure;
use super::message::{self, Match};
use super::server::{Over, Upstream};
use crate::dns64::{Question, UDP_PAYLOAD};

/// The longest that opening a connection may take, handshakes and all.
const OPENING: Duration = Duration::from_secs(3);
/// Questions under way on one connection.
const PIPELINE: usize = 1024;

type Exchange = DnsExchange<TokioRuntimeProvider>;

/// Where systems keep the authorities that they trust, as one PEM file.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The certificate authorities that vouch for upstream resolvers; none at first.
#[derive(Clone, Debug, Default)]
pub struct Trust(Option<Arc<Authorities>>);

#[derive(Debug)]
struct Authorities {
    /// What they were read from.
    pem: Vec<u8>,
    /// What to check certificates with.
    config: Arc<ClientConfig>,
}

/// Why certificates of authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustError(pub String);

impl Trust {
    /// Those in a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let broken = |reason: &dyn fmt::Display| TrustError(reason.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            // A bundle may hold a few that are too odd for the library.
            roots.add_parsable_certificates([certificate.map_err(|e| broken(&e))?]);
        }
        if roots.is_empty() {
            return Err(broken(&"it holds no certificate"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| broken(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(Arc::new(Authorities { pem: pem.to_vec(), config: Arc::new(config) }))))
    }

    /// Those of the system, as they are now.
    pub fn system() -> Result<Self, TrustError> {
        let found = SYSTEM.iter().find_map(|file| Some((file, std::fs::read(file).ok()?)));
        let Some((file, pem)) = found else {
            return Err(TrustError(format!("there is none of {}", SYSTEM.join(", "))));
        };
        Self::from_pem(&pem).map_err(|TrustError(reason)| TrustError(format!("{file}: {reason}")))
    }
}

/// The same file, read once or twice.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(|ours| &ours.pem) == other.0.as_ref().map(|theirs| &theirs.pem)
    }
}

impl Eq for Trust {}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TrustError {}

/// A connection that stays.
pub(super) struct Stream {
    upstream: Upstream,
    trust: Trust,
    /// It owns the tasks that drive the connection.
    provider: TokioRuntimeProvider,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    exchange: Option<Exchange>,
    /// How many connections there were: two questions that see one die make one new one.
    count: u64,
}

impl Stream {
    /// `None` for a server that is asked over UDP.
    pub(super) fn new(upstream: &Upstream, trust: &Trust) -> Option<Self> {
        match upstream.over {
            Over::Udp => None,
            Over::Tls { .. } | Over::Https { .. } => Some(Self {
                upstream: upstream.clone(),
                trust: trust.clone(),
                provider: TokioRuntimeProvider::new(),
                open: Mutex::default(),
            }),
        }
    }

    /// Asks on the open connection; when the server has closed it meanwhile, on a new one.
    pub(super) async fn exchange(&self, question: &Question, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let (exchange, count) = self.connection(None, deadline).await?;
        match ask(&exchange, question).await {
            Err(Failure::Net(_)) => {
                let (exchange, _) = self.connection(Some(count), deadline).await?;
                ask(&exchange, question).await
            }
            result => result,
        }
    }

    /// The open connection, unless it is the one that failed.
    async fn connection(&self, failed: Option<u64>, deadline: Instant) -> Result<(Exchange, u64), Failure> {
        let mut open = self.open.lock().await;
        if let Some(exchange) = &open.exchange
            && failed != Some(open.count)
        {
            return Ok((exchange.clone(), open.count));
        }
        open.exchange = None;
        let left = deadline.saturating_duration_since(Instant::now()).min(OPENING);
        let opened = timeout(left, self.connect()).await.map_err(|_| Failure::Timeout)?;
        let exchange = opened.map_err(Failure::Net)?;
        open.count += 1;
        open.exchange = Some(exchange.clone());
        Ok((exchange, open.count))
    }

    async fn connect(&self) -> Result<Exchange, NetError> {
        let (addr, provider) = (self.upstream.addr, self.provider.clone());
        let Some(Authorities { config, .. }) = self.trust.0.as_deref() else {
            return Err("no certificate authorities to trust".into());
        };
        match &self.upstream.over {
            Over::Udp => Err("no stream".into()),
            Over::Tls { name } => {
                let server = ServerName::try_from(name.clone()).map_err(|e| NetError::from(e.to_string()))?;
                tls_exchange(addr, server, (**config).clone(), OPENING, Some(PIPELINE), provider).await
            }
            Over::Https { name, path } => {
                let builder = HttpsClientStream::builder(config.clone(), provider);
                builder.exchange(addr, name.as_str().into(), path.as_str().into()).await
            }
        }
    }
}

/// One question on a TCP connection of its own.
pub(super) async fn over_tcp(
    addr: SocketAddr,
    question: &Question,
    deadline: Instant,
) -> Result<Vec<u8>, Failure> {
    // The provider owns the task that drives the connection: it has to live until the answer is there.
    let provider = TokioRuntimeProvider::new();
    let left = deadline.saturating_duration_since(Instant::now());
    let exchange = TcpClientStream::exchange(addr, None, left, None, provider.clone()).await;
    ask(&exchange.map_err(Failure::Net)?, question).await
}

async fn ask(exchange: &Exchange, question: &Question) -> Result<Vec<u8>, Failure> {
    let reply = exchange.send(request(question)).first_answer().await.map_err(Failure::Net)?.into_buffer();
    match message::Query::new(question, true).judge(&reply) {
        // A stream needs no mixed letters, and some servers write their own.
        Match::Answer | Match::OtherCase => Ok(reply),
        Match::Bare | Match::Stranger => Err(Failure::Stranger),
    }
}

fn request(question: &Question) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.authentic_data = question.authentic_data;
    let mut query = Query::query(question.name.clone(), question.record_type);
    query.query_class = question.class;
    message.queries.push(query);
    let mut opt = Edns::new();
    opt.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(question.dnssec_ok);
    message.edns = Some(opt);
    DnsRequest::new(message, DnsRequestOptions::default())
}
