//! Which addresses may be handed out. Short on purpose: this is what an auditor reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::settings::Settings;
use crate::addr::is_non_global;
use crate::xlat::pref64::Pref64;

/// Whether an AAAA record for `v4` under `prefix` may be made from an A record.
///
/// RFC 6052 §3.1: non-global IPv4 never goes under the well-known prefix, whatever the operator allows.
/// Under any other prefix it needs the operator's word, because it leads into somebody's inner network.
pub(super) fn may_synthesise(settings: &Settings, prefix: Pref64, v4: Ipv4Addr) -> bool {
    !is_non_global(v4) || (!prefix.is_well_known() && settings.allow.iter().any(|net| net.contains(v4)))
}

/// Whether a real AAAA record is to be treated as absent (RFC 6147 §5.1.4).
pub(super) fn is_excluded(settings: &Settings, addr: Ipv6Addr) -> bool {
    settings.exclude_aaaa.iter().any(|net| net.contains(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_allow_never_opens_the_well_known_prefix() {
        let own: Pref64 = "2001:db8:64::/96".parse().unwrap();
        let wkp = Pref64::well_known();
        let ten = Ipv4Addr::new(10, 1, 2, 3);
        let global = Ipv4Addr::new(198, 41, 0, 4);
        let mut settings = Settings::default();
        assert!(may_synthesise(&settings, wkp, global) && may_synthesise(&settings, own, global));
        assert!(!may_synthesise(&settings, wkp, ten) && !may_synthesise(&settings, own, ten));
        settings.allow.push("0.0.0.0/0".parse().unwrap());
        assert!(!may_synthesise(&settings, wkp, ten));
        assert!(may_synthesise(&settings, own, ten));
    }

    #[test]
    fn k05_ipv4_mapped_is_excluded_by_default() {
        let settings = Settings::default();
        assert!(is_excluded(&settings, "::ffff:192.0.2.9".parse().unwrap()));
        assert!(!is_excluded(&settings, "::192.0.2.9".parse().unwrap()));
        assert!(!is_excluded(&settings, "2001:db8::1".parse().unwrap()));
    }
}
