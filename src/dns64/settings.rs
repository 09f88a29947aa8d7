//! The checked settings of DNS64 and the typed changes that a running DNS64 accepts.
//!
//! `control::plan` builds both from the operator's file; nothing here reads text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Prefix4, Prefix6};
use crate::xlat::pref64::Pref64;

/// Everything DNS64 needs to know, already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Translation prefixes, in the order in which clients see them. None means the well-known prefix
    /// (RFC 6147 §5.2).
    pub prefixes: Vec<Pref64>,
    /// Non-global IPv4 that may be synthesised under a network-specific prefix; never under the well-known one.
    pub allow: Vec<Prefix4>,
    /// AAAA records inside these prefixes are treated as absent (RFC 6147 §5.1.4).
    pub exclude_aaaa: Vec<Prefix6>,
    /// Who may ask.
    pub clients: Clients,
    /// Whether the upstream validates and the path to it is trusted, so that its AD bit may be handed on.
    pub trust_ad: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            allow: Vec::new(),
            exclude_aaaa: vec![ipv4_mapped()],
            clients: Clients::default(),
            trust_ad: false,
        }
    }
}

/// The networks that may ask. This host itself (loopback) always may; with both lists empty nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// IPv6 networks.
    pub v6: Vec<Prefix6>,
    /// IPv4 networks.
    pub v4: Vec<Prefix4>,
}

/// A change that a running DNS64 accepts; it holds from the next question on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replace the translation prefixes.
    Prefixes(Vec<Pref64>),
    /// Replace the list of allowed non-global IPv4.
    Allow(Vec<Prefix4>),
    /// Replace the AAAA exclusion set.
    ExcludeAaaa(Vec<Prefix6>),
    /// Replace the client networks.
    Clients(Clients),
    /// Set whether the upstream's AD bit is handed on.
    TrustAd(bool),
}

/// `::ffff:0:0/96`, which no IPv6-only host can use: the default exclusion set (RFC 6147 §5.1.4).
pub fn ipv4_mapped() -> Prefix6 {
    Prefix6::covering(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)
}

impl Settings {
    /// Takes over one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Prefixes(prefixes) => self.prefixes = prefixes,
            Change::Allow(allow) => self.allow = allow,
            Change::ExcludeAaaa(exclude) => self.exclude_aaaa = exclude,
            Change::Clients(clients) => self.clients = clients,
            Change::TrustAd(trust) => self.trust_ad = trust,
        }
    }

    /// The prefixes in use: the configured ones, else the well-known one (A-08, K-15).
    pub fn prefixes_in_use(&self) -> impl Iterator<Item = Pref64> + '_ {
        let fallback = self.prefixes.is_empty().then(Pref64::well_known);
        self.prefixes.iter().copied().chain(fallback)
    }

    /// The prefix that `addr` lies under and the IPv4 address in it. The well-known prefix always counts, as
    /// RFC 6147 §5.3.1 wants for reverse questions.
    pub fn reverse(&self, addr: Ipv6Addr) -> Option<(Pref64, Ipv4Addr)> {
        self.prefixes_in_use()
            .chain([Pref64::well_known()])
            .find_map(|prefix| prefix.extract(addr).map(|v4| (prefix, v4)))
    }
}

impl Clients {
    /// Whether `client` may ask.
    pub fn contains(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V6(addr) => addr.is_loopback() || self.v6.iter().any(|net| net.contains(addr)),
            IpAddr::V4(addr) => addr.is_loopback() || self.v4.iter().any(|net| net.contains(addr)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a08_the_well_known_prefix_only_without_another() {
        let mut settings = Settings::default();
        assert_eq!(settings.prefixes_in_use().collect::<Vec<_>>(), [Pref64::well_known()]);
        let own: Pref64 = "2001:db8:64::/96".parse().unwrap();
        settings.apply(Change::Prefixes(vec![own]));
        assert_eq!(settings.prefixes_in_use().collect::<Vec<_>>(), [own]);
    }

    #[test]
    fn reverse_knows_own_and_well_known_prefix() {
        let own: Pref64 = "2001:db8:122::/48".parse().unwrap();
        let settings = Settings { prefixes: vec![own], ..Settings::default() };
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        assert_eq!(settings.reverse(own.embed(v4)), Some((own, v4)));
        assert_eq!(settings.reverse(Pref64::well_known().embed(v4)), Some((Pref64::well_known(), v4)));
        assert_eq!(settings.reverse("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn only_loopback_asks_by_default() {
        let mut clients = Clients::default();
        assert!(clients.contains("::1".parse().unwrap()) && clients.contains("127.0.0.1".parse().unwrap()));
        assert!(clients.contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!clients.contains("2001:db8::1".parse().unwrap()));
        assert!(!clients.contains("192.0.2.1".parse().unwrap()));
        clients.v6.push("2001:db8::/32".parse().unwrap());
        assert!(clients.contains("2001:db8::1".parse().unwrap()));
    }
}
