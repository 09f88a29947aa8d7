//! The campaign `rst-box`: the same as `rst` with the whole box and real TCP at both ends, in network namespaces.
//!
//! A router of the outside network sends forged RSTs with the server's address over all ports of the pool address that the
//! client's connections have, then forged ICMP errors, half of which quote a live tuple. Half of the connections talk
//! meanwhile, the others are idle until the TRANS timer is over. Needs root and `/dev/net/tun`, and some six minutes at
//! full size, for the timer is real. All connections ride the fast path, unless that is switched off.
//!
//! Environment: `SAMPAN_PACKETS` how many of either kind (1000000), `SAMPAN_SEED` from where (1), `SAMPAN_FASTPATH` its mode
//! (`require`; `off`), `SAMPAN_REPORT` a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/forge.rs"]
mod forge;
#[path = "support/packet.rs"]
#[allow(dead_code, reason = "few kinds of packets are forged")]
mod packet;
#[path = "netns/support.rs"]
#[allow(dead_code, reason = "few of the tools are needed")]
mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sampan::lab::Translator;
use sampan::lab::plan::SERVER;
use serde_json::Value;

use campaign::number;
use forge::{Forger, router};
use packet::{ACK, L4, Packet, RST, error, tcp};
use support::TestLab;

/// Connections that talk, and as many that do not.
const FLOWS: usize = 200;
/// Longer than TCP_TRANS.
const IDLE: Duration = Duration::from_secs(245);
const PORT: u16 = 7100;

type Flow = (TcpStream, TcpStream);

