//! What a group of clients gets, and which addresses may be handed out. Short on purpose: this is what an auditor
//! reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

use crate::addr::{Prefix4, Prefix6, is_non_global};
use crate::xlat::pref64::Pref64;

/// What the clients of one view get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What happens to AAAA questions.
    pub mode: Mode,
    /// Names, with what is below them, that have a mode of their own. The longest counts.
    pub names: Vec<(Name, Mode)>,
    /// Translation prefixes, in the order in which clients see them. None means the well-known prefix
    /// (RFC 6147 §5.2).
    pub prefixes: Vec<Pref64>,
    /// IPv4 networks with other prefixes, or with none: then they are not synthesised. The first that covers an
    /// address counts (RFC 6147 §5.1.7).
    pub ranges: Vec<Range>,
    /// Non-global IPv4 that may be synthesised under a network-specific prefix; never under the well-known one.
    pub allow: Vec<Prefix4>,
    /// AAAA records inside these prefixes are treated as absent (RFC 6147 §5.1.4).
    pub exclude_aaaa: Vec<Prefix6>,
    /// What an AAAA answer that is an error or does not come leads to.
    pub on_error: OnError,
    /// Whether A questions are answered with "no such data": for clients that have no IPv4 at all.
    pub filter_a: bool,
}

/// What happens to AAAA questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Records are made when there are no real ones (RFC 6147).
    #[default]
    Synthesise,
    /// Everything is handed on: a plain forwarder.
    Pass,
    /// Records are made whenever there is an A record: for an uplink without IPv6.
    Always,
}

/// What follows an AAAA answer that is an error, or silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The A answer decides (RFC 6147 §5.1.2, §5.1.3).
    #[default]
    UseA,
    /// The client gets the error.
    Fail,
}

/// IPv4 addresses with translation prefixes of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The addresses.
    pub v4: Prefix4,
    /// Their prefixes; none: they are not synthesised.
    pub prefixes: Vec<Pref64>,
}

/// `::ffff:0:0/96`, which no IPv6-only host can use: the default exclusion set (RFC 6147 §5.1.4).
pub fn ipv4_mapped() -> Prefix6 {
    Prefix6::covering(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            names: Vec::new(),
            prefixes: Vec::new(),
            ranges: Vec::new(),
            allow: Vec::new(),
            exclude_aaaa: vec![ipv4_mapped()],
            on_error: OnError::default(),
            filter_a: false,
        }
    }
}

impl Policy {
    /// What happens to AAAA questions about this name.
    pub(super) fn mode_of(&self, name: &Name) -> Mode {
        let named = self.names.iter().filter(|(suffix, _)| suffix.zone_of(name));
        named.max_by_key(|(suffix, _)| suffix.num_labels()).map_or(self.mode, |(_, mode)| *mode)
    }

    /// The prefixes under which an A record may be synthesised, in order.
    pub(super) fn prefixes_for(&self, v4: Ipv4Addr) -> impl Iterator<Item = Pref64> {
        let range = self.ranges.iter().find(|range| range.v4.contains(v4));
        let own = range.map(|range| range.prefixes.as_slice());
        let common = own.is_none().then(|| self.prefixes_in_use()).into_iter().flatten();
        let prefixes = own.unwrap_or_default().iter().copied().chain(common);
        prefixes.filter(move |prefix| self.may_synthesise(*prefix, v4))
    }

    /// Whether an AAAA record for `v4` under `prefix` may be made from an A record.
    ///
    /// RFC 6052 §3.1: non-global IPv4 never goes under the well-known prefix, whatever the operator allows.
    /// Under any other prefix it needs the operator's word, because it leads into somebody's inner network.
    fn may_synthesise(&self, prefix: Pref64, v4: Ipv4Addr) -> bool {
        !is_non_global(v4) || (!prefix.is_well_known() && self.allow.iter().any(|net| net.contains(v4)))
    }

    /// Whether a real AAAA record is to be treated as absent (RFC 6147 §5.1.4).
    pub(super) fn is_excluded(&self, addr: Ipv6Addr) -> bool {
        self.exclude_aaaa.iter().any(|net| net.contains(addr))
    }

    /// The common prefixes: the configured ones, else the well-known one (A-08, K-15).
    pub(super) fn prefixes_in_use(&self) -> impl Iterator<Item = Pref64> {
        let fallback = self.prefixes.is_empty().then(Pref64::well_known);
        self.prefixes.iter().copied().chain(fallback)
    }

