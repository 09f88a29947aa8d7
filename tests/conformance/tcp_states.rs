//! RFC 6146 §3.5.2.2, row by row: every state, event, action and next state of the table in the requirements, on virtual
//! time; and the SYN that waits.

use std::net::SocketAddr;
use std::time::Duration;

use sampan::nat64::settings::{Filter, HELD_SYNS, HoldSyn, RowFilter, Settings, StrayTcp};
use sampan::nat64::tcp::Side::{self, V4, V6};

use crate::support::packet::{ACK, FIN, ISN, RST, SYN};
use crate::support::{Gateway, L4, Packet, at, settings, tcp};
use crate::{client, forwarded, seen6, server, server6};

const SECOND: Duration = Duration::from_secs(1);
/// A quarter of a second: as exact as lifetimes are.
const TICK: Duration = Duration::from_millis(250);

/// A gateway with one connection of the client to the server's port 80, and its pool address.
struct Flow {
    gateway: Gateway,
    t: SocketAddr,
}

/// What is left of a lifetime after the event.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// These seconds from the event on.
    Seconds(u64),
    /// Whatever it was: the event came 100 s after the state was entered.
    Untouched(u64),
}
use Left::{Seconds, Untouched};

impl Flow {
    /// Brings a new connection into `state`.
    fn bring(gateway: Gateway, state: &str) -> Self {
        let mut this = Self { gateway, t: server(0) };
        let segments: &[(Side, u8)] = match state {
            "V6_INIT" => &[],
            "ESTABLISHED" => &[(V4, SYN | ACK), (V6, ACK)],
            "V4_FIN_RCV" => &[(V4, SYN | ACK), (V6, ACK), (V4, FIN | ACK)],
            "V6_FIN_RCV" => &[(V4, SYN | ACK), (V6, ACK), (V6, FIN | ACK)],
            "V4_FIN_RCV+V6_FIN_RCV" => &[(V4, SYN | ACK), (V6, ACK), (V6, FIN | ACK), (V4, FIN | ACK)],
            "TRANS" => &[(V4, SYN | ACK), (V6, ACK), (V4, RST)],
            "V4_INIT" => return Self::from_outside(this.gateway),
            other => panic!("no way to {other}"),
        };
        let syn = tcp(client(4000), server6(&this.gateway, 80), SYN, b"");
        this.t = this.gateway.translate(&syn).source();
        for (from, flags) in segments {
            this.segment(*from, *flags);
        }
        assert_eq!(this.state(), state);
        this
    }

    /// The server opens, through a mapping that the client has by another connection.
    fn from_outside(mut gateway: Gateway) -> Self {
        let other = seen6(&gateway, at("203.0.113.99", 80));
        let t = gateway.translate(&tcp(client(4000), other, SYN, b"")).source();
        let mut this = Self { gateway, t };
        this.segment(V4, SYN);
        assert_eq!(this.state(), "V4_INIT");
        this
    }

    /// A segment that must arrive, translated and unchanged in everything else.
    #[track_caller]
    fn segment(&mut self, from: Side, flags: u8) {
        let (c, s6, s4, t) = (client(4000), server6(&self.gateway, 80), server(80), self.t);
        let (packet, src, dst) = match from {
            V6 => (tcp(c, s6, flags, b""), t, s4),
            V4 => (tcp(s4, t, flags, b""), s6, c),
        };
        let out = self.gateway.translate(&packet);
        assert_eq!(out, forwarded(&packet, src, dst).id(out.id));
    }

    fn rows(&self) -> Vec<String> {
        let wanted =
            RowFilter { port: Some(80), addr4: Some([203, 0, 113, 10].into()), ..RowFilter::default() };
        self.gateway.session_rows(&wanted).into_iter().map(|r| r.state).collect()
    }

    fn state(&self) -> String {
        self.rows().first().map_or("CLOSED".to_owned(), Clone::clone)
    }
}

fn each(settings: &Settings, test: impl Fn(Gateway)) {
    Gateway::each(settings).into_iter().for_each(test);
}

