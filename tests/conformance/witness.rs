//! Forged segments and errors cost no live flow (RFC 6146 §5.2, RFC 7857 §2.2, RFC 5927, RFC 5961): what the two ends
//! cannot have sent is translated, but changes neither state nor lifetime.

use std::net::SocketAddr;
use std::time::Duration;

use sampan::nat64::settings::RowFilter;

use crate::support::packet::{ACK, FIN, ISN, PSH, RST, SYN, numbered};
use crate::support::{Gateway, Packet, at, error, ip, settings, tcp, udp};
use crate::{client, forwarded, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);

/// An established connection of the client to the server's port 80.
struct Flow {
    gateway: Gateway,
    t: SocketAddr,
}

impl Flow {
    fn open(mut gateway: Gateway) -> Self {
        let to = server6(&gateway, 80);
        let t = gateway.translate(&tcp(client(4000), to, SYN, b"")).source();
        gateway.translate(&tcp(server(80), t, SYN | ACK, b""));
        gateway.translate(&tcp(client(4000), to, ACK, b""));
        let this = Self { gateway, t };
        assert_eq!(this.state().0, "ESTABLISHED");
        this
    }

    fn state(&self) -> (String, u64) {
        let rows = self.gateway.session_rows(&RowFilter { port: Some(80), ..RowFilter::default() });
        rows.first().map_or(("CLOSED".to_owned(), 0), |r| (r.state.clone(), r.expires_s))
    }

    /// A segment that seems to come from the server.
    fn server_says(&self, flags: u8, seq: u32, ack: u32) -> Packet {
        numbered(tcp(server(80), self.t, flags, b""), seq, ack)
    }

    fn client_says(&self, flags: u8, seq: u32, ack: u32) -> Packet {
        numbered(tcp(client(4000), server6(&self.gateway, 80), flags, b""), seq, ack)
    }

    /// The packet passes, translated and otherwise unchanged.
    #[track_caller]
    fn passes(&mut self, packet: &Packet) {
        let to = if packet.src.is_ipv4() {
            (server6(&self.gateway, 80), client(4000))
        } else {
            (self.t, server(80))
        };
        let out = self.gateway.translate(packet);
        assert_eq!(out, forwarded(packet, to.0, to.1).id(out.id));
    }
}

/// Numbers that are not where the ends are.
fn elsewhere() -> impl Iterator<Item = u32> {
    [1 << 30, 1 << 31, 3 << 30, 200_000, 0x5555_5555, 0_u32.wrapping_sub(200_000)]
        .into_iter()
        .map(|step: u32| (ISN + 1).wrapping_add(step))
}

fn each(test: impl Fn(Flow)) {
    Gateway::each(&settings()).into_iter().for_each(|gateway| test(Flow::open(gateway)));
}

#[test]
fn f45_o16_g24_a_forged_rst_is_translated_and_changes_nothing() {
    each(|mut flow| {
        flow.gateway.advance(100 * SECOND);
        let before = flow.state();
        // Even numbers within the window: RFC 5961 §3.2 has the end answer those, not obey them.
        for seq in elsewhere().chain([ISN, ISN + 2, ISN + 1000, ISN - 1000]) {
            for flags in [RST, RST | ACK] {
                flow.passes(&flow.server_says(flags, seq, ISN + 1));
                flow.passes(&flow.client_says(flags, seq, ISN + 1));
            }
        }
        assert_eq!(flow.state(), before);
        // The idle flow outlives the TRANS timer.
        flow.gateway.advance(241 * SECOND);
        flow.passes(&flow.server_says(ACK, ISN + 1, ISN + 1));
        assert_eq!(flow.state(), ("ESTABLISHED".to_owned(), 7200));
    });
}

#[test]
fn f45_g24_a_true_rst_of_either_end_is_believed() {
    each(|mut flow| {
        flow.passes(&flow.server_says(RST, ISN + 1, 0));
        assert_eq!(flow.state(), ("TRANS".to_owned(), 240));
    });
    each(|mut flow| {
        flow.passes(&flow.client_says(RST | ACK, ISN + 1, ISN + 1));
        assert_eq!(flow.state(), ("TRANS".to_owned(), 240));
    });
    // One that follows data which the client has not acknowledged.
    each(|mut flow| {
        flow.passes(&tcp(server(80), flow.t, ACK | PSH, b"0123456789"));
        flow.passes(&flow.server_says(RST, ISN + 11, 0));
        assert_eq!(flow.state().0, "TRANS");
    });
}

