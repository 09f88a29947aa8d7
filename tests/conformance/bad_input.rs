//! Whatever comes in: a named counter, no panic, no state.

use crate::support::packet::SYN;
use crate::support::{Extension, Gateway, Packet, echo_request, ip, other, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, open_udp, server, server6};
use sampan::verdict::DropReason;
use sampan::wire::packet::Offload;

fn refused(gateway: &mut Gateway, bytes: Vec<u8>, reason: &str) {
    gateway.refuse_raw(bytes, Offload::default(), reason);
}

#[test]
fn c22_nothing_and_garbage() {
    for mut gateway in Gateway::each(&settings()) {
        refused(&mut gateway, Vec::new(), "truncated");
        for (first, reason) in [
            (0x00, "bad_version"),
            (0x10, "bad_version"),
            (0x50, "bad_version"),
            (0x70, "bad_version"),
            (0xf0, "bad_version"),
            (0x40, "truncated"),
            (0x60, "truncated"),
        ] {
            refused(&mut gateway, vec![first], reason);
        }
        refused(&mut gateway, vec![0x40; 40], "bad_length");
        refused(&mut gateway, vec![0xff; 2000], "bad_version");
        assert!(gateway.is_empty());
    }
}

#[test]
fn every_packet_cut_anywhere_is_refused() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let whole: [Packet; 7] = [
            udp(client(4000), server6(&gateway, 53), b"data"),
            tcp(client(4000), server6(&gateway, 80), SYN, b"data"),
            echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 1, b"data"),
            udp(client(4000), server6(&gateway, 53), b"data")
                .extension(Extension::hop_by_hop())
                .extension(Extension::routing(0))
                .extension(Extension::fragment(0, false, 7)),
            udp(server(53), t, b"data").options(&[7, 7, 4, 0, 0, 0, 0, 0]),
            tcp(server(80), t, SYN, b"data"),
            echo_request(ip(SERVER), t.ip(), 1, b"data"),
        ];
        for packet in whole {
            let bytes = packet.bytes();
            for len in 0..bytes.len() {
                refused(&mut gateway, bytes[..len].to_vec(), "truncated");
            }
        }
        assert_eq!(gateway.sessions(), [0, 1, 0]);
    }
}

#[test]
fn padding_behind_a_packet_is_cut_off() {
    for mut gateway in Gateway::each(&settings()) {
        let mut bytes = udp(client(4000), server6(&gateway, 53), b"data").bytes();
        bytes.extend([0xaa; 20]);
        let out = gateway.send_raw(bytes, Offload::default());
        assert_eq!(Packet::parse(&out[0].bytes).unwrap().data(), b"data");
    }
}

#[test]
fn lengths_that_lie() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        // IPv4: total length inside its own header; header longer than the packet.
        let mut bytes = udp(server(53), t, b"data").bytes();
        bytes[3] = 10;
        refused(&mut gateway, bytes, "bad_length");
        let mut bytes = udp(server(53), t, b"data").bytes();
        bytes[0] = 0x4f;
        refused(&mut gateway, bytes, "bad_length");
        // UDP: shorter than its header, longer than the packet.
        for len in [0, 7, 13, 65535_u16] {
            let mut bytes = udp(client(4000), server6(&gateway, 53), b"data").bytes();
            bytes[44..46].copy_from_slice(&len.to_be_bytes());
            refused(&mut gateway, bytes, "bad_length");
        }
        // TCP: data offset inside the fixed header, or beyond the packet.
        for offset in [0, 4, 7, 15_u8] {
            let mut bytes = tcp(client(4000), server6(&gateway, 80), SYN, b"data").bytes();
            bytes[52] = offset << 4;
            refused(&mut gateway, bytes, "bad_length");
        }
        // Payloads shorter than a transport header.
        for (protocol, len) in [(6, 19), (17, 7), (58, 7)] {
            let packet = other(ip(CLIENT), gateway.y(ip(SERVER)), protocol, &vec![0; len]);
            refused(&mut gateway, packet.bytes(), "truncated");
        }
        for (protocol, len) in [(6, 19), (17, 7), (1, 7)] {
            refused(&mut gateway, other(ip(SERVER), t.ip(), protocol, &vec![0; len]).bytes(), "truncated");
        }
        // IPv4 options that run out of their space.
        for options in [&[7, 9, 4, 0][..], &[7, 0, 0, 0], &[7, 1, 0, 0], &[1, 1, 1, 131], &[131, 2, 1, 7]] {
            let bytes = udp(server(53), t, b"data").options(options).bytes();
            refused(&mut gateway, bytes, "bad_length");
        }
        assert_eq!(gateway.sessions(), [0, 1, 0]);
    }
}