/// One row: in `state` comes a segment of `from` with `flags`; then the state is `next` and lives for `left`.
fn row(state: &str, from: Side, flags: u8, next: &str, left: Left) {
    each(&settings(), |gateway| {
        let mut flow = Flow::bring(gateway, state);
        flow.gateway.advance(100 * SECOND);
        flow.segment(from, flags);
        assert_eq!(flow.state(), next, "{state} {from:?} {flags:#x}");
        let seconds = match left {
            Seconds(n) => n,
            Untouched(n) => n - 100,
        };
        flow.gateway.advance_telling(Duration::from_secs(seconds) - TICK);
        assert_eq!(flow.state(), next, "{state} {from:?} {flags:#x}: just before {seconds} s");
        flow.gateway.advance_telling(TICK);
        let after = if next == "ESTABLISHED" { "TRANS" } else { "CLOSED" };
        assert_eq!(flow.state(), after, "{state} {from:?} {flags:#x}: after {seconds} s");
    });
}

/// Makes a test of each row of the table.
macro_rules! rows {
    ($($name:ident: $state:literal, $from:ident $flags:expr => $next:literal, $left:expr;)+) => {
        $(#[test]
        fn $name() {
            row($state, $from, $flags, $next, $left);
        })+
    };
}

rows! {
    f30_v4_init_v6_syn: "V4_INIT", V6 SYN => "ESTABLISHED", Seconds(7200);
    f30_v4_init_v6_syn_ack: "V4_INIT", V6 SYN | ACK => "ESTABLISHED", Seconds(7200);
    f30_v4_init_other: "V4_INIT", V4 SYN => "V4_INIT", Untouched(240);
    f30_v4_init_other_rst: "V4_INIT", V6 RST | ACK => "V4_INIT", Untouched(240);
    f30_v6_init_v4_syn: "V6_INIT", V4 SYN => "ESTABLISHED", Seconds(7200);
    f30_v6_init_v4_syn_ack: "V6_INIT", V4 SYN | ACK => "ESTABLISHED", Seconds(7200);
    f30_v6_init_v6_syn: "V6_INIT", V6 SYN => "V6_INIT", Seconds(240);
    f30_v6_init_other: "V6_INIT", V6 ACK => "V6_INIT", Untouched(240);
    f30_v6_init_other_rst: "V6_INIT", V4 RST | ACK => "V6_INIT", Untouched(240);
    f30_established_v4_fin: "ESTABLISHED", V4 FIN | ACK => "V4_FIN_RCV", Untouched(7200);
    f30_established_v6_fin: "ESTABLISHED", V6 FIN | ACK => "V6_FIN_RCV", Untouched(7200);
    f30_established_v4_rst: "ESTABLISHED", V4 RST => "TRANS", Seconds(240);
    f30_established_v6_rst: "ESTABLISHED", V6 RST | ACK => "TRANS", Seconds(240);
    f30_established_other_v4: "ESTABLISHED", V4 ACK => "ESTABLISHED", Seconds(7200);
    f30_established_other_v6: "ESTABLISHED", V6 ACK => "ESTABLISHED", Seconds(7200);
    f30_v4_fin_v6_fin: "V4_FIN_RCV", V6 FIN | ACK => "V4_FIN_RCV+V6_FIN_RCV", Seconds(240);
    f30_v4_fin_other: "V4_FIN_RCV", V4 FIN | ACK => "V4_FIN_RCV", Seconds(7200);
    f30_v4_fin_other_rst: "V4_FIN_RCV", V6 RST => "V4_FIN_RCV", Seconds(7200);
    f30_v6_fin_v4_fin: "V6_FIN_RCV", V4 FIN | ACK => "V4_FIN_RCV+V6_FIN_RCV", Seconds(240);
    f30_v6_fin_other: "V6_FIN_RCV", V6 ACK => "V6_FIN_RCV", Seconds(7200);
    f30_v6_fin_other_rst: "V6_FIN_RCV", V4 RST => "V6_FIN_RCV", Seconds(7200);
    f30_f43_both_fins_any: "V4_FIN_RCV+V6_FIN_RCV", V6 ACK => "V4_FIN_RCV+V6_FIN_RCV", Untouched(240);
    f30_f43_both_fins_any_rst: "V4_FIN_RCV+V6_FIN_RCV", V4 RST => "V4_FIN_RCV+V6_FIN_RCV", Untouched(240);
    f30_f42_trans_other_v4: "TRANS", V4 ACK => "ESTABLISHED", Seconds(7200);
    f30_f42_trans_other_v6: "TRANS", V6 ACK => "ESTABLISHED", Seconds(7200);
    f30_f42_trans_rst: "TRANS", V4 RST => "TRANS", Untouched(240);
}

