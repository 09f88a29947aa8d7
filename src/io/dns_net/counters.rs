//! Counters of the DNS service. Each is an atomic that the status output reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dns64::Outcome;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted besides the outcomes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// All of them, in table order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in status output and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

counters! {
    /// Messages that came over UDP.
    UdpQueries = "udp_queries",
    /// Messages that came over TCP.
    TcpQueries = "tcp_queries",
    /// Messages that came over TLS.
    TlsQueries = "tls_queries",
    /// Messages that came over HTTPS.
    HttpsQueries = "https_queries",
    /// Connections that were served: TCP, TLS and HTTPS.
    TcpConnections = "tcp_connections",
    /// Connections closed at once: too many, or the client is not allowed.
    TcpRefused = "tcp_refused",
    /// TLS handshakes that failed or took too long.
    TlsFailed = "tls_failed",
    /// Replies that were in the cache when the question came.
    CacheHits = "cache_hits",
    /// Replies from the cache after their time, because no upstream answered the question.
    CacheStale = "cache_stale",
    /// Replies sent with TC.
    Truncated = "truncated_replies",
    /// Questions sent to an upstream; those to the next one, or once more to the only one, count too.
    UpstreamAsked = "upstream_asked",
    /// Questions repeated over TCP because the UDP answer was truncated or in doubt.
    UpstreamTcp = "upstream_tcp",
    /// Datagrams from an upstream's address that answer no question of ours: late, duplicate or forged.
    UpstreamStrangers = "upstream_strangers",
    /// Questions that one upstream did not answer.
    UpstreamFailed = "upstream_failed",
    /// AAAA questions given up early because A was answered long ago.
    AaaaGivenUp = "aaaa_given_up",
    /// Replies that the operating system refused to send.
    SendFailed = "send_failed",
    /// Failed receives and accepts.
    ReceiveFailed = "receive_failed",
}

/// All counters; each thread has its own, so that none waits for another's cache line.
#[derive(Debug, Default)]
pub(super) struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    others: [AtomicU64; Counter::ALL.len()],
}

impl Counters {
    pub(super) fn outcome(&self, outcome: Outcome) {
        add(&self.outcomes, outcome as usize);
    }

    pub(super) fn add(&self, counter: Counter) {
        add(&self.others, counter as usize);
    }

    /// Name and value of every counter, summed over all that count.
    pub(super) fn snapshot<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<(&'static str, u64)> {
        let names = Outcome::ALL.iter().map(|o| o.name()).chain(Counter::ALL.iter().map(|c| c.name()));
        let mut sums: Vec<_> = names.map(|name| (name, 0)).collect();
        for counters in all {
            for (sum, value) in sums.iter_mut().zip(counters.outcomes.iter().chain(&counters.others)) {
                sum.1 += value.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

fn add(counters: &[AtomicU64], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_counts_for_itself() {
        let counters = Counters::default();
        counters.outcome(Outcome::Busy);
        counters.add(Counter::ReceiveFailed);
        let other = Counters::default();
        other.add(Counter::ReceiveFailed);
        let snapshot = Counters::snapshot([&counters, &other]);
        let value = |name| snapshot.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!((value("busy"), value("receive_failed")), (1, 2));
        assert_eq!(snapshot.iter().map(|(_, v)| v).sum::<u64>(), 3);
        for (name, _) in &snapshot {
            assert_eq!(snapshot.iter().filter(|(n, _)| n == name).count(), 1, "{name}");
        }
    }
}
