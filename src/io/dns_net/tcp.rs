//! The listeners for streams, TCP, TLS (RFC 7858) and HTTPS: hickory's framing and idle timeout, our own accept loop.
//!
//! `hickory_server::Server` is not used around them. It accepts without any bound (and spins when the process runs
//! out of file descriptors), answers one query of a connection at a time, and would decode and encode every reply
//! again; here connections are counted, queries of one connection run side by side (RFC 7766 §6.2.1.1), and the
//! bytes of the core go out as they are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_net::DnsStreamHandle;
use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::tcp::TcpStream as Framed;
use hickory_proto::op::SerialMessage;
use hickory_server::server::TimeoutStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer::Shared;
use super::counters::Counter;
use super::{Limits, https};
use crate::dns64::{Meta, Transport};

/// Queries of one connection that run side by side.
pub(super) const PIPELINE: usize = 32;

/// What is spoken on a listener's connections.
#[derive(Clone)]
pub(super) enum Speech {
    Tcp,
    Tls(TlsAcceptor),
    Https(TlsAcceptor),
}

/// Serves one listener until it is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    speech: Speech,
    shared: Arc<Shared>,
    connections: Connections,
) {
    // The tasks end with this one.
    let mut tasks = JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                shared.counters().add(Counter::ReceiveFailed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let client = peer.ip().to_canonical();
        let allowed = shared.active().config.dns64.clients.contains(client);
        let Some(place) = connections.enter(client, shared.limits()).filter(|_| allowed) else {
            shared.counters().add(Counter::TcpRefused);
            continue;
        };
        shared.counters().add(Counter::TcpConnections);
        let (speech, shared) = (speech.clone(), Arc::clone(&shared));
        tasks.spawn(async move {
            if let Err(error) = welcome(stream, peer, &speech, &shared).await {
                tracing::debug!(client = %peer, %error, "connection ended");
            }
            drop(place);
        });
    }
}

async fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    speech: &Speech,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match speech {
        Speech::Tcp => talk(stream, peer, Transport::Tcp, shared).await,
        Speech::Tls(acceptor) => {
            talk(shake_hands(stream, acceptor, shared).await?, peer, Transport::Tls, shared).await
        }
        Speech::Https(acceptor) => {
            https::talk(shake_hands(stream, acceptor, shared).await?, peer, shared).await
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    shared: &Shared,
) -> io::Result<TlsStream<TcpStream>> {
    let shaken = match timeout(shared.limits().tls_handshake, acceptor.accept(stream)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    if shaken.is_err() {
        shared.counters().add(Counter::TlsFailed);
    }
    shaken
}

async fn talk<S>(stream: S, peer: SocketAddr, transport: Transport, shared: &Shared) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let stream = AsyncIoTokioAsStd(stream);
    let (framed, mut replies) = Framed::from_stream_with_buffer_size(stream, peer, PIPELINE);
    let mut queries = TimeoutStream::new(framed, shared.limits().tcp_idle);
    let meta = Meta { client: peer.ip(), transport };
    let answer = async |query: SerialMessage| shared.answer(query.bytes(), &meta).await;
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            query = queries.next(), if open && running.len() < PIPELINE => match query {
                Some(query) => running.push(answer(query?)),
                // The client has nothing more to ask, but may wait for answers.
                None => open = false,
            },
            Some(reply) = running.next() => {
                if let Some(reply) = reply {
                    replies.send(SerialMessage::new(reply, peer)).map_err(io::Error::other)?;
                }
            }
        }
    }
    // Reading once more writes what is still queued.
    match queries.next().await {
        Some(Err(error)) => Err(error),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// How many connections each client has.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection; leaving is dropping.
struct Place {
    connections: Connections,
    client: IpAddr,
}

impl Connections {
    fn enter(&self, client: IpAddr, limits: &Limits) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(&client).copied().unwrap_or(0);
        if own >= limits.tcp_per_client || counts.values().sum::<usize>() >= limits.tcp_connections {
            return None;
        }
        counts.insert(client, own + 1);
        Some(Place { connections: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_per_client_and_in_all() {
        let limits = Limits { tcp_connections: 3, tcp_per_client: 2, ..Limits::default() };
        let connections = Connections::default();
        let [a, b] = ["::1", "::2"].map(|text| text.parse::<IpAddr>().unwrap());
        let first = connections.enter(a, &limits).unwrap();
        let _second = connections.enter(a, &limits).unwrap();
        assert!(connections.enter(a, &limits).is_none());
        let _third = connections.enter(b, &limits).unwrap();
        assert!(connections.enter(b, &limits).is_none());
        drop(first);
        assert!(connections.enter(b, &limits).is_some());
    }
}