fn main() -> ExitCode {
    let wanted = number("SAMPAN_PACKETS", 1_000_000);
    let mut rng = number("SAMPAN_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mode = std::env::var("SAMPAN_FASTPATH").unwrap_or_else(|_| "require".into());
    let lab = TestLab::with(|options| {
        options.translator = Translator::Sampan;
        options.workers = Some(2);
        options.fast_path = Some(format!("mode = \"{mode}\"\n"));
    });
    let start = Instant::now();
    let mut flows = open(&lab);
    let pool: Vec<SocketAddr> = flows.iter().map(|flow| flow.1.peer_addr().unwrap()).collect();
    let riding = riding(&lab);
    let forger = Forger::on(&lab.node("router"));
    let sent_rst = forge(wanted, &mut flows, || forger.send(&rst(&mut rng, &pool)));
    let talking_after_rst = wait(&mut flows, IDLE);
    let idle_after_rst = flows[FLOWS..].iter_mut().filter_map(|flow| talk(flow).ok()).count();
    let sent_errors = forge(wanted, &mut flows, || forger.send(&icmp_error(&mut rng, &pool)));
    let talking = wait(&mut flows, Duration::from_secs(5));
    let idle = flows[FLOWS..].iter_mut().filter_map(|flow| talk(flow).ok()).count();
    let small_mtus = lab.on("client1", &["ip", "-6", "route", "show", "cache"]).matches("mtu 1").count();
    let drops = lab.sampan(&["drops", "--json", "--all"]).unwrap().check().unwrap();
    let counted = |name: &str| -> u64 {
        let rows: Value = serde_json::from_str(&drops).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
        row.and_then(|row| row["count"].as_u64()).expect("a counter of that name")
    };
    let passed = [talking_after_rst, idle_after_rst, talking, idle] == [FLOWS; 4]
        && small_mtus == 0
        && riding == if mode == "off" { 0 } else { 2 * FLOWS };
    let report = [
        format!("\"device\": \"network namespaces, kernel TCP at both ends, fast path: {mode}\""),
        format!("\"flows_riding\": {riding}"),
        format!("\"flows_talking\": {FLOWS}"),
        format!("\"flows_idle\": {FLOWS}"),
        format!("\"forged_rst\": {wanted}"),
        format!("\"forged_rst_per_second\": {:.0}", wanted as f64 / sent_rst.as_secs_f64()),
        format!("\"idle_seconds\": {}", IDLE.as_secs()),
        format!("\"talking_flows_alive_after_rst\": {talking_after_rst}"),
        format!("\"idle_flows_alive_after_rst\": {idle_after_rst}"),
        format!("\"forged_errors\": {wanted}"),
        format!("\"forged_errors_per_second\": {:.0}", wanted as f64 / sent_errors.as_secs_f64()),
        format!("\"talking_flows_alive_after_errors\": {talking}"),
        format!("\"idle_flows_alive_after_errors\": {idle}"),
        format!("\"mtus_learnt_by_the_client\": {small_mtus}"),
        format!("\"no_bib\": {}", counted("no_bib")),
        format!("\"no_session\": {}", counted("no_session")),
        format!("\"not_in_flight\": {}", counted("not_in_flight")),
        format!("\"seconds\": {:.0}", start.elapsed().as_secs_f64()),
    ]
    .join(",\n  ");
    campaign::report(&report);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Xorshift: good enough to guess with.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// All connections of one client, which therefore has one pool address.
fn open(lab: &TestLab) -> Vec<Flow> {
    let server: SocketAddr = (SERVER, PORT).into();
    let listener = lab.node("server").netns().run(|| TcpListener::bind(server)).unwrap().unwrap();
    let to: SocketAddr = (lab.embed(SERVER), PORT).into();
    let client = lab.node("client1");
    (0..2 * FLOWS)
        .map(|_| {
            let near = client.netns().run(|| TcpStream::connect(to)).unwrap().unwrap();
            let (far, _) = listener.accept().unwrap();
            for end in [&near, &far] {
                end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                end.set_nodelay(true).unwrap();
            }
            let mut flow = (near, far);
            talk(&mut flow).expect("works before anything is forged");
            flow
        })
        .collect()
}

/// How many of the connections ride the fast path.
fn riding(lab: &TestLab) -> usize {
    let port = PORT.to_string();
    let said = lab.sampan(&["sessions", "--port", &port, "--json", "--all"]).unwrap().check().unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    said["rows"].as_array().unwrap().iter().filter(|row| row["path"] == "fast").count()
}

/// Data passes both ways.
fn talk((near, far): &mut Flow) -> std::io::Result<()> {
    let mut got = [0; 8];
    near.write_all(b"question")?;
    far.read_exact(&mut got)?;
    far.write_all(b"answered")?;
    near.read_exact(&mut got)
}

/// Sends `count` forged packets while half of the connections talk; gives the time it took.
fn forge(count: u64, flows: &mut [Flow], mut send: impl FnMut()) -> Duration {
    let start = Instant::now();
    for i in 0..count {
        send();
        if i % 2_000 == 0 {
            let talker = (i / 2_000) as usize % FLOWS;
            // Whoever is broken is found at the end.
            let _ = talk(&mut flows[talker]);
        }
    }
    start.elapsed()
}

/// Waits, and lets half of the connections talk now and then; gives how many of them still do.
fn wait(flows: &mut [Flow], time: Duration) -> usize {
    let start = Instant::now();
    loop {
        let alive = flows[..FLOWS].iter_mut().filter_map(|flow| talk(flow).ok()).count();
        if start.elapsed() >= time {
            return alive;
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// The server's segment with a number of our choice.
fn segment(from: SocketAddr, to: SocketAddr, flags: u8, new_seq: u32, new_ack: u32) -> Packet {
    let mut packet = tcp(from, to, flags, b"");
    if let L4::Tcp { seq, ack, .. } = &mut packet.l4 {
        (*seq, *ack) = (new_seq, new_ack);
    }
    packet
}

/// A RST to any port of the pool address.
fn rst(rng: &mut u64, pool: &[SocketAddr]) -> Packet {
    let (number, port) = (next(rng), 1024 + (next(rng) >> 16) as u16 % 64_512);
    let flags = if number >> 63 == 0 { RST } else { RST | ACK };
    let to = SocketAddr::new(pool[0].ip(), port);
    segment((SERVER, PORT).into(), to, flags, number as u32, (number >> 32) as u32)
}

/// An error about a segment to the server: of a live connection with any number, or of any port.
fn icmp_error(rng: &mut u64, pool: &[SocketAddr]) -> Packet {
    let (number, look) = (next(rng), next(rng));
    let from = if look & 1 == 0 {
        pool[(look >> 8) as usize % pool.len()]
    } else {
        SocketAddr::new(pool[0].ip(), (look >> 16) as u16)
    };
    let quoted = segment(from, (SERVER, PORT).into(), ACK, number as u32, (number >> 32) as u32);
    let (kind, code) = [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 10), (11, 0)][(look >> 40) as usize % 7];
    let mtu = if (kind, code) == (3, 4) { (look >> 48) as u32 % 1280 } else { 0 };
    let sender: IpAddr = router(70 + (look >> 56) as u8 % 100);
    error(sender, from.ip(), kind, code, mtu, &quoted.bytes())
}