    /// The common prefixes and those of ranges, each once: under these a client may find the translator.
    pub(super) fn all_prefixes(&self) -> Vec<Pref64> {
        let mut all = Vec::new();
        for prefix in
            self.prefixes_in_use().chain(self.ranges.iter().flat_map(|r| r.prefixes.iter().copied()))
        {
            if !all.contains(&prefix) {
                all.push(prefix);
            }
        }
        all
    }

    /// The prefix that `addr` lies under and the IPv4 address in it. The well-known prefix always counts, as
    /// RFC 6147 §5.3.1 wants for reverse questions.
    pub(super) fn reverse(&self, addr: Ipv6Addr) -> Option<(Pref64, Ipv4Addr)> {
        let mut known = self.all_prefixes().into_iter().chain([Pref64::well_known()]);
        known.find_map(|prefix| prefix.extract(addr).map(|v4| (prefix, v4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Pref64 {
        "2001:db8:64::/96".parse().unwrap()
    }

    fn prefixes(policy: &Policy, v4: &str) -> Vec<Pref64> {
        policy.prefixes_for(v4.parse().unwrap()).collect()
    }

    #[test]
    fn a08_k15_the_well_known_prefix_only_without_another() {
        let mut policy = Policy::default();
        assert_eq!(prefixes(&policy, "198.41.0.4"), [Pref64::well_known()]);
        policy.prefixes = vec![own()];
        assert_eq!(prefixes(&policy, "198.41.0.4"), [own()]);
    }

    #[test]
    fn a11_allow_never_opens_the_well_known_prefix() {
        let mut policy = Policy { prefixes: vec![Pref64::well_known(), own()], ..Policy::default() };
        assert_eq!(prefixes(&policy, "10.1.2.3"), []);
        policy.allow.push("0.0.0.0/0".parse().unwrap());
        assert_eq!(prefixes(&policy, "10.1.2.3"), [own()]);
        // A range cannot open it either.
        policy.ranges =
            vec![Range { v4: "10.0.0.0/8".parse().unwrap(), prefixes: vec![Pref64::well_known()] }];
        assert_eq!(prefixes(&policy, "10.1.2.3"), []);
    }

    #[test]
    fn k12_the_first_range_that_covers_an_address_has_its_prefixes() {
        let [one, two] = ["2001:db8:1::/96", "2001:db8:2::/96"].map(|p| p.parse::<Pref64>().unwrap());
        let range =
            |v4: &str, prefixes: &[Pref64]| Range { v4: v4.parse().unwrap(), prefixes: prefixes.to_vec() };
        let policy = Policy {
            prefixes: vec![own()],
            ranges: vec![range("198.41.0.0/24", &[one, two]), range("198.41.0.0/16", &[])],
            ..Policy::default()
        };
        assert_eq!(prefixes(&policy, "198.41.0.4"), [one, two]);
        assert_eq!(prefixes(&policy, "198.41.1.4"), []);
        assert_eq!(prefixes(&policy, "198.42.0.4"), [own()]);
        assert_eq!(policy.all_prefixes(), [own(), one, two]);
    }

    #[test]
    fn k05_ipv4_mapped_is_excluded_by_default() {
        let policy = Policy::default();
        assert!(policy.is_excluded("::ffff:192.0.2.9".parse().unwrap()));
        assert!(!policy.is_excluded("::192.0.2.9".parse().unwrap()));
        assert!(!policy.is_excluded("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn k38_the_longest_name_has_its_mode() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let policy = Policy {
            names: vec![(name("example."), Mode::Pass), (name("www.example."), Mode::Always)],
            ..Policy::default()
        };
        assert_eq!(policy.mode_of(&name("a.WWW.Example.")), Mode::Always);
        assert_eq!(policy.mode_of(&name("example.")), Mode::Pass);
        assert_eq!(policy.mode_of(&name("notexample.")), Mode::Synthesise);
    }

    #[test]
    fn reverse_knows_own_and_well_known_prefix() {
        let policy = Policy { prefixes: vec!["2001:db8:122::/48".parse().unwrap()], ..Policy::default() };
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        for prefix in [policy.prefixes[0], Pref64::well_known()] {
            assert_eq!(policy.reverse(prefix.embed(v4)), Some((prefix, v4)));
        }
        assert_eq!(policy.reverse("2001:db8::1".parse().unwrap()), None);
    }
}
