//! Whether this worker would translate: a canned packet goes through the settings in force, past all tables and books.

use std::net::Ipv6Addr;

use super::engine::Engine;
use crate::verdict::DropReason;
use crate::xlat::FlowPair;
use crate::xlat::canned::{Failure, PEER, PORT, there_and_back};

/// A client where no unit is named (RFC 3849).
const ANYBODY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

impl Engine {
    /// Translates a canned packet of each translation prefix there and back. It makes no mapping, takes no port and is
    /// counted nowhere.
    pub fn canned(&mut self) -> Result<(), Failure> {
        let pool = self.settings.pool4.ranges.iter().find(|range| self.pool.contains(range.prefix.addr()));
        let Some(range) = pool else { return Err(DropReason::NotPool4.into()) };
        let (src4, port4) = (range.prefix.addr(), *range.ports.start());
        let unit = self.settings.units.iter().find_map(|unit| unit.prefixes.first());
        let src6 =
            unit.map_or(ANYBODY, |prefix| (prefix.addr().to_bits() | u128::from(prefix.len() < 128)).into());
        if !self.units.serve(src6) {
            return Err(DropReason::SourceNotServed.into());
        }
        for (number, prefix) in (0..).zip(self.settings.pool6.clone()) {
            self.check_peer(PEER, number)?;
            let flow = FlowPair {
                src6,
                port6: PORT,
                dst6: prefix.embed(PEER),
                src4,
                port4,
                dst4: PEER,
                peer_port: PORT,
            };
            let (to_v4, to_v6) = (self.context4(false, 0), self.context6());
            let [scratch, _] = &mut self.scratch;
            there_and_back(&flow, &to_v4, &to_v6, scratch)?;
        }
        Ok(())
    }
}
