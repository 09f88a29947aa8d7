//! The campaign `rst`: forged RSTs over all ports of a pool address, and forged ICMP errors, cost no live flow. Through the
//! workers that ship, on memory devices and virtual time; the two ends are played here, so no kernel judges.
//!
//! 200 flows go on talking, 200 are idle from the first forged RST until the TRANS timer is long over. The forger knows
//! the server's address and port, and guesses pool ports and numbers. Of the errors half quote a live tuple with a number
//! that is not on its way. At the end the true RST of each idle flow must be believed: a gateway that believes none
//! would pass otherwise.
//!
//! On every push it runs at a small size; `tests/campaign rst` runs it at full size. Environment: `SAMPAN_PACKETS` how
//! many of either kind (20000), `SAMPAN_SEED` from where (1), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sampan::nat64::settings::RowFilter;
use support::campaign::{self, number};
use support::packet::{ACK, PSH, RST, SYN, numbered};
use support::traffic::Rng;
use support::{Gateway, L4, Packet, at, error, ip, settings, tcp};

/// Flows that talk, and as many that do not.
const FLOWS: u32 = 200;
/// Forged packets between two looks at what came out.
const BATCH: u64 = 500;
const SERVER: &str = "203.0.113.10";

/// One connection of a client to the server's port 443.
struct Flow {
    client: SocketAddr,
    t: SocketAddr,
    /// Next numbers of the client and of the server.
    next: [u32; 2],
    lost: bool,
}

struct Run {
    gateway: Gateway,
    rng: Rng,
    /// Those that talk come first.
    flows: Vec<Flow>,
    forged: u64,
    /// Forged segments that came out on the client's side, which judges them itself.
    passed: u64,
    /// Forged errors that came out, and those among them that could make a client send less than 1280 bytes.
    errors_passed: u64,
    small_mtus: u64,
}

