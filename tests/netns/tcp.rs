//! RFC 6146 §3.5.2.2 with real TCP at both ends: connections from outside, SYNs that nobody waits for, a restart, and
//! forged segments.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::{Plan, SERVER};
use sampan::lab::{Host, Translator};
use serde_json::Value;

use crate::forge::{Forger, router};
use crate::packet::{ACK, FIN, L4, RST, SYN, error, tcp};
use crate::support::TestLab;

/// The pool address of static mappings here.
const POOL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

fn lab(change: impl FnOnce(&mut sampan::lab::Options)) -> TestLab {
    TestLab::with(|options| {
        // What is asked for here is Sampan's own.
        options.translator = Translator::Sampan;
        change(options);
    })
}

fn listen(host: &Host, addr: SocketAddr) -> TcpListener {
    host.netns().run(|| TcpListener::bind(addr)).unwrap().unwrap()
}

fn connect(host: &Host, addr: SocketAddr) -> std::io::Result<TcpStream> {
    host.netns().run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(20))).unwrap()
}

/// Both ends of a connection.
fn pair(from: &Host, listener: &TcpListener, addr: SocketAddr) -> (TcpStream, TcpStream) {
    let near = connect(from, addr).unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        end.set_nodelay(true).unwrap();
    }
    (near, far)
}

/// Data passes both ways.
fn talk((near, far): &mut (TcpStream, TcpStream)) -> std::io::Result<()> {
    let mut got = [0; 8];
    near.write_all(b"question")?;
    far.read_exact(&mut got)?;
    assert_eq!(&got, b"question");
    far.write_all(b"answered")?;
    near.read_exact(&mut got)?;
    assert_eq!(&got, b"answered");
    Ok(())
}

/// States of the sessions with one port of the peer.
fn states(lab: &TestLab, port: u16) -> Vec<String> {
    let out = lab.sampan(&["sessions", "--json", "--all"]).unwrap().check().unwrap();
    let listing: Value = serde_json::from_str(&out).unwrap();
    let rows = listing["rows"].as_array().unwrap().iter().filter(|row| row["dst4_port"] == port);
    rows.map(|row| row["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn f05_f44_a_server_behind_the_gateway_is_reached_and_keeps_its_connections_over_a_restart() {
    let host = Plan::client6(1);
    let mut lab = lab(|options| {
        options.workers = Some(2);
        options.config_extra = format!(
            "\n[[nat64.static]]\nprotocol = \"tcp\"\ninternal-address = \"{host}\"\ninternal-port = 8080\n\
             external-address = \"{POOL}\"\nexternal-port = 80\n"
        );
    });
    let listener = listen(&lab.node("client1"), (host, 8080).into());
    let outside = lab.node("server");
    let mut ends = pair(&outside, &listener, (POOL, 80).into());
    talk(&mut ends).unwrap();
    let seen = ends.1.peer_addr().unwrap();
    assert_eq!(seen.ip(), IpAddr::from(lab.embed(SERVER)));

    // Another client reaches it by the same address (RFC 6146 §3.8).
    let mut inside = pair(&lab.node("client2"), &listener, (lab.embed(POOL), 80).into());
    talk(&mut inside).unwrap();

    let out = lab.sampan(&["stop"]).unwrap();
    out.check().unwrap();
    assert!(lab.wait_service(GATEWAY, Duration::from_secs(10)).unwrap());
    lab.restart_gateway().unwrap();
    talk(&mut ends).expect("the connection outlives the gateway");
    let mut again = pair(&outside, &listener, (POOL, 80).into());
    talk(&mut again).unwrap();
}

#[test]
fn f33_f34_a_connection_that_nobody_waits_for_is_refused_after_six_seconds() {
    let lab = lab(|_| {});
    let start = Instant::now();
    let refused = connect(&lab.node("server"), (POOL, 2000).into()).unwrap_err();
    let took = start.elapsed();
    // ICMP port unreachable ends a connection that is not open yet.
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(9), "{took:?}");
}

#[test]
fn f45_o16_forged_segments_and_errors_end_no_real_connection_and_a_real_end_does() {
    let lab = lab(|options| options.workers = Some(2));
    let server: SocketAddr = (SERVER, 7100).into();
    let listener = listen(&lab.node("server"), server);
    let mut flows: Vec<_> =
        (0..5).map(|_| pair(&lab.node("client1"), &listener, (lab.embed(SERVER), 7100).into())).collect();
    flows.iter_mut().for_each(|flow| talk(flow).unwrap());
    let forger = Forger::on(&lab.node("router"));
    for flow in &flows {
        let t = flow.1.peer_addr().unwrap();
        for i in 1..200_u32 {
            let seq = i.wrapping_mul(0x9e37_79b9);
            for flags in [RST, RST | ACK, FIN | ACK, SYN, SYN | ACK] {
                let mut forged = tcp(server, t, flags, b"");
                if let L4::Tcp { seq: s, .. } = &mut forged.l4 {
                    *s = seq;
                }
                forger.send(&forged);
            }
            let mut quoted = tcp(t, server, ACK, b"");
            if let L4::Tcp { seq: s, .. } = &mut quoted.l4 {
                *s = seq;
            }
            forger.send(&error(router(77), t.ip(), 3, (i % 4) as u8, 68, &quoted.bytes()));
            forger.send(&error(router(77), t.ip(), 3, 4, 68, &quoted.bytes()));
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(states(&lab, 7100), ["ESTABLISHED"; 5]);
    flows.iter_mut().for_each(|flow| talk(flow).unwrap());
    // A true RST: of an end that closes with data it has not read.
    let (near, mut far) = flows.pop().unwrap();
    far.write_all(b"unread").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(near);
    std::thread::sleep(Duration::from_millis(200));
    let mut left = states(&lab, 7100);
    left.sort();
    assert_eq!(left, ["ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "TRANS"]);
    // A true end of either side.
    let (near, far) = flows.pop().unwrap();
    drop(far);
    std::thread::sleep(Duration::from_millis(100));
    drop(near);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(states(&lab, 7100).iter().filter(|s| *s == "V4_FIN_RCV+V6_FIN_RCV").count(), 1);
}
