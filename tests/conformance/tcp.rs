//! RFC 6146 §3.5.2: the TCP state machine, through the engine and on virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sampan::nat64::settings::{Filter, RowFilter};
use sampan::wire::checksum::{Sum, pseudo4, pseudo6};

use crate::support::packet::{ACK, FIN, PSH, RST, SYN};
use crate::support::{Gateway, Packet, at, settings, tcp};
use crate::{client, forwarded, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);

/// One connection of the client to the server's port 80.
struct Connection {
    gateway: Gateway,
    t: SocketAddr,
}

impl Connection {
    /// The client's SYN has passed.
    fn opening(mut gateway: Gateway) -> Self {
        let t = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b"")).source();
        Self { gateway, t }
    }

    /// SYN, SYN-ACK and ACK have passed.
    fn open(gateway: Gateway) -> Self {
        let mut this = Self::opening(gateway);
        this.down(SYN | ACK);
        this.up(ACK);
        assert_eq!(this.state(), "ESTABLISHED");
        this
    }

    /// A segment from the client, which must arrive.
    #[track_caller]
    fn up(&mut self, flags: u8) {
        let packet = tcp(client(4000), server6(&self.gateway, 80), flags, b"data");
        let out = self.gateway.translate(&packet);
        assert_eq!(out, forwarded(&packet, self.t, server(80)).id(out.id));
    }

    /// A segment from the server, which must arrive.
    #[track_caller]
    fn down(&mut self, flags: u8) {
        let packet = tcp(server(80), self.t, flags, b"data");
        let out = self.gateway.translate(&packet);
        assert_eq!(out, forwarded(&packet, server6(&self.gateway, 80), client(4000)));
    }

    fn state(&self) -> String {
        let rows = self.gateway.session_rows(&RowFilter::default());
        rows.first().map_or("CLOSED".to_owned(), |r| r.state.clone())
    }

    /// The session, idle from now on, is there just before `seconds` and gone at them.
    #[track_caller]
    fn dies_after(mut self, seconds: u32) {
        self.gateway.advance(seconds * SECOND - Duration::from_millis(250));
        assert_eq!(self.gateway.sessions(), [1, 0, 0], "{}", self.state());
        self.gateway.advance(Duration::from_millis(250));
        assert!(self.gateway.is_empty(), "session, binding, subscriber and port block are free again");
        // F-44: dropped silently.
        let late = tcp(server(80), self.t, ACK, b"late");
        assert_eq!(self.gateway.refuse(&late, "no_bib"), None);
        let late = tcp(client(4000), server6(&self.gateway, 80), ACK, b"late");
        assert_eq!(self.gateway.refuse(&late, "no_session"), None);
    }
}

fn each(test: impl Fn(Gateway)) {
    Gateway::each(&settings()).into_iter().for_each(test);
}

#[test]
fn f31_f40_handshake_states_and_the_opening_lifetime() {
    each(|gateway| {
        let c = Connection::opening(gateway);
        assert_eq!(c.state(), "V6_INIT");
        c.dies_after(240);
    });
    each(|gateway| {
        let mut c = Connection::opening(gateway);
        c.gateway.advance(239 * SECOND);
        // A retransmitted SYN starts the time again.
        c.up(SYN);
        c.gateway.advance(239 * SECOND);
        assert_eq!(c.state(), "V6_INIT");
        c.down(SYN | ACK);
        assert_eq!(c.state(), "ESTABLISHED");
        c.up(ACK);
        c.up(ACK | PSH);
        c.down(ACK);
        assert_eq!(c.state(), "ESTABLISHED");
    });
}

#[test]
fn f30_other_segments_while_opening_pass_without_refreshing() {
    each(|gateway| {
        let mut c = Connection::opening(gateway);
        c.gateway.advance(100 * SECOND);
        c.up(ACK);
        c.up(RST);
        c.down(ACK);
        c.down(RST);
        assert_eq!(c.state(), "V6_INIT");
        c.dies_after(140);
    });
}

#[test]
fn f41_an_established_session_lives_7200_and_then_240_seconds_when_idle() {
    each(|gateway| {
        let mut c = Connection::open(gateway);
        c.gateway.advance(7200 * SECOND - Duration::from_millis(250));
        assert_eq!(c.state(), "ESTABLISHED");
        assert_eq!(c.gateway.advance_telling(Duration::from_millis(250)).len(), 1, "the probe");
        assert_eq!(c.state(), "TRANS");
        c.dies_after(240);
    });
    each(|gateway| {
        let mut c = Connection::open(gateway);
        assert_eq!(c.gateway.advance_telling(7439 * SECOND).len(), 1);
        // F-42: a packet in the last second brings it back.
        c.down(ACK);
        assert_eq!(c.state(), "ESTABLISHED");
        c.gateway.advance(7199 * SECOND);
        assert_eq!(c.state(), "ESTABLISHED");
        c.up(ACK);
        assert_eq!(c.gateway.advance_telling(7200 * SECOND).len(), 1);
        c.dies_after(240);
    });
}

