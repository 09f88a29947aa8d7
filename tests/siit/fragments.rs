//! Fragments are translated one by one, in any order, and nothing waits (requirement group E, stateless rows).

use crate::packet::{ICMP, ICMPV6, Packet, TCP, UDP, echo, join, raw, tcp, udp};
use crate::translator::{HOST4, HOST6, NODE4, NODE6, Translator, assert_ends};

/// Pieces of `size` bytes, last one first.
fn pieces(whole: &Packet, size: usize, id: u32) -> Vec<Packet> {
    let starts = (0..whole.payload.len()).step_by(size);
    starts.map(|from| whole.piece(from, from + size, id)).rev().collect()
}

#[test]
fn c14_e01_e07_ipv4_fragments_get_a_fragment_header() {
    let mut t = Translator::default();
    for whole in
        [udp(HOST4, NODE4, &[5; 2500]), tcp(HOST4, NODE4, &[6; 2500]), raw(HOST4, NODE4, 132, &[7; 2500])]
    {
        let out: Vec<Packet> = pieces(&whole, 1000, 0xbeef).iter().map(|p| t.translate(p)).collect();
        for (piece, before) in out.iter().zip(pieces(&whole, 1000, 0xbeef)) {
            assert_ends(piece, HOST6, NODE6);
            assert_eq!((piece.id, piece.fragment), (0xbeef, before.fragment));
            assert_eq!((piece.ttl, piece.protocol), (63, before.protocol));
        }
        let joined = join(&out);
        assert!(whole.protocol == 132 || joined.sum_is_right());
        assert_eq!(joined.payload.len(), whole.payload.len());
    }
}

#[test]
fn e08_ipv6_fragments_become_ipv4_fragments() {
    let mut t = Translator::default();
    for whole in
        [udp(NODE6, HOST6, &[5; 2500]), tcp(NODE6, HOST6, &[6; 2500]), raw(NODE6, HOST6, 50, &[7; 2500])]
    {
        let out: Vec<Packet> = pieces(&whole, 1000, 0xdead_beef).iter().map(|p| t.translate(p)).collect();
        for (piece, before) in out.iter().zip(pieces(&whole, 1000, 0xdead_beef)) {
            assert_ends(piece, NODE4, HOST4);
            assert_eq!((piece.id, piece.fragment, piece.df), (0xbeef, before.fragment, false));
            assert_eq!(piece.payload.len(), before.payload.len());
        }
        let joined = join(&out);
        assert!(whole.protocol == 50 || joined.sum_is_right());
    }
}

#[test]
fn e09_headers_in_front_of_the_fragment_header_are_skipped() {
    let mut t = Translator::default();
    let piece = udp(NODE6, HOST6, &[1; 100])
        .piece(0, 64, 9)
        .with(|p| p.extensions = vec![(0, vec![0, 1, 4, 0, 0, 0, 0])]);
    let out = t.translate(&piece);
    assert_eq!((out.payload.len(), out.fragment), (64, Some((0, true))));
}

#[test]
fn e10_an_extension_header_behind_the_fragment_header_is_refused() {
    let mut t = Translator::default();
    for number in [0, 43, 44, 51, 60, 135, 139, 140] {
        for (offset, more) in [(0, true), (64, true), (64, false), (0, false)] {
            let mut piece = raw(NODE6, HOST6, number, &[0; 64]);
            piece.fragment = Some((offset, more));
            assert_eq!(t.refuse(&piece, "extension_chain"), None, "{number} {offset} {more}");
        }
    }
    // ESP is none of them.
    assert_eq!(t.translate(&raw(NODE6, HOST6, 50, &[0; 100]).piece(0, 64, 1)).protocol, 50);
}

#[test]
fn e07_x13_fragmented_icmp_is_not_translated() {
    let mut t = Translator::default();
    for piece in pieces(&echo(NODE6, HOST6, false, &[0; 1992]), 1000, 7) {
        assert_eq!((piece.protocol, t.refuse(&piece, "fragment")), (ICMPV6, None));
    }
    for piece in pieces(&echo(HOST4, NODE4, false, &[0; 1992]), 1000, 7) {
        assert_eq!((piece.protocol, t.refuse(&piece, "fragment")), (ICMP, None));
    }
}

#[test]
fn c16_the_first_piece_of_udp_without_checksum_is_dropped_with_an_event() {
    let mut t = Translator::default();
    let whole = udp(HOST4, NODE4, &[1; 100]).with(|p| p.payload[6..8].fill(0));
    t.refuse(&whole.piece(0, 64, 3), "udp_no_checksum");
    // The same when whole datagrams would get a sum: a piece does not know the others.
    let mut t = Translator::with(|s| s.udp_zero_checksum = sampan::siit::settings::ZeroChecksum::Compute);
    t.refuse(&whole.piece(0, 64, 3), "udp_no_checksum");
    let over6 = udp(NODE6, HOST6, &[1; 100]).with(|p| p.payload[6..8].fill(0));
    assert_eq!(t.refuse(&over6.piece(0, 64, 3), "udp_zero_checksum"), None);
}

