//! What a laboratory is made of, as the caller asks for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::LabError;
use crate::xlat::pref64::Pref64;

/// Which software stands in the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Translator {
    /// `sampan run` with NAT64 and DNS64.
    Sampan,
    /// Debian's tayga and unbound: the classic pair, for comparison.
    Tayga,
    /// Plain kernel forwarding; the server has IPv6 and the clients have IPv4 too, so both families can be measured.
    Forward,
    /// Kernel NAT44 (nftables masquerade) for clients that have IPv4.
    Nat44,
    /// Nothing is started; the caller brings its own.
    Nothing,
}

/// One cable of the path between the clients and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cable {
    /// The n-th on the IPv6 side, counted from the clients' LAN (0).
    Inside(u8),
    /// The n-th on the IPv4 side, counted from the gateway's own outside link (0).
    Outside(u8),
}

/// How the shared IPv4 addresses reach the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// The next router has a route for them.
    Routed,
    /// They lie in the gateway's outside network, and the gateway answers ARP for them.
    OnLink,
}

/// A laboratory to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Part of every name: unique among the laboratories that live at the same time.
    pub id: String,
    /// What stands in the gateway.
    pub translator: Translator,
    /// The NAT64 prefix.
    #[serde(with = "as_text")]
    pub pref64: Pref64,
    /// One client (on a plain cable) or two (behind a switch).
    pub clients: u8,
    /// IPv6 routers between the LAN and the gateway.
    pub inside_routers: u8,
    /// IPv4 routers between the gateway and the server.
    pub outside_routers: u8,
    /// Cables with an MTU other than 1500.
    pub mtus: Vec<(Cable, u32)>,
    /// Queues of every cable's ends.
    pub queues: u8,
    /// How the pool reaches the gateway.
    pub pool_mode: PoolMode,
    /// Whether the configuration allows the laboratory's fictitious IPv4 networks by name.
    pub allow_lab_nets: bool,
    /// `workers` in the gateway's configuration; one per queue of its own choice if not given.
    pub workers: Option<u8>,
    /// Lines added to the `[nat64]` section of the gateway's configuration.
    pub nat64_extra: String,
    /// Lines of the table `[fastpath]`; no such table when there are none.
    pub fast_path: Option<String>,
    /// Sections added to the end of the gateway's configuration.
    pub config_extra: String,
    /// The `sampan` program to run in the gateway.
    pub sampan: PathBuf,
}

impl Options {
    /// The network of the demonstration: two clients, the gateway, one IPv4 router, one server.
    pub fn new(id: impl Into<String>, sampan: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            translator: Translator::Sampan,
            pref64: lab_pref64(),
            clients: 2,
            inside_routers: 0,
            outside_routers: 1,
            mtus: Vec::new(),
            queues: 2,
            pool_mode: PoolMode::Routed,
            allow_lab_nets: true,
            workers: None,
            nat64_extra: String::new(),
            fast_path: Some(String::new()),
            config_extra: String::new(),
            sampan: sampan.into(),
        }
    }

    /// Refuses what cannot be built, before anything is built.
    pub fn check(&self) -> Result<(), LabError> {
        let id_ok = !self.id.is_empty()
            && self.id.len() <= 32
            && self.id.chars().all(|c| c.is_ascii_alphanumeric())
            && self.id != "all";
        if !id_ok {
            return Err(LabError::Options(format!(
                "lab id `{}` must be 1 to 32 ASCII letters and digits",
                self.id.escape_debug()
            )));
        }
        if !(1..=2).contains(&self.clients) {
            return Err(LabError::Options(format!(
                "{} clients asked for; there can be 1 or 2",
                self.clients
            )));
        }
        if self.inside_routers > 3 || self.outside_routers > 3 {
            return Err(LabError::Options("at most 3 routers fit on each side".into()));
        }
        if self.pool_mode == PoolMode::OnLink && self.outside_routers == 0 {
            return Err(LabError::Options("an on-link pool needs at least one outside router".into()));
        }
        if !(1..=16).contains(&self.queues) {
            return Err(LabError::Options(format!("{} queues asked for; there can be 1 to 16", self.queues)));
        }
        for (cable, mtu) in &self.mtus {
            let (exists, least) = match cable {
                Cable::Inside(n) => (*n <= self.inside_routers, 1280),
                Cable::Outside(n) => (*n <= self.outside_routers, 576),
            };
            if !exists {
                return Err(LabError::Options(format!("an MTU is set for {cable:?}, which does not exist")));
            }
            if !(least..=65_535).contains(mtu) {
                return Err(LabError::Options(format!("MTU {mtu} for {cable:?} is not in {least}–65535")));
            }
        }
        Ok(())
    }

    /// The MTU of a cable.
    pub fn mtu(&self, cable: Cable) -> u32 {
        self.mtus.iter().rev().find(|(c, _)| *c == cable).map_or(1500, |(_, mtu)| *mtu)
    }
}

/// The network-specific prefix of the laboratory, `2001:db8:64::/96`.
fn lab_pref64() -> Pref64 {
    let addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0);
    Pref64::new(crate::addr::Prefix6::covering(addr, 96)).unwrap_or(Pref64::well_known())
}

mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_state_file() {
        let mut options = Options::new("t1", "/x/sampan");
        options.mtus = vec![(Cable::Outside(1), 1000)];
        options.outside_routers = 2;
        let text = serde_json::to_string(&options).unwrap();
        let back: Options = serde_json::from_str(&text).unwrap();
        assert_eq!(back.pref64, options.pref64);
        assert_eq!(back.mtu(Cable::Outside(1)), 1000);
        assert_eq!(back.mtu(Cable::Outside(0)), 1500);
        assert_eq!(options.pref64.to_string(), "2001:db8:64::/96");
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let good = Options::new("t1", "sampan");
        assert!(good.check().is_ok());
        let bad = |change: fn(&mut Options)| {
            let mut options = good.clone();
            change(&mut options);
            assert!(options.check().is_err(), "{options:?}");
        };
        bad(|o| o.id = "../x".into());
        bad(|o| o.id = String::new());
        bad(|o| o.id = "all".into());
        bad(|o| o.clients = 0);
        bad(|o| o.clients = 3);
        bad(|o| o.inside_routers = 4);
        bad(|o| o.queues = 0);
        bad(|o| o.mtus = vec![(Cable::Outside(2), 1000)]);
        bad(|o| o.mtus = vec![(Cable::Inside(0), 1000)]);
        bad(|o| (o.pool_mode, o.outside_routers) = (PoolMode::OnLink, 0));
    }
}