#[test]
fn f30_closed_v6_syn() {
    each(&settings(), |gateway| {
        let flow = Flow::bring(gateway, "V6_INIT");
        assert_eq!((flow.gateway.bindings(), flow.gateway.sessions()), (1, [1, 0, 0]));
    });
}

#[test]
fn f30_f46_closed_v4_syn_when_policy_says_drop() {
    let mut settings = settings();
    settings.filtering.drop_external_tcp = true;
    each(&settings, |gateway| {
        let mut flow = Flow::bring(gateway, "ESTABLISHED");
        for to in [flow.t, at("198.51.100.1", 2000)] {
            let syn = tcp(at("203.0.113.50", 7000), to, SYN, b"");
            assert_eq!(flow.gateway.refuse(&syn, "filtered"), None);
        }
        // F-34 never happens.
        assert_eq!((flow.gateway.held_syns(), flow.gateway.advance_telling(7 * SECOND)), (0, vec![]));
    });
}

/// The error of F-34 about `syn`.
fn unreachable(syn: &Packet) -> impl Fn(&Packet) + '_ {
    |told| {
        let (kind, code, _, quote) = told.icmp();
        assert_eq!((kind, code, told.src, told.dst), (3, 3, syn.dst, syn.src));
        assert_eq!(quote, syn.bytes(), "F-34: the stored SYN, byte for byte");
    }
}

#[test]
fn f30_f33_f34_f37_closed_v4_syn_to_nobody_waits_six_seconds() {
    each(&settings(), |mut gateway| {
        let syn = tcp(server(80), at("198.51.100.1", 2000), SYN, b"");
        gateway.hold(&syn);
        assert_eq!((gateway.held_syns(), gateway.bindings(), gateway.sessions()), (1, 0, [0; 3]));
        gateway.advance(3 * SECOND);
        // A retransmission neither adds nor prolongs anything.
        assert_eq!(gateway.refuse(&syn, "syn_repeated"), None);
        gateway.advance(3 * SECOND - TICK);
        let told = gateway.advance_telling(TICK);
        assert_eq!((told.len(), gateway.drops("syn_unanswered"), gateway.held_syns()), (1, 1, 0));
        unreachable(&syn)(&told[0]);
        assert_eq!(gateway.totals().held, 0);
        assert!(gateway.is_empty());
    });
}

#[test]
fn f34_o10_silent_or_off() {
    for (hold, held) in [(HoldSyn::Silent, 1), (HoldSyn::Off, 0)] {
        let mut settings = settings();
        settings.filtering.hold_syn = hold;
        each(&settings, |mut gateway| {
            gateway.send(&tcp(server(80), at("198.51.100.1", 2000), SYN, b""));
            assert_eq!(gateway.held_syns(), held);
            gateway.advance(7 * SECOND);
            let names = ["syn_unanswered", "no_bib"].map(|name| gateway.drops(name));
            assert_eq!(names, [u64::from(held), u64::from(1 - held)]);
        });
    }
}

#[test]
fn f30_closed_v4_syn_to_a_mapping_with_address_dependent_filtering_waits() {
    let mut settings = settings();
    settings.filtering.tcp = Filter::AddressDependent;
    each(&settings, |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        let syn = tcp(at("203.0.113.50", 7000), flow.t, SYN, b"");
        flow.gateway.hold(&syn);
        assert_eq!(flow.gateway.sessions(), [1, 0, 0]);
        let told = flow.gateway.advance_telling(6 * SECOND);
        unreachable(&syn)(&told[0]);
    });
}

#[test]
fn f30_closed_v4_syn_to_a_mapping_passes() {
    each(&settings(), |gateway| {
        let mut flow = Flow::from_outside(gateway);
        flow.gateway.advance(240 * SECOND - TICK);
        assert_eq!(flow.state(), "V4_INIT");
        flow.gateway.advance(TICK);
        // Nothing was stored, so nobody is told.
        assert_eq!(flow.state(), "CLOSED");
    });
}