#[test]
fn f41_the_grace_time_counts_from_the_end_of_the_lifetime_even_when_nobody_looked() {
    each(|gateway| {
        // A fast path carries on what nobody has ended; here the engine itself gets the packets.
        let mut c = Connection::open(gateway);
        c.gateway.fast = None;
        c.gateway.now = c.gateway.now + 7300 * SECOND;
        c.up(ACK);
        assert_eq!(c.state(), "ESTABLISHED");
        c.gateway.now = c.gateway.now + 7440 * SECOND;
        let late = tcp(client(4000), server6(&c.gateway, 80), ACK, b"late");
        assert_eq!(c.gateway.refuse(&late, "no_session"), None);
        assert!(c.gateway.is_empty());
    });
}

#[test]
fn f42_g24_rst_leaves_240_seconds_in_which_data_revives_the_session() {
    each(|gateway| {
        let mut c = Connection::open(gateway);
        c.down(RST);
        assert_eq!(c.state(), "TRANS");
        c.gateway.advance(100 * SECOND);
        c.up(ACK);
        assert_eq!(c.state(), "ESTABLISHED");
        c.up(RST | ACK);
        c.gateway.advance(100 * SECOND);
        // Another RST does not refresh.
        c.down(RST);
        assert_eq!(c.state(), "TRANS");
        c.dies_after(140);
    });
}

#[test]
fn f43_after_both_fins_traffic_passes_without_refreshing() {
    each(|gateway| {
        let mut c = Connection::open(gateway);
        c.up(FIN | ACK);
        assert_eq!(c.state(), "V6_FIN_RCV");
        // Half-closed: data still flows, and refreshes.
        c.gateway.advance(7000 * SECOND);
        c.down(ACK | PSH);
        c.gateway.advance(7000 * SECOND);
        c.down(FIN | ACK);
        assert_eq!(c.state(), "V4_FIN_RCV+V6_FIN_RCV");
        c.gateway.advance(100 * SECOND);
        c.up(ACK);
        c.up(RST);
        c.down(ACK);
        assert_eq!(c.state(), "V4_FIN_RCV+V6_FIN_RCV");
        c.dies_after(140);
    });
    each(|gateway| {
        let mut c = Connection::open(gateway);
        c.down(FIN | ACK);
        assert_eq!(c.state(), "V4_FIN_RCV");
        c.up(RST);
        assert_eq!(c.state(), "V4_FIN_RCV");
        c.dies_after(7200);
    });
}

#[test]
fn f30_a_half_closed_session_has_no_grace_time() {
    each(|gateway| {
        let mut c = Connection::open(gateway);
        c.up(FIN | ACK);
        c.up(ACK);
        c.dies_after(7200);
    });
}

