//! Tables as rows, a bounded page at a time, for people and tools.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::engine::Engine;
use super::ride::Path;
use super::settings::{BibRow, Protocol, RowFilter, SessionRow};
use super::tcp::State;
use super::wheel;
use crate::time::Instant;

/// Slots looked at for one page at most, so that a page never holds packets up for long.
const SCAN: u32 = 65_536;

impl Engine {
    /// Sessions from slot `cursor` on, at most `limit`; with the cursor of the next page, if there is one. A page
    /// can be empty and not be the last.
    pub fn session_rows(
        &self,
        now: Instant,
        filter: &RowFilter,
        cursor: u32,
        limit: usize,
    ) -> (Vec<SessionRow>, Option<u32>) {
        let sessions = self.sessions.capacity();
        self.page(sessions + self.held.capacity(), cursor, limit, |slot| {
            if slot >= sessions {
                return self.held_row(now, filter, slot - sessions);
            }
            let s = self.sessions.get(slot)?;
            let dst6 = self.pref64(s.pool6)?.embed(s.dst4);
            let seen = Seen {
                protocol: s.protocol,
                addrs6: [s.src6, dst6],
                addrs4: [s.src4, s.dst4],
                ports: [s.port6, s.port4, s.peer_port],
            };
            let unit = self.unit_name(s.src6);
            seen.passes(filter, unit).then(|| SessionRow {
                protocol: s.protocol,
                src6: s.src6,
                src6_port: s.port6,
                dst6,
                src4: s.src4,
                src4_port: s.port4,
                dst4: s.dst4,
                dst4_port: s.peer_port,
                state: self.state_of(slot, s).name().to_owned(),
                expires_s: u64::from(self.deadline_of(slot, s).saturating_sub(wheel::tick(now)).div_ceil(4)),
                unit: unit.map(str::to_owned),
                worker: self.worker,
                path: self.path_of(slot, s),
            })
        })
    }

    /// A SYN that waits for a client: V4_INIT with an unspecified IPv6 source (RFC 6146 §3.5.2.2).
    fn held_row(&self, now: Instant, filter: &RowFilter, slot: u32) -> Option<SessionRow> {
        let (key, deadline) = self.held.get(slot)?;
        let dst6 = self.pref64(0)?.embed(key.dst4);
        let seen = Seen {
            protocol: key.protocol,
            addrs6: [Ipv6Addr::UNSPECIFIED, dst6],
            addrs4: [key.src4, key.dst4],
            ports: [key.port4, key.port4, key.peer_port],
        };
        seen.passes(filter, None).then(|| SessionRow {
            protocol: key.protocol,
            src6: Ipv6Addr::UNSPECIFIED,
            src6_port: 0,
            dst6,
            src4: key.src4,
            src4_port: key.port4,
            dst4: key.dst4,
            dst4_port: key.peer_port,
            state: State::V4Init.name().to_owned(),
            expires_s: deadline.since(now).as_secs_f64().ceil() as u64,
            unit: None,
            worker: self.worker,
            path: self.path_while(Path::Opening),
        })
    }

    /// Bindings from slot `cursor` on, like [`Engine::session_rows`].
    pub fn bib_rows(&self, filter: &RowFilter, cursor: u32, limit: usize) -> (Vec<BibRow>, Option<u32>) {
        self.page(self.bib.capacity(), cursor, limit, |slot| {
            let b = self.bib.get(slot)?;
            let seen = Seen {
                protocol: b.protocol,
                addrs6: [b.src6, b.src6],
                addrs4: [b.src4, b.src4],
                ports: [b.port6, b.port4, b.port4],
            };
            let unit = self.unit_name(b.src6);
            seen.passes(filter, unit).then(|| BibRow {
                protocol: b.protocol,
                src6: b.src6,
                src6_port: b.port6,
                src4: b.src4,
                src4_port: b.port4,
                sessions: b.sessions.into(),
                is_static: b.is_static(),
                unit: unit.map(str::to_owned),
                worker: self.worker,
            })
        })
    }

    fn page<R>(
        &self,
        capacity: u32,
        cursor: u32,
        limit: usize,
        row: impl Fn(u32) -> Option<R>,
    ) -> (Vec<R>, Option<u32>) {
        let mut rows = Vec::new();
        let end = capacity.min(cursor.saturating_add(SCAN));
        for slot in cursor..end {
            if rows.len() >= limit {
                return (rows, Some(slot));
            }
            rows.extend(row(slot));
        }
        (rows, (end < capacity).then_some(end))
    }

    fn unit_name(&self, addr: Ipv6Addr) -> Option<&str> {
        let unit = self.units.of(addr)?;
        self.settings.units.get(unit).map(|u| u.name.as_str())
    }
}

/// What of a row can be filtered by.
struct Seen {
    protocol: Protocol,
    addrs6: [Ipv6Addr; 2],
    addrs4: [Ipv4Addr; 2],
    ports: [u16; 3],
}

impl Seen {
    fn passes(&self, filter: &RowFilter, unit: Option<&str>) -> bool {
        filter.protocol.is_none_or(|p| p == self.protocol)
            && filter.addr6.is_none_or(|a| self.addrs6.contains(&a))
            && filter.addr4.is_none_or(|a| self.addrs4.contains(&a))
            && filter.port.is_none_or(|p| self.ports.contains(&p))
            && filter.unit.as_deref().is_none_or(|u| Some(u) == unit)
    }
}