#[test]
fn f32_f35_the_clients_syn_meets_the_one_that_waits_and_opens() {
    let mut settings = settings();
    settings.filtering.tcp = Filter::AddressDependent;
    each(&settings, |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        let peer = at("203.0.113.50", 7000);
        let seen = seen6(&flow.gateway, peer);
        flow.gateway.hold(&tcp(peer, flow.t, SYN, b""));
        flow.gateway.advance(6 * SECOND - TICK);
        let before = flow.gateway.totals();
        // One packet comes out: the client's own. The one that waited is not forwarded.
        let out = flow.gateway.send(&tcp(client(4000), seen, SYN, b""));
        assert_eq!((out.len(), out[0].source(), out[0].destination()), (1, flow.t, peer));
        assert_eq!(flow.gateway.drops_since(&before), [("syn_met", 1)]);
        let wanted = RowFilter { port: Some(7000), ..RowFilter::default() };
        assert_eq!(flow.gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
        // Both SYN-ACKs pass.
        assert_eq!(flow.gateway.translate(&tcp(peer, flow.t, SYN | ACK, b"")).source(), seen);
        assert_eq!(flow.gateway.translate(&tcp(client(4000), seen, SYN | ACK, b"")).source(), flow.t);
        assert_eq!(flow.gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
        // And nobody is told anything after six seconds.
        flow.gateway.advance(10 * SECOND);
    });
}

#[test]
fn f35_the_sender_of_a_syn_that_waits_is_told_nothing_when_another_copy_has_opened_the_connection() {
    let mut settings = settings();
    settings.filtering.tcp = Filter::AddressDependent;
    each(&settings, |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        let peer = at("203.0.113.50", 7000);
        let (syn, answer) = (tcp(peer, flow.t, SYN, b""), seen6(&flow.gateway, peer));
        flow.gateway.hold(&syn);
        // The client calls that host elsewhere, which lets the next copy in.
        let elsewhere = seen6(&flow.gateway, at("203.0.113.50", 80));
        flow.gateway.translate(&tcp(client(4000), elsewhere, SYN, b""));
        let before = flow.gateway.totals();
        assert_eq!(flow.gateway.send(&syn)[0].destination(), client(4000));
        assert_eq!(flow.gateway.drops_since(&before), [("syn_met", 1)]);
        assert_eq!(flow.gateway.held_syns(), 0);
        flow.gateway.translate(&tcp(client(4000), answer, SYN | ACK, b""));
        flow.gateway.advance(10 * SECOND);
    });
}