#[test]
fn f32_g22_simultaneous_open_through_an_existing_mapping() {
    each(|gateway| {
        let mut c = Connection::opening(gateway);
        // Another peer's SYN comes first, then the client's to that peer: both SYN-ACKs pass.
        let peer = at("203.0.113.50", 7000);
        let seen = seen6(&c.gateway, peer);
        assert_eq!(c.gateway.translate(&tcp(peer, c.t, SYN, b"")).source(), seen);
        let wanted = RowFilter { port: Some(7000), ..RowFilter::default() };
        assert_eq!(c.gateway.session_rows(&wanted)[0].state, "V4_INIT");
        assert_eq!(c.gateway.translate(&tcp(client(4000), seen, SYN, b"")).source(), c.t);
        assert_eq!(c.gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
        c.gateway.translate(&tcp(peer, c.t, SYN | ACK, b""));
        c.gateway.translate(&tcp(client(4000), seen, SYN | ACK, b""));
        assert_eq!(c.gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
    });
}

#[test]
fn f32_the_peers_syn_may_cross_the_clients() {
    each(|gateway| {
        let mut c = Connection::opening(gateway);
        c.down(SYN);
        assert_eq!(c.state(), "ESTABLISHED");
        c.up(SYN | ACK);
        c.down(SYN | ACK);
        assert_eq!(c.state(), "ESTABLISHED");
    });
}

#[test]
fn f30_a_session_opened_from_outside_waits_240_seconds_for_the_client() {
    each(|gateway| {
        let mut c = Connection::opening(gateway);
        c.gateway.advance(120 * SECOND);
        let peer = at("203.0.113.50", 7000);
        c.gateway.translate(&tcp(peer, c.t, SYN, b""));
        // V4_INIT: anything but the client's SYN passes and changes nothing.
        c.gateway.advance(100 * SECOND);
        let seen = seen6(&c.gateway, peer);
        c.gateway.translate(&tcp(client(4000), seen, RST | ACK, b""));
        c.gateway.translate(&tcp(peer, c.t, SYN, b""));
        assert_eq!(c.gateway.sessions(), [2, 0, 0]);
        c.gateway.advance(20 * SECOND);
        assert_eq!(c.gateway.sessions(), [1, 0, 0]);
        c.gateway.advance(119 * SECOND);
        assert_eq!(c.gateway.sessions(), [1, 0, 0]);
        c.gateway.advance(SECOND);
        assert!(c.gateway.is_empty());
    });
}

#[test]
fn f30_only_a_syn_opens_from_either_side() {
    each(|gateway| {
        let mut c = Connection::opening(gateway);
        for flags in [ACK, FIN | ACK, RST, SYN | ACK, SYN | RST, 0] {
            let up = tcp(client(4000), seen6(&c.gateway, at("203.0.113.50", 80)), flags, b"");
            assert_eq!(c.gateway.refuse(&up, "no_session"), None, "{flags:#x}");
            // F-44: the policy here is not to forward what belongs to no session.
            let down = tcp(at("203.0.113.50", 80), c.t, flags, b"");
            assert_eq!(c.gateway.refuse(&down, "no_session"), None, "{flags:#x}");
        }
        assert_eq!(c.gateway.sessions(), [1, 0, 0]);
    });
}

#[test]
fn f46_connections_from_outside_can_be_forbidden() {
    let mut settings = settings();
    settings.filtering.drop_external_tcp = true;
    for gateway in Gateway::each(&settings) {
        let mut c = Connection::open(gateway);
        let syn = tcp(at("203.0.113.50", 7000), c.t, SYN, b"");
        assert_eq!(c.gateway.refuse(&syn, "filtered"), None);
        c.down(ACK);
    }
}

#[test]
fn f47_tcp_may_filter_by_address_while_udp_does_not() {
    let mut settings = settings();
    settings.filtering.tcp = Filter::AddressDependent;
    for gateway in Gateway::each(&settings) {
        let mut c = Connection::open(gateway);
        c.gateway.hold(&tcp(at("203.0.113.50", 7000), c.t, SYN, b""));
        // The same host from another port may.
        c.gateway.translate(&tcp(server(7000), c.t, SYN, b""));
        let u = crate::open_udp(&mut c.gateway, client(4000));
        c.gateway.translate(&crate::support::udp(at("203.0.113.50", 7000), u, b"a"));
    }
}

#[test]
fn g23_opening_and_closing_lifetimes_are_separate() {
    let mut settings = settings();
    settings.timers.tcp_trans_open = 300 * SECOND;
    settings.timers.tcp_trans_close = 500 * SECOND;
    for gateway in Gateway::each(&settings) {
        Connection::opening(gateway).dies_after(300);
    }
    for gateway in Gateway::each(&settings) {
        let mut c = Connection::open(gateway);
        c.up(FIN | ACK);
        c.down(FIN | ACK);
        c.dies_after(500);
    }
}

#[test]
fn f61_syns_announce_no_more_than_fits_both_links_when_that_is_wanted() {
    /// The SYN with an MSS option of 1460 in it.
    fn announcing(syn: &Packet) -> Vec<u8> {
        let mut bytes = syn.bytes();
        bytes.extend([2, 4, 5, 180]);
        let (l4, protocol, pseudo) = match (syn.src, syn.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => (40, 4, pseudo6(src, dst, 6, 24)),
            (IpAddr::V4(src), IpAddr::V4(dst)) => (20, 2, pseudo4(src, dst, 6, 24)),
            _ => panic!("two families"),
        };
        let len = if l4 == 40 { 24_u16 } else { 44 };
        bytes[protocol..protocol + 2].copy_from_slice(&len.to_be_bytes());
        bytes[l4 + 12] = 0x60;
        bytes[l4 + 16..l4 + 18].fill(0);
        let sum = pseudo.bytes(&bytes[l4..]).checksum();
        bytes[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
        if l4 == 20 {
            bytes[10..12].fill(0);
            let sum = Sum::ZERO.bytes(&bytes[..20]).checksum();
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }
    let mut settings = settings();
    settings.mss_clamp = Some(1220);
    for mut gateway in Gateway::each(&settings) {
        let up = tcp(client(4000), server6(&gateway, 80), SYN, b"");
        let out = gateway.send_raw(announcing(&up), Default::default());
        assert_eq!(out[0].bytes[40..44], [2, 4, 4, 196]);
        let t = Packet::parse(&out[0].bytes).unwrap().source();
        let down = tcp(server(80), t, SYN | ACK, b"");
        let out = gateway.send_raw(announcing(&down), Default::default());
        assert_eq!(out[0].bytes[60..64], [2, 4, 4, 196]);
        // `parse` recomputes the checksum.
        assert!(Packet::parse(&out[0].bytes).is_ok());
    }
}
