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
    /// TCP connections that were served.
    TcpConnections = "tcp_connections",
    /// TCP connections closed at once: too many, or the client is not allowed.
    TcpRefused = "tcp_refused",
    /// Replies sent with TC.
    Truncated = "truncated_replies",
    /// Questions sent to an upstream, without retransmissions.
    UpstreamAsked = "upstream_asked",
    /// Questions repeated over TCP because the UDP answer was truncated.
    UpstreamTcp = "upstream_tcp",
    /// Questions that one upstream did not answer.
    UpstreamFailed = "upstream_failed",
    /// AAAA questions given up early because A was answered long ago.
    AaaaGivenUp = "aaaa_given_up",
    /// Replies that the operating system refused to send.
    SendFailed = "send_failed",
    /// Failed receives and accepts.
    ReceiveFailed = "receive_failed",
}

/// All counters.
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

    pub(super) fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let names = Outcome::ALL.iter().map(|o| o.name()).chain(Counter::ALL.iter().map(|c| c.name()));
        let values = self.outcomes.iter().chain(&self.others).map(|value| value.load(Ordering::Relaxed));
        names.zip(values).collect()
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
        counters.add(Counter::ReceiveFailed);
        let snapshot = counters.snapshot();
        let value = |name| snapshot.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!((value("busy"), value("receive_failed")), (1, 2));
        assert_eq!(snapshot.iter().map(|(_, v)| v).sum::<u64>(), 3);
        for (name, _) in &snapshot {
            assert_eq!(snapshot.iter().filter(|(n, _)| n == name).count(), 1, "{name}");
        }
    }
}
