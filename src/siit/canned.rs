//! Whether this worker would translate: a canned packet goes through the settings in force, past all books.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::mapping::Mapping;
use super::{Siit, Turn};
use crate::xlat::FlowPair;
use crate::xlat::canned::{Failure, PEER, PORT, there_and_back};
use crate::xlat::eam::Home;

impl Siit {
    /// Translates a canned packet of a mapped node there and back. Without any such node there is nothing that could
    /// fail. It is counted nowhere.
    pub fn canned(&mut self) -> Result<(), Failure> {
        let mapping = &self.settings.mapping;
        let Some((src6, src4)) = node(mapping) else { return Ok(()) };
        let dst6 = mapping.prefix.embed(PEER);
        let flow = FlowPair { src6, port6: PORT, dst6, src4, port4: PORT, dst4: PEER, peer_port: PORT };
        let (to_v4, to_v6) = (self.context4(self.settings.mtu.v4, 0), self.context6(Turn::First, 0));
        let [scratch, _] = &mut self.scratch;
        there_and_back(&flow, &to_v4, &to_v6, scratch)
    }
}

/// An IPv6 node that has an IPv4 address, and both.
fn node(mapping: &Mapping) -> Option<(Ipv6Addr, Ipv4Addr)> {
    let explicit = mapping.eam.rows().iter().find(|row| row.home == Home::V6).map(|row| row.v6.addr());
    let implicit = || mapping.translatable4.first().map(|prefix| mapping.prefix.embed(prefix.addr()));
    let addr = explicit.or_else(implicit)?;
    Some((addr, mapping.to_v4(addr)?.addr))
}