#[test]
fn extension_chains_out_of_bounds() {
    for mut gateway in Gateway::each(&settings()) {
        let packet = udp(client(4000), server6(&gateway, 53), b"data");
        let mut endless = packet.clone();
        for _ in 0..9 {
            endless = endless.extension(Extension::destination_options());
        }
        refused(&mut gateway, endless.bytes(), "extension_chain");
        let hop_by_hop_later =
            packet.clone().extension(Extension::destination_options()).extension(Extension::hop_by_hop());
        refused(&mut gateway, hop_by_hop_later.bytes(), "extension_chain");
        let mut long = Extension::hop_by_hop();
        long.bytes[1] = 255;
        refused(&mut gateway, packet.clone().extension(long).bytes(), "extension_chain");
        let two_fragment_headers = packet
            .clone()
            .extension(Extension::fragment(0, false, 1))
            .extension(Extension::fragment(0, false, 1));
        refused(&mut gateway, two_fragment_headers.bytes(), "extension_chain");
        let header_only = other(ip(CLIENT), gateway.y(ip(SERVER)), 0, &[17, 0, 0]);
        refused(&mut gateway, header_only.bytes(), "extension_chain");
        // No next header: neither TCP, UDP nor ICMP.
        let nothing = other(ip(CLIENT), gateway.y(ip(SERVER)), 59, b"");
        refused(&mut gateway, nothing.bytes(), "unknown_protocol");
        assert!(gateway.is_empty());
    }
}

#[test]
fn every_protocol_number() {
    for mut gateway in Gateway::each(&settings()) {
        for protocol in 0..=255 {
            if !matches!(protocol, 0 | 6 | 17 | 43 | 44 | 58 | 60) {
                let packet = other(ip(CLIENT), gateway.y(ip(SERVER)), protocol, &[0; 40]);
                refused(&mut gateway, packet.bytes(), "unknown_protocol");
            }
            if !matches!(protocol, 1 | 6 | 17) {
                let packet = other(ip(SERVER), ip("198.51.100.1"), protocol, &[0; 40]);
                refused(&mut gateway, packet.bytes(), "unknown_protocol");
            }
        }
        assert!(gateway.is_empty());
    }
}

#[test]
fn a_full_ring_is_counted_and_everything_else_arrives() {
    let mut gateway = Gateway::new(settings(), 2);
    let from = gateway.client_of(1, 0).to_string();
    // All of it comes to the wrong worker, a batch at a time, and only then does the owner get its turn.
    for i in 0..1000 {
        let packet = udp(crate::support::at(&from, 4000), server6(&gateway, 53), &[i as u8]);
        gateway.feed(0, packet.bytes(), Offload::default());
    }
    let out = gateway.run();
    let totals = gateway.totals();
    assert_eq!(out.len() as u64 + gateway.drops("ring_full"), 1000);
    assert_eq!((totals.passed, totals.taken), (out.len() as u64, out.len() as u64));
    assert!(out.iter().all(|o| o.worker == 1));
}

#[test]
fn reasons_have_names_and_meanings() {
    for reason in DropReason::ALL {
        assert!(
            !reason.name().is_empty()
                && reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        );
        assert!(reason.meaning().len() > 10, "{reason:?}");
    }
}
