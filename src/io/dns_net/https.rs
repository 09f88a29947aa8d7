//! DNS over HTTPS (RFC 8484) on one connection: HTTP/2, GET and POST.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use hickory_proto::op::Message;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};

use super::answer::Shared;
use super::tcp::PIPELINE;
use crate::dns64::{Meta, Transport};

/// The media type of a DNS message (RFC 8484 §6).
const MEDIA_TYPE: &str = "application/dns-message";
/// The longest message.
const LONGEST: usize = u16::MAX as usize;

type Reply = Response<Full<Bytes>>;

/// Serves a connection until it ends or nothing is asked for too long.
pub(super) async fn talk<S>(stream: S, peer: SocketAddr, shared: &Arc<Shared>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(Asked::new());
    let service = {
        let (asked, shared) = (Arc::clone(&asked), Arc::clone(shared));
        service_fn(move |request| {
            asked.now();
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(request, peer, &shared).await) }
        })
    };
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(PIPELINE as u32)
        .max_header_list_size(16 << 10)
        .initial_connection_window_size(1 << 17)
        .initial_stream_window_size(1 << 16);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let idle = shared.limits().tcp_idle;
    tokio::select! {
        ended = connection => ended.map_err(io::Error::other),
        () = asked.silent_for(idle) => Ok(()),
    }
}

/// When the last request came.
struct Asked {
    origin: Instant,
    millis: AtomicU64,
}

impl Asked {
    fn new() -> Self {
        Self { origin: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn now(&self) {
        self.millis.store(self.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns once nothing was asked for so long.
    async fn silent_for(&self, idle: std::time::Duration) {
        loop {
            let last = std::time::Duration::from_millis(self.millis.load(Ordering::Relaxed));
            let silent = self.origin.elapsed().saturating_sub(last);
            match idle.checked_sub(silent) {
                Some(left) if !left.is_zero() => sleep(left).await,
                Some(_) | None => return,
            }
        }
    }
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, shared: &Shared) -> Reply {
    if request.uri().path() != shared.active().config.https_path() {
        return status(StatusCode::NOT_FOUND);
    }
    let query = match *request.method() {
        Method::GET => match parameter(request.uri().query().unwrap_or_default()) {
            Some(query) => query,
            None => return status(StatusCode::BAD_REQUEST),
        },
        Method::POST => {
            if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != MEDIA_TYPE) {
                return status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let body = Limited::new(request.into_body(), LONGEST).collect();
            match timeout(shared.limits().tcp_idle, body).await {
                Ok(Ok(body)) => body.to_bytes().to_vec(),
                Ok(Err(_)) => return status(StatusCode::PAYLOAD_TOO_LARGE),
                Err(_) => return status(StatusCode::REQUEST_TIMEOUT),
            }
        }
        _ => {
            let mut reply = status(StatusCode::METHOD_NOT_ALLOWED);
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            return reply;
        }
    };
    let meta = Meta { client: peer.ip(), transport: Transport::Https };
    match shared.answer(&query, &meta).await {
        // RFC 8484 §4.2.1: also an error of the DNS is a success of HTTP.
        Some(reply) => message(reply),
        None => status(StatusCode::BAD_REQUEST),
    }
}

/// The message in `dns=` (RFC 8484 §4.1).
fn parameter(query: &str) -> Option<Vec<u8>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("dns="))?;
    // Padding is not allowed, but sent.
    BASE64URL_NOPAD.decode(value.trim_end_matches('=').as_bytes()).ok()
}

fn message(reply: Vec<u8>) -> Reply {
    let age = format!("max-age={}", lifetime(&reply));
    let mut response = Response::new(Full::new(Bytes::from(reply)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Ok(age) = HeaderValue::from_str(&age) {
        headers.insert(CACHE_CONTROL, age);
    }
    response
}

/// No longer than the shortest-lived record (RFC 8484 §5.1).
fn lifetime(reply: &[u8]) -> u32 {
    let Ok(message) = Message::from_vec(reply) else { return 0 };
    message.answers.iter().chain(&message.authorities).map(|record| record.ttl).min().unwrap_or(0)
}

fn status(code: StatusCode) -> Reply {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_among_the_parameters() {
        // The example of RFC 8484 §4.1.1.
        let query = parameter("a=b&dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB").unwrap();
        assert_eq!(query.len(), 33);
        assert_eq!(&query[12..], b"\x03www\x07example\x03com\0\0\x01\0\x01");
        assert_eq!(parameter("dns=AA=="), Some(vec![0]));
        for bad in ["", "dns", "sdn=AAAA", "dns=A+A/", "dns=%41"] {
            assert_eq!(parameter(bad), None, "{bad}");
        }
    }

    #[test]
    fn http_may_keep_a_reply_as_long_as_its_shortest_record() {
        let two = b"\0\0\x81\x80\0\x01\0\x02\0\0\0\0\x01a\0\0\x01\0\x01\
            \xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x02";
        assert_eq!(lifetime(two), 60);
        assert_eq!(lifetime(&two[..19]), 0);
    }
}