fn main() -> ExitCode {
    let wanted = number("SAMPAN_PACKETS", 20_000);
    let seed = number("SAMPAN_SEED", 1);
    let start = Instant::now();
    let mut run = Run::new(seed);
    run.forge(wanted, Run::rst);
    run.wait();
    let after_rst = run.alive();
    run.forge(wanted, Run::icmp_error);
    let errors = run.forged - wanted;
    run.wait();
    let after_errors = run.alive();
    let believed = run.true_resets();
    let passed = after_rst == 2 * FLOWS
        && after_errors == 2 * FLOWS
        && run.small_mtus == 0
        && believed == FLOWS
        && run.gateway.totals().closes();
    let report = [
        format!("\"seed\": {seed}"),
        "\"device\": \"memory, virtual time\"".to_owned(),
        format!("\"flows\": {}", 2 * FLOWS),
        format!("\"forged_rst\": {wanted}"),
        format!("\"forged_rst_translated\": {}", run.passed),
        format!("\"flows_alive_after_rst\": {after_rst}"),
        format!("\"forged_errors\": {errors}"),
        format!("\"forged_errors_translated\": {}", run.errors_passed),
        format!("\"mtus_below_1280\": {}", run.small_mtus),
        format!("\"flows_alive_after_errors\": {after_errors}"),
        format!("\"true_rst_believed\": {believed}"),
        format!("\"not_in_flight\": {}", run.gateway.drops("not_in_flight")),
        format!("\"seconds\": {:.1}", start.elapsed().as_secs_f64()),
    ]
    .join(",\n  ");
    campaign::report(&report);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Run {
    /// All flows are opened and have exchanged something.
    fn new(seed: u64) -> Self {
        let mut settings = settings();
        // One address, so that the forger finds everybody there.
        settings.pool4.ranges[0].prefix = "198.51.100.1/32".parse().unwrap();
        let mut gateway = Gateway::new(settings, 3);
        let mut rng = Rng(seed);
        let server = at(SERVER, 443);
        let seen = SocketAddr::new(gateway.y(server.ip()), 443);
        let mut flows = Vec::new();
        for i in 0..2 * FLOWS {
            let client = at(format!("2001:db8:1::{:x}", 1 + i / 4), 4000 + i as u16 % 4);
            let (a, b) = (rng.next() as u32, rng.next() as u32);
            let t = gateway.translate(&numbered(tcp(client, seen, SYN, b""), a, 0)).source();
            let mut flow = Flow { client, t, next: [a.wrapping_add(1), b.wrapping_add(1)], lost: false };
            gateway.translate(&numbered(tcp(server, t, SYN | ACK, b""), b, flow.next[0]));
            gateway.translate(&numbered(tcp(client, seen, ACK, b""), flow.next[0], flow.next[1]));
            talk(&mut gateway, &mut flow);
            assert!(!flow.lost, "no flow is lost before anything is forged");
            flows.push(flow);
        }
        Self { gateway, rng, flows, forged: 0, passed: 0, errors_passed: 0, small_mtus: 0 }
    }

    /// Sends `count` forged packets, while half of the flows talk.
    fn forge(&mut self, count: u64, packet: fn(&mut Self) -> Packet) {
        let mut left = count;
        while left > 0 {
            let batch = BATCH.min(left);
            for i in 0..batch {
                let forged = packet(self);
                self.gateway.feed((i % 3) as u16, forged.bytes(), Default::default());
            }
            left -= batch;
            self.forged += batch;
            for out in self.gateway.run() {
                let packet = Packet::parse(&out.bytes).unwrap();
                match packet.l4 {
                    L4::Tcp { .. } => self.passed += 1,
                    L4::Icmp { .. } => {
                        self.errors_passed += 1;
                        let (kind, _, mtu, _) = packet.icmp();
                        self.small_mtus += u64::from(kind == 2 && mtu < 1280);
                    }
                    L4::Udp { .. } | L4::Echo { .. } | L4::Other { .. } => panic!("{packet:?} came out"),
                }
            }
            // Everybody who talks does so several times a minute.
            let talker = self.rng.below(FLOWS as usize);
            talk(&mut self.gateway, &mut self.flows[talker]);
            self.gateway.advance_telling(Duration::from_millis(20));
        }
    }

    /// A RST to any port, with any number.
    fn rst(&mut self) -> Packet {
        let port = 1024 + (self.forged as u16 ^ self.rng.next() as u16) % 64_512;
        let (seq, ack) = (self.rng.next() as u32, self.rng.next() as u32);
        let flags = if self.rng.chance(50) { RST } else { RST | ACK };
        numbered(tcp(at(SERVER, 443), at("198.51.100.1", port), flags, b""), seq, ack)
    }

    /// An error about a segment to the server: of a live flow with a number that is not on its way, or of anything.
    fn icmp_error(&mut self) -> Packet {
        let live = self.rng.chance(50);
        let flow = &self.flows[self.rng.below(self.flows.len())];
        let (t, next) = (flow.t, flow.next[0]);
        let (from, seq) = if live {
            // Nothing is on its way; one number before is a keep-alive's.
            (t, next.wrapping_add(1 + self.rng.next() as u32 % (u32::MAX - 2)))
        } else {
            (at("198.51.100.1", self.rng.next() as u16), self.rng.next() as u32)
        };
        let quoted = numbered(tcp(from, at(SERVER, 443), ACK, b""), seq, self.rng.next() as u32);
        let (kind, code) = [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 10), (11, 0)][self.rng.below(7)];
        let mtu = if (kind, code) == (3, 4) { self.rng.below(1280) as u32 } else { 0 };
        let router = ip(&format!("203.0.113.{}", 20 + self.rng.below(200)));
        error(router, from.ip(), kind, code, mtu, &quoted.bytes())
    }

    /// The idle flows stay idle until whatever the forger has done to them would have ended them.
    fn wait(&mut self) {
        for _ in 0..10 {
            self.gateway.advance_telling(Duration::from_secs(30));
            for flow in &mut self.flows[..FLOWS as usize] {
                talk(&mut self.gateway, flow);
            }
        }
    }

    /// Flows that have never lost a packet and still pass both ways, idle ones too, which talk once now.
    fn alive(&mut self) -> u32 {
        for flow in &mut self.flows {
            talk(&mut self.gateway, flow);
        }
        self.flows.iter().filter(|flow| !flow.lost).count() as u32
    }

    /// How many idle flows the server itself can still reset.
    fn true_resets(&mut self) -> u32 {
        let mut believed = 0;
        for flow in &self.flows[FLOWS as usize..] {
            self.gateway.send(&numbered(tcp(at(SERVER, 443), flow.t, RST, b""), flow.next[1], 0));
            let wanted = RowFilter { port: Some(flow.t.port()), ..RowFilter::default() };
            let rows = self.gateway.session_rows(&wanted);
            believed += u32::from(rows.iter().any(|row| row.state == "TRANS"));
        }
        believed
    }
}

/// A question and its answer, both acknowledged. A flow that loses one of the four packets is lost for good.
fn talk(gateway: &mut Gateway, flow: &mut Flow) {
    const DATA: [&[u8]; 2] = [b"question", b"and its answer"];
    let server = at(SERVER, 443);
    let seen = SocketAddr::new(gateway.y(server.ip()), 443);
    for (side, flags, data) in
        [(0, ACK | PSH, DATA[0]), (1, ACK | PSH, DATA[1]), (0, ACK, b""), (1, ACK, b"")]
    {
        let (seq, ack) = (flow.next[side], flow.next[1 - side]);
        let (packet, to) = if side == 0 {
            (tcp(flow.client, seen, flags, data), server)
        } else {
            (tcp(server, flow.t, flags, data), flow.client)
        };
        let out = gateway.send(&numbered(packet, seq, ack));
        flow.lost |= out.len() != 1 || out[0].destination() != to;
        flow.next[side] = seq.wrapping_add(data.len() as u32);
    }
}