#[test]
fn f38_a_syn_to_a_free_port_is_met_by_the_client_that_gets_exactly_that_port() {
    // One worker: with several a free port has no owner yet, see the limits. One block, so that every port is tried.
    let mut settings = settings();
    settings.pool4.ranges[0].prefix = "198.51.100.1/32".parse().unwrap();
    settings.pool4.ranges[0].ports = 1024..=1087;
    let mut gateway = Gateway::new(settings, 1);
    let (t, peer) = (at("198.51.100.1", 1050), at("203.0.113.50", 7000));
    gateway.hold(&tcp(peer, t, SYN, b""));
    let wanted = RowFilter { port: Some(1050), ..RowFilter::default() };
    // It is a session with an unspecified IPv6 source meanwhile.
    let row = &gateway.session_rows(&wanted)[0];
    assert_eq!((row.state.as_str(), row.src6.is_unspecified(), row.expires_s), ("V4_INIT", true, 6));
    let seen = seen6(&gateway, peer);
    for port in 0..64 {
        assert_eq!(gateway.drops("syn_met"), 0);
        if gateway.send(&tcp(client(4000 + port), seen, SYN, b""))[0].source() == t {
            break;
        }
    }
    assert_eq!((gateway.drops("syn_met"), gateway.held_syns()), (1, 0));
    assert_eq!(gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
}

#[test]
fn f38_a_client_of_another_worker_opens_by_the_peers_answer_and_nobody_is_told() {
    let mut settings = settings();
    settings.pool4.ranges[0].prefix = "198.51.100.1/32".parse().unwrap();
    settings.pool4.ranges[0].ports = 1024..=1087;
    let mut gateway = Gateway::new(settings, 3);
    let (t, peer) = (at("198.51.100.1", 1050), at("203.0.113.50", 7000));
    gateway.hold(&tcp(peer, t, SYN, b""));
    let (client, seen) = (gateway.client_of(2, 0), seen6(&gateway, peer));
    let port = (1..=64)
        .find(|port| gateway.translate(&tcp(SocketAddr::new(client, *port), seen, SYN, b"")).source() == t);
    // The first worker has the SYN, the last one the client.
    assert_eq!((gateway.drops("syn_met"), gateway.held_syns()), (0, 1));
    assert_eq!(gateway.advance_telling(6 * SECOND), []);
    assert_eq!(gateway.drops("syn_unanswered"), 1);
    let answer = gateway.translate(&tcp(peer, t, SYN | ACK, b""));
    assert_eq!(answer.destination(), SocketAddr::new(client, port.unwrap()));
    let wanted = RowFilter { port: Some(1050), ..RowFilter::default() };
    assert_eq!(gateway.session_rows(&wanted)[0].state, "ESTABLISHED");
}

#[test]
fn f36_o09_o10_waiting_syns_are_bounded_and_the_newest_gives_way() {
    let mut gateway = Gateway::new(settings(), 1);
    for i in 0..HELD_SYNS + 5000 {
        let from = at(format!("203.0.113.{}", i % 200), 1024 + (i / 200) as u16);
        gateway.send(&tcp(from, at("198.51.100.1", 2000), SYN, b""));
    }
    assert_eq!((gateway.held_syns(), gateway.drops("syn_store_full")), (HELD_SYNS, 5000));
    assert_eq!((gateway.bindings(), gateway.sessions()), (0, [0; 3]));
    // The oldest ones are those that wait; as many are told as the rate limit lets through.
    let told = gateway.advance_telling(6 * SECOND);
    // An error costs one token or two.
    let limit = gateway.settings().limits.icmp_errors_per_second as usize;
    assert!((limit / 2..=limit).contains(&told.len()), "{} were told", told.len());
    assert_eq!((gateway.held_syns(), gateway.totals().held), (0, 0));
    assert_eq!(gateway.drops("syn_unanswered"), u64::from(HELD_SYNS));
    // There is room again.
    gateway.hold(&tcp(server(80), at("198.51.100.1", 2000), SYN, b""));
}

#[test]
fn f30_f44_closed_other() {
    for (policy, passes) in [(StrayTcp::Static, false), (StrayTcp::Forward, true), (StrayTcp::Drop, false)] {
        let mut settings = settings();
        settings.filtering.stray_tcp = policy;
        each(&settings, |gateway| {
            let mut flow = Flow::bring(gateway, "V6_INIT");
            let peer = at("203.0.113.50", 80);
            let seen = seen6(&flow.gateway, peer);
            for flags in [ACK, FIN | ACK, RST, SYN | ACK] {
                let (up, down) = (tcp(client(4000), seen, flags, b"x"), tcp(peer, flow.t, flags, b"x"));
                if passes {
                    let out = flow.gateway.translate(&up);
                    assert_eq!(out, forwarded(&up, flow.t, peer).id(out.id));
                    assert_eq!(flow.gateway.translate(&down), forwarded(&down, seen, client(4000)));
                } else {
                    assert_eq!(flow.gateway.refuse(&up, "no_session"), None);
                    assert_eq!(flow.gateway.refuse(&down, "no_session"), None);
                }
            }
            // Either way the state is CLOSED, and without a mapping nothing passes.
            assert_eq!(flow.gateway.sessions(), [1, 0, 0]);
            let nobody = tcp(peer, at("198.51.100.1", 9), ACK, b"x");
            assert_eq!(flow.gateway.refuse(&nobody, "no_bib"), None);
            let up = tcp(client(4001), seen, ACK, b"x");
            assert_eq!(flow.gateway.refuse(&up, "no_session"), None);
        });
    }
}

#[test]
fn f44_what_passes_without_a_session_obeys_filtering() {
    let mut settings = settings();
    settings.filtering.stray_tcp = StrayTcp::Forward;
    settings.filtering.tcp = Filter::AddressDependent;
    each(&settings, |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        let stranger = tcp(at("203.0.113.50", 80), flow.t, ACK, b"x");
        assert_eq!(flow.gateway.refuse(&stranger, "no_session"), None);
        flow.gateway.translate(&tcp(server(81), flow.t, ACK, b"x"));
    });
}

#[test]
fn f30_v6_init_timeout() {
    each(&settings(), |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        flow.gateway.advance(240 * SECOND - TICK);
        assert_eq!(flow.state(), "V6_INIT");
        flow.gateway.advance(TICK);
        assert!(flow.gateway.is_empty());
    });
}

#[test]
fn f30_timeouts_of_the_other_states() {
    let lives = [("V4_FIN_RCV", 7200), ("V6_FIN_RCV", 7200), ("V4_FIN_RCV+V6_FIN_RCV", 240), ("TRANS", 240)];
    for (state, seconds) in lives {
        each(&settings(), |gateway| {
            let mut flow = Flow::bring(gateway, state);
            flow.gateway.advance(Duration::from_secs(seconds) - TICK);
            assert_eq!(flow.state(), state);
            // No probe: the RFC wants one for ESTABLISHED only.
            flow.gateway.advance(TICK);
            assert!(flow.gateway.is_empty(), "{state}");
        });
    }
}