#[test]
fn e14_atomic_fragments_pass_alone_with_their_identification() {
    let mut t = Translator::default();
    let atomic = udp(NODE6, HOST6, &[1; 1400]).with(|p| (p.fragment, p.id) = (Some((0, false)), 0x7777_1234));
    let out = t.translate(&atomic);
    assert_eq!((out.id, out.df, out.fragment), (0x1234, false, None));
    assert!(out.sum_is_right());
    assert!(
        t.translate(&echo(NODE6, HOST6, false, &[1; 9]).with(|p| p.fragment = Some((0, false))))
            .sum_is_right()
    );
}

#[test]
fn e15_impossible_pieces_are_refused() {
    let mut t = Translator::default();
    for (src, dst) in [(NODE6, HOST6), (HOST4, NODE4)] {
        let whole = udp(src, dst, &[1; 200]);
        let odd = whole.piece(64, 64 + 61, 1).with(|p| p.fragment = Some((64, true)));
        assert_eq!(t.refuse(&odd, "bad_length"), None);
        let beyond = whole.piece(0, 64, 1).with(|p| p.fragment = Some((65_480, false)));
        assert_eq!(t.refuse(&beyond, "bad_length"), None);
        let last = whole.piece(0, 32, 1).with(|p| p.fragment = Some((65_480, false)));
        assert_eq!(t.translate(&last).fragment, Some((65_480, false)));
        let empty = whole.piece(0, 0, 1);
        assert_eq!(t.refuse(&empty, "bad_length"), None);
    }
}

#[test]
fn e04_e16_tiny_first_pieces_and_pieces_that_reach_into_the_header_are_refused() {
    let mut t = Translator::default();
    for (src, dst) in [(NODE6, HOST6), (HOST4, NODE4)] {
        let whole = tcp(src, dst, &[1; 200]);
        for (from, to) in [(0, 8), (0, 16), (8, 64), (16, 64)] {
            assert_eq!(t.refuse(&whole.piece(from, to, 1), "fragment_tiny"), None, "{from}");
        }
        assert_eq!(t.translate(&whole.piece(0, 24, 1)).protocol, TCP);
        assert_eq!(t.translate(&whole.piece(24, 64, 1)).protocol, TCP);
        assert_eq!(t.translate(&udp(src, dst, &[1; 200]).piece(0, 8, 1)).protocol, UDP);
    }
}

#[test]
fn e19_e20_a_piece_with_df_that_does_not_fit_is_told() {
    let mut t = Translator::default();
    let whole = udp(HOST4, NODE4, &[1; 3000]).with(|p| p.df = true);
    let told = t.refuse(&whole.piece(0, 1480, 5), "packet_too_big").unwrap();
    // 20 bytes for the header, 8 for the Fragment Header.
    assert_eq!(told.icmp(), (3, 4, 1472));
    // About a later piece nothing is said (RFC 1812 §4.3.2.7).
    assert_eq!(t.refuse(&whole.piece(1480, 2960, 5), "packet_too_big"), None);
    assert_eq!(t.translate(&whole.piece(0, 1448, 5)).payload.len(), 1448);
}

#[test]
fn e22_pieces_that_are_cut_again_keep_their_place() {
    let mut t = Translator::default();
    let whole = udp(HOST4, NODE4, &(0..4000).map(|i| i as u8).collect::<Vec<_>>());
    let mut out = Vec::new();
    for piece in pieces(&whole, 1480, 0x2222) {
        let small = t.send(&piece);
        assert!(small.iter().all(|p| p.payload.len() + 48 <= 1280 && p.id == 0x2222));
        assert!(small.is_sorted_by_key(|p| p.fragment.unwrap().0), "first piece first");
        out.extend(small);
    }
    assert_eq!(out.len(), 5);
    assert!(join(&out).sum_is_right());
    // The other way.
    let mut t = Translator::with(|s| s.mtu.v4 = 576);
    let whole = udp(NODE6, HOST6, &(0..4000).map(|i| i as u8).collect::<Vec<_>>());
    let out: Vec<Packet> = pieces(&whole, 1448, 0x3333).iter().flat_map(|p| t.send(p)).collect();
    assert!(out.iter().all(|p| p.payload.len() + 20 <= 576));
    assert!(join(&out).sum_is_right());
}

#[test]
fn echo_larger_than_the_mtu_is_cut_by_us_alone() {
    // A whole echo without DF may be cut: its checksum was made for the whole.
    let mut t = Translator::default();
    let pieces = t.send(&echo(HOST4, NODE4, false, &[4; 3000]));
    assert!(pieces.len() == 3 && join(&pieces).sum_is_right());
}