#[test]
fn f45_o16_forged_fins_and_syns_change_nothing() {
    each(|mut flow| {
        flow.gateway.advance(100 * SECOND);
        let before = flow.state();
        for seq in elsewhere() {
            flow.passes(&flow.server_says(FIN | ACK, seq, ISN + 1));
            flow.passes(&flow.server_says(SYN, seq, 0));
            flow.passes(&flow.server_says(SYN | ACK, seq, ISN + 1));
            // Right number, but it acknowledges what was never sent.
            flow.passes(&flow.server_says(FIN | ACK, ISN + 1, seq));
            // No segment but SYN and RST is without acknowledgement.
            flow.passes(&flow.server_says(FIN, ISN + 1, 0));
        }
        assert_eq!(flow.state(), before);
    });
    each(|mut flow| {
        // The same of the client's side: half closed is half closed.
        for seq in elsewhere().filter(|seq| seq.wrapping_sub(ISN) > 1 << 17) {
            flow.passes(&flow.client_says(FIN | ACK, seq, ISN + 1));
        }
        assert_eq!(flow.state().0, "ESTABLISHED");
    });
}

#[test]
fn f45_o11_forged_data_keeps_no_session_alive_and_brings_none_back() {
    each(|mut flow| {
        for _ in 0..72 {
            flow.gateway.advance(100 * SECOND - TICK);
            for seq in elsewhere() {
                flow.passes(&flow.server_says(ACK, seq, ISN + 1));
                flow.passes(&flow.server_says(ACK, ISN + 1, seq));
            }
        }
        assert_eq!(flow.gateway.advance_telling(18 * SECOND).len(), 1, "the probe");
        assert_eq!(flow.state().0, "TRANS");
        for seq in elsewhere() {
            flow.passes(&flow.server_says(ACK, seq, ISN + 1));
        }
        assert_eq!(flow.state(), ("TRANS".to_owned(), 240));
        flow.passes(&flow.server_says(ACK, ISN + 1, ISN + 1));
        assert_eq!(flow.state().0, "ESTABLISHED");
    });
}

#[test]
fn f45_a_forged_syn_ack_opens_nothing_and_the_true_one_does() {
    for mut gateway in Gateway::each(&settings()) {
        let t = gateway.translate(&tcp(client(4000), server6(&gateway, 80), SYN, b"")).source();
        let mut flow = Flow { gateway, t };
        for seq in elsewhere() {
            flow.passes(&flow.server_says(SYN | ACK, ISN, seq));
        }
        assert_eq!(flow.state(), ("V6_INIT".to_owned(), 240));
        flow.passes(&flow.server_says(SYN | ACK, ISN, ISN + 1));
        assert_eq!(flow.state().0, "ESTABLISHED");
    }
}

#[test]
fn f42_f45_a_lucky_rst_leaves_time_in_which_data_brings_the_flow_back() {
    each(|mut flow| {
        flow.passes(&flow.server_says(RST, ISN + 1, 0));
        flow.gateway.advance(239 * SECOND);
        flow.passes(&flow.client_says(ACK | PSH, ISN + 1, ISN + 1));
        assert_eq!(flow.state(), ("ESTABLISHED".to_owned(), 7200));
    });
}

#[test]
fn f45_a_long_transfer_keeps_the_window_where_the_ends_are() {
    each(|mut flow| {
        // More than a window many times over, with the client's acknowledgements.
        let start = ISN + 1;
        let mut sent = start;
        for round in 0..1000 {
            let data = vec![7; 1200];
            flow.passes(&numbered(tcp(server(80), flow.t, ACK, &data), sent, ISN + 1));
            sent += 1200;
            if round % 2 == 0 {
                flow.passes(&flow.client_says(ACK, ISN + 1, sent));
            }
        }
        flow.passes(&flow.client_says(ACK, ISN + 1, sent));
        flow.passes(&flow.server_says(RST, start, 0));
        flow.passes(&flow.server_says(RST, sent.wrapping_sub(1), 0));
        assert_eq!(flow.state().0, "ESTABLISHED");
        flow.passes(&flow.server_says(RST, sent, 0));
        assert_eq!(flow.state().0, "TRANS");
    });
}

/// An ICMPv4 error from a router about a segment of the client.
fn complaint(flow: &Flow, kind: u8, code: u8, rest: u32, seq: u32) -> Packet {
    let quoted = numbered(tcp(flow.t, server(80), ACK, b"data"), seq, ISN + 1);
    error(ip("203.0.113.1"), flow.t.ip(), kind, code, rest, &quoted.bytes())
}