#[test]
fn f30_f41_established_timeout_probes_the_client() {
    each(&settings(), |gateway| {
        let mut flow = Flow::bring(gateway, "ESTABLISHED");
        flow.gateway.advance(7200 * SECOND - TICK);
        let told = flow.gateway.advance_telling(TICK);
        assert_eq!((told.len(), flow.state()), (1, "TRANS".to_owned()));
        let probe = &told[0];
        assert_eq!((probe.source(), probe.destination()), (server6(&flow.gateway, 80), client(4000)));
        let L4::Tcp { flags, seq, ack, options, data, .. } = &probe.l4 else { panic!("{probe:?}") };
        assert_eq!((*flags, *seq, *ack, options.len(), data.len()), (ACK, 0, 0, 0, 0));
        // RFC 6146: a living end answers with the number it expects; that brings the session back.
        flow.gateway.advance(100 * SECOND);
        flow.segment(V6, ACK);
        assert_eq!(flow.state(), "ESTABLISHED");
        // Silence ends it 240 s after the next probe, which is the only one.
        assert_eq!(flow.gateway.advance_telling(7200 * SECOND).len(), 1);
        flow.gateway.advance(240 * SECOND - TICK);
        assert_eq!(flow.state(), "TRANS");
        flow.gateway.advance(TICK);
        assert!(flow.gateway.is_empty());
    });
}

#[test]
fn f41_a_host_that_knows_nothing_of_the_connection_does_not_bring_it_back() {
    each(&settings(), |gateway| {
        let mut flow = Flow::bring(gateway, "ESTABLISHED");
        assert_eq!(flow.gateway.advance_telling(7200 * SECOND).len(), 1);
        // RFC 9293 §3.10.7.1: the answer to an ACK out of nowhere is a RST with its acknowledgement number, 0.
        let mut reset = tcp(client(4000), server6(&flow.gateway, 80), RST, b"");
        if let L4::Tcp { seq, .. } = &mut reset.l4 {
            *seq = 0;
        }
        flow.gateway.translate(&reset);
        assert_eq!(flow.state(), "TRANS");
        flow.gateway.advance(240 * SECOND);
        assert!(flow.gateway.is_empty());
    });
}

#[test]
fn g22_data_after_a_half_close_and_data_in_a_syn() {
    each(&settings(), |mut gateway| {
        // RFC 7413: the SYN carries data, and its answer takes none, some or all of it.
        for (port, taken) in [(4000, 0), (4001, 3), (4002, 8)] {
            let syn = tcp(client(port), server6(&gateway, 80), SYN, b"question");
            let t = gateway.translate(&syn).source();
            let mut answer = tcp(server(80), t, SYN | ACK, b"");
            if let L4::Tcp { ack, .. } = &mut answer.l4 {
                *ack = ISN + 1 + taken;
            }
            gateway.translate(&answer);
            let wanted = RowFilter { port: Some(port), ..RowFilter::default() };
            assert_eq!(gateway.session_rows(&wanted)[0].state, "ESTABLISHED", "{taken}");
        }
    });
    each(&settings(), |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        flow.segment(V4, SYN | ACK);
        flow.segment(V6, FIN | ACK);
        for _ in 0..3 {
            flow.gateway.advance(7000 * SECOND);
            flow.segment(V4, ACK);
        }
    });
}

#[test]
fn g12_a_rst_in_answer_to_a_scan_keeps_no_mapping() {
    each(&settings(), |gateway| {
        let mut flow = Flow::bring(gateway, "V6_INIT");
        for i in 0..24 {
            flow.gateway.advance_telling(10 * SECOND);
            let peer = at("203.0.113.50", 7000 + i);
            flow.gateway.send(&tcp(peer, flow.t, SYN, b""));
            let seen = seen6(&flow.gateway, peer);
            flow.gateway.send(&tcp(client(4000), seen, RST | ACK, b""));
        }
        // Each SYN has a session of its own for 240 s, as F-30 wants; the client's own one has ended on time.
        assert_eq!(flow.state(), "CLOSED");
        flow.gateway.advance_telling(240 * SECOND);
        assert!(flow.gateway.is_empty());
    });
}
