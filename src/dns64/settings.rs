//! The checked settings of DNS64, and what a running DNS64 may be told anew.
//!
//! `control::plan` builds them from the operator's file; nothing here reads text.

use std::net::IpAddr;

use crate::addr::PrefixAny;

use super::limit::Limit;
use super::nets::Nets;
use super::policy::Policy;
use super::query::{Meta, Transport};
use super::routes::Routes;
use super::zones::Zones;

/// Everything DNS64 needs to know, already checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What clients get that no view names.
    pub policy: Policy,
    /// What the others get.
    pub views: Views,
    /// Who may ask.
    pub clients: Clients,
    /// The organisation of a client, for the statistics.
    pub units: Nets<u16>,
    /// How often one client may ask over UDP.
    pub limit: Option<Limit>,
    /// Names that are answered here.
    pub zones: Zones,
    /// Whose names are asked elsewhere than at the usual upstream.
    pub routes: Routes,
    /// Whether the upstream validates and the path to it is trusted, so that its AD bit may be handed on.
    pub trust_ad: bool,
    /// What synthetic answers become while the translator is down.
    pub when_down: WhenDown,
    /// Whether the translator works; told by [`Change::Health`].
    pub health: Health,
    /// Counts the changes; what was cached under another one does not hold any more. [`Settings::apply`] counts.
    pub generation: u32,
}

/// Whether the translator works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does.
    #[default]
    Up,
    /// Packets to synthetic addresses would be lost.
    Down,
}

/// What a question gets whose answer would be synthetic, while the translator is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// What the front cache has, however old, with a short TTL; else SERVFAIL.
    #[default]
    Stale,
    /// SERVFAIL: a client with a second resolver asks that one.
    ServFail,
    /// "No such data", with a TTL of five seconds at most.
    NoData,
}

/// A change that a running DNS64 accepts; it holds from the next question on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Everything that the operator wrote.
    Replace(Box<Settings>),
    /// Whether the translator works.
    Health(Health),
}

/// What the settings make of the sender of a query, found once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    pub(super) view: u16,
    pub(super) unit: Option<u16>,
    pub(super) generation: u32,
    pub(super) health: Health,
    pub(super) when_down: WhenDown,
}

/// The networks that may ask. This host itself (loopback) always may; without any network nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients(Nets<()>);

/// A group of clients with a policy of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its clients. The longest network decides; of equal ones the first view.
    pub clients: Vec<PrefixAny>,
    /// The transports it is about; none means all.
    pub transports: Vec<Transport>,
    /// What they get.
    pub policy: Policy,
}

/// The views, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    nets: Nets<(u16, u8)>,
    policies: Vec<Policy>,
}

/// The number of the policy of clients that no view names.
const NO_VIEW: u16 = 0;

impl Settings {
    /// Takes over one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Replace(settings) => {
                let (health, generation) = (self.health, self.generation.wrapping_add(1));
                *self = Self { health, generation, ..*settings };
            }
            Change::Health(health) => self.health = health,
        }
    }

    /// What the settings make of a client; `None` if it may not ask.
    pub fn scope(&self, meta: &Meta) -> Option<Scope> {
        self.clients.contains(meta.client).then(|| Scope {
            view: self.views.find(meta),
            unit: self.units.find(meta.client, |_| true).copied(),
            generation: self.generation,
            health: self.health,
            when_down: self.when_down,
        })
    }

    /// The policy of a view.
    pub(super) fn policy(&self, view: u16) -> &Policy {
        let index = usize::from(view).checked_sub(1);
        index.and_then(|index| self.views.policies.get(index)).unwrap_or(&self.policy)
    }
}

impl Clients {
    /// Whether `client` may ask.
    pub fn contains(&self, client: IpAddr) -> bool {
        client.to_canonical().is_loopback() || self.0.find(client, |()| true).is_some()
    }
}

impl FromIterator<PrefixAny> for Clients {
    fn from_iter<I: IntoIterator<Item = PrefixAny>>(nets: I) -> Self {
        Self(nets.into_iter().map(|net| (net, ())).collect())
    }
}

impl Views {
    /// The number of the view of a client.
    fn find(&self, meta: &Meta) -> u16 {
        let asked = mask(&[meta.transport]);
        self.nets
            .find(meta.client, |(_, transports)| transports & asked != 0)
            .map_or(NO_VIEW, |(view, _)| *view)
    }
}

impl FromIterator<View> for Views {
    fn from_iter<I: IntoIterator<Item = View>>(views: I) -> Self {
        let (mut nets, mut policies) = (Vec::new(), Vec::new());
        for (view, number) in views.into_iter().zip(NO_VIEW + 1..) {
            let transports = if view.transports.is_empty() { u8::MAX } else { mask(&view.transports) };
            nets.extend(view.clients.into_iter().map(|net| (net, (number, transports))));
            policies.push(view.policy);
        }
        Self { nets: nets.into_iter().collect(), policies }
    }
}

fn mask(transports: &[Transport]) -> u8 {
    transports.iter().fold(0, |mask, transport| mask | 1 << *transport as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_asks_by_default() {
        let clients = Clients::default();
        assert!(clients.contains("::1".parse().unwrap()) && clients.contains("127.0.0.1".parse().unwrap()));
        assert!(clients.contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!clients.contains("2001:db8::1".parse().unwrap()));
        assert!(!clients.contains("192.0.2.1".parse().unwrap()));
        let clients: Clients = ["2001:db8::/32".parse().unwrap()].into_iter().collect();
        assert!(clients.contains("2001:db8::1".parse().unwrap()));
        assert!(!clients.contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn k37_the_longest_network_and_the_transport_choose_the_view() {
        let view = |net: &str, transports: &[Transport]| View {
            clients: vec![net.parse().unwrap()],
            transports: transports.to_vec(),
            policy: Policy::default(),
        };
        let settings = Settings {
            clients: ["::/0".parse().unwrap()].into_iter().collect(),
            views: [
                view("2001:db8::/32", &[]),
                view("2001:db8:1::/48", &[Transport::Tls, Transport::Https]),
                view("2001:db8:1::/48", &[Transport::Udp]),
            ]
            .into_iter()
            .collect(),
            ..Settings::default()
        };
        let of = |client: &str, transport| {
            settings.scope(&Meta { client: client.parse().unwrap(), transport }).unwrap().view
        };
        assert_eq!(of("2001:db9::1", Transport::Udp), 0);
        assert_eq!(of("2001:db8:2::1", Transport::Udp), 1);
        assert_eq!(of("2001:db8:1::1", Transport::Tls), 2);
        assert_eq!(of("2001:db8:1::1", Transport::Udp), 3);
        assert_eq!(of("2001:db8:1::1", Transport::Tcp), 1);
    }

    #[test]
    fn a_new_configuration_is_a_new_generation_and_health_is_none() {
        let mut settings = Settings::default();
        let meta = Meta { client: "::1".parse().unwrap(), transport: Transport::Udp };
        let first = settings.scope(&meta).unwrap();
        settings.apply(Change::Health(Health::Down));
        let second = settings.scope(&meta).unwrap();
        assert_eq!((second.generation, second.health), (first.generation, Health::Down));
        settings.apply(Change::Replace(Box::new(Settings { trust_ad: true, ..Settings::default() })));
        let third = settings.scope(&meta).unwrap();
        assert_ne!(third.generation, first.generation);
        assert!(settings.trust_ad && settings.health == Health::Down);
    }
}