#[test]
fn d52_o14_errors_about_segments_that_are_not_on_their_way_are_dropped() {
    each(|mut flow| {
        flow.passes(&tcp(client(4000), server6(&flow.gateway, 80), ACK | PSH, b"0123456789"));
        let before = flow.state();
        for seq in elsewhere().chain([ISN + 12]) {
            for (kind, code, rest) in [(3, 1, 0), (3, 3, 0), (3, 4, 68), (11, 0, 0)] {
                let forged = complaint(&flow, kind, code, rest, seq);
                assert_eq!(flow.gateway.refuse(&forged, "not_in_flight"), None);
            }
        }
        // Of the ten bytes, and the keep-alive's number.
        for seq in [ISN, ISN + 1, ISN + 10] {
            let told = flow.gateway.translate(&complaint(&flow, 3, 3, 0, seq));
            assert_eq!((told.icmp().0, told.icmp().1, told.dst), (1, 4, client(4000).ip()));
        }
        // G-18: none of them has touched the session.
        assert_eq!(flow.state(), before);
    });
}

#[test]
fn d52_o14_no_error_makes_an_mtu_below_1280_known() {
    each(|mut flow| {
        flow.passes(&tcp(client(4000), server6(&flow.gateway, 80), ACK | PSH, b"0123456789"));
        for mtu in [0, 1, 68, 296, 576, 1259, 1260] {
            let told = flow.gateway.translate(&complaint(&flow, 3, 4, mtu, ISN + 1));
            let (kind, code, mtu, _) = told.icmp();
            assert!((kind, code) == (2, 0) && mtu >= 1280, "{mtu}");
        }
    });
}

#[test]
fn d52_o14_errors_from_inside_about_the_servers_segments() {
    each(|mut flow| {
        flow.passes(&tcp(server(80), flow.t, ACK | PSH, b"0123456789"));
        let about = |flow: &Flow, seq| {
            let quoted = numbered(tcp(server6(&flow.gateway, 80), client(4000), ACK, b"data"), seq, ISN + 1);
            error(client(4000).ip(), server6(&flow.gateway, 80).ip(), 1, 4, 0, &quoted.bytes())
        };
        for seq in elsewhere() {
            assert_eq!(flow.gateway.refuse(&about(&flow, seq), "not_in_flight"), None);
        }
        assert_eq!(flow.gateway.translate(&about(&flow, ISN + 1)).dst, server(80).ip());
    });
}

#[test]
fn d52_errors_do_not_end_a_session_that_is_nearly_over() {
    each(|mut flow| {
        // Its established lifetime is over, and nobody has looked yet.
        flow.gateway.now = flow.gateway.now + 7200 * SECOND;
        let told = flow.gateway.send(&complaint(&flow, 3, 1, 0, ISN + 1));
        // The error, and then the sweep's probe.
        assert_eq!(told.len(), 2);
        flow.passes(&flow.client_says(ACK, ISN + 1, ISN + 1));
        assert_eq!(flow.state().0, "ESTABLISHED");
    });
}

#[test]
fn g18_udp_errors_change_nothing_either() {
    for mut gateway in Gateway::each(&settings()) {
        let t = crate::open_udp(&mut gateway, client(4000));
        gateway.advance(299 * SECOND);
        for _ in 0..100 {
            let quoted = udp(t, server(53), b"q").bytes();
            gateway.translate(&error(ip("203.0.113.1"), t.ip(), 3, 3, 0, &quoted));
        }
        gateway.advance(SECOND);
        assert!(gateway.is_empty());
    }
}

#[test]
fn f45_the_witness_of_a_hairpinned_connection() {
    for mut gateway in Gateway::each(&settings()) {
        let (a, b) = (client(4000), at("2001:db8:1::1", 5000));
        let t_b = gateway.translate(&tcp(b, server6(&gateway, 80), SYN, b"")).source();
        let seen_b = seen6(&gateway, t_b);
        let seen_a = gateway.translate(&tcp(a, seen_b, SYN, b"")).source();
        gateway.translate(&tcp(b, seen_a, SYN | ACK, b""));
        gateway.translate(&tcp(a, seen_b, ACK, b""));
        let states = |gateway: &Gateway| -> Vec<String> {
            let rows = gateway.session_rows(&RowFilter { port: Some(t_b.port()), ..RowFilter::default() });
            rows.into_iter().filter(|r| r.dst4_port != 80).map(|r| r.state).collect()
        };
        assert_eq!(states(&gateway), ["ESTABLISHED", "ESTABLISHED"]);
        for seq in elsewhere() {
            gateway.translate(&numbered(tcp(b, seen_a, RST, b""), seq, 0));
        }
        assert_eq!(states(&gateway), ["ESTABLISHED", "ESTABLISHED"]);
        gateway.translate(&tcp(b, seen_a, RST, b""));
        assert_eq!(states(&gateway), ["TRANS", "TRANS"]);
    }
}
