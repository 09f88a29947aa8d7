//! Stateless translation of any packet equals etherparse's writing of what RFC 7915 says it becomes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use sampan::wire::icmp::{quote4, quote6};
use sampan::wire::packet::{Gso, GsoKind, Offload, PacketBuf, View};
use sampan::xlat::icmp::{Body, Head, Outer, error_to_v4, error_to_v6};
use sampan::xlat::{Delta, FlowPair, Hop, Rewrite, frag, v4_to_v6, v6_to_v4};

use crate::support::segment::{make_partial, parsed, reassemble6, segments};
use crate::support::{Extension, L4, Packet};

/// A flow and everything else that decides about a translation.
#[derive(Clone, Debug)]
struct Case {
    flow: FlowPair,
    l4: L4,
    tos: u8,
    hops: u8,
    id: u16,
    df: bool,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    flow_label: u32,
}

fn l4(longest: usize) -> impl Strategy<Value = L4> {
    let data = || vec(any::<u8>(), 0..longest);
    let tcp = (any::<(u8, u32, u32, u16)>(), vec(any::<u8>(), 0..=10), data()).prop_map(
        |((flags, seq, ack, window), words, data)| {
            // No-operation options, so that etherparse takes any number of them.
            let options = vec![1; words.len() * 4];
            L4::Tcp { src: 0, dst: 0, flags, seq, ack, window, options, data }
        },
    );
    let udp = data().prop_map(|data| L4::Udp { src: 0, dst: 0, data });
    let echo = (any::<bool>(), any::<u16>(), data()).prop_map(|(reply, seq, data)| L4::Echo {
        reply,
        id: 0,
        seq,
        data,
    });
    prop_oneof![tcp, udp, echo]
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let rest = prop_oneof![Just(Extension::destination_options()), Just(Extension::routing(0)),];
    (any::<bool>(), vec(rest, 0..3), proptest::option::of(any::<u32>())).prop_map(
        |(hop_by_hop, rest, atomic)| {
            let first = hop_by_hop.then(Extension::hop_by_hop);
            let last = atomic.map(|id| Extension::fragment(0, false, id));
            first.into_iter().chain(rest).chain(last).collect()
        },
    )
}

fn case(longest: usize) -> impl Strategy<Value = Case> {
    let flow = (any::<[u128; 2]>(), any::<[u32; 2]>(), any::<[u16; 3]>()).prop_map(
        |([src6, dst6], [src4, dst4], [port6, port4, peer_port])| FlowPair {
            src6: Ipv6Addr::from_bits(src6),
            dst6: Ipv6Addr::from_bits(dst6),
            src4: Ipv4Addr::from_bits(src4),
            dst4: Ipv4Addr::from_bits(dst4),
            port6,
            port4,
            peer_port,
        },
    );
    let fields = (any::<u8>(), 2u8.., any::<u16>(), any::<bool>(), 0u32..0x10_0000);
    (flow, l4(longest), fields, 0usize..=10, extensions()).prop_map(
        |(flow, l4, (tos, hops, id, df, flow_label), words, extensions)| Case {
            flow,
            l4,
            tos,
            hops,
            id,
            df,
            options: vec![1; words * 4],
            extensions,
            flow_label,
        },
    )
}

/// The transport between these ports; an echo has `id`.
fn with_ports(l4: &L4, from: u16, to: u16, id: u16) -> L4 {
    let mut l4 = l4.clone();
    match &mut l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst, .. } => (*src, *dst) = (from, to),
        L4::Echo { id: slot, .. } => *slot = id,
        L4::Icmp { .. } | L4::Other { .. } => panic!("not generated"),
    }
    l4
}

impl Case {
    /// From the client, as it is sent.
    fn up6(&self) -> Packet {
        let f = &self.flow;
        let l4 = with_ports(&self.l4, f.port6, f.peer_port, f.port6);
        let mut packet = Packet::new(f.src6.into(), f.dst6.into(), l4).tos(self.tos).hops(self.hops);
        packet.extensions.clone_from(&self.extensions);
        packet.flow_label = self.flow_label;
        packet
    }

    /// The same as RFC 7915 §5.1 has it.
    fn up4(&self, id: u16) -> Packet {
        let f = &self.flow;
        let l4 = with_ports(&self.l4, f.port4, f.peer_port, f.port4);
        let packet = Packet::new(f.src4.into(), f.dst4.into(), l4).tos(self.tos).hops(self.hops - 1).id(id);
        let atomic = self.extensions.iter().find(|e| e.number == 44);
        match atomic {
            Some(fragment) => packet.id(u16::from_be_bytes([fragment.bytes[6], fragment.bytes[7]])),
            None => {
                let df = packet.bytes().len() > 1260;
                packet.df(df)
            }
        }
    }

    /// From the peer, as it is sent.
    fn down4(&self) -> Packet {
        let f = &self.flow;
        let l4 = with_ports(&self.l4, f.peer_port, f.port4, f.port4);
        Packet::new(f.dst4.into(), f.src4.into(), l4)
            .tos(self.tos)
            .hops(self.hops)
            .id(self.id)
            .df(self.df)
            .options(&self.options)
    }

    /// The same as RFC 7915 §4.1 has it.
    fn down6(&self) -> Packet {
        let f = &self.flow;
        let l4 = with_ports(&self.l4, f.peer_port, f.port6, f.port6);
        Packet::new(f.dst6.into(), f.src6.into(), l4).tos(self.tos).hops(self.hops - 1)
    }

    fn is_echo(&self) -> bool {
        matches!(self.l4, L4::Echo { .. })
    }

    fn rewrite4(&self) -> Rewrite<Ipv4Addr> {
        let f = &self.flow;
        Rewrite {
            src: f.src4,
            dst: f.dst4,
            src_port: f.port4,
            dst_port: f.peer_port,
            delta: Delta::v6_to_v4(f),
        }
    }

    fn rewrite6(&self) -> Rewrite<Ipv6Addr> {
        let f = &self.flow;
        let (src_port, dst_port) = if self.is_echo() { (f.port6, 0) } else { (f.peer_port, f.port6) };
        Rewrite { src: f.dst6, dst: f.src6, src_port, dst_port, delta: Delta::v6_to_v4(f).reversed() }
    }
}

const ID: u16 = 0xbeef;

fn to_v4(packet: &mut PacketBuf, rewrite: &Rewrite<Ipv4Addr>) {
    let Ok(View::V6(view)) = packet.parse() else { panic!("an IPv6 packet") };
    let context = v6_to_v4::Context { hop: Hop::Less, mtu4: u16::MAX, id: ID, mss: None, tos: None };
    v6_to_v4::plan(&view, packet, rewrite, &context).unwrap().apply(packet);
}

fn to_v6(packet: &mut PacketBuf, rewrite: &Rewrite<Ipv6Addr>, lowest: u16) -> Option<v4_to_v6::Cut> {
    let Ok(View::V4(view)) = packet.parse() else { panic!("an IPv4 packet") };
    let context = v4_to_v6::Context {
        hop: Hop::Less,
        mtu6: u16::MAX,
        mtu4: u16::MAX,
        lowest_ipv6_mtu: lowest,
        id: 1,
        mss: None,
        traffic_class: None,
    };
    let plan = v4_to_v6::plan(&view, packet, rewrite, &context).unwrap();
    plan.apply(packet);
    plan.cut
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn b12_b16_v6_to_v4_is_what_etherparse_writes(case in case(1500)) {
        let mut packet = PacketBuf::from_bytes(&case.up6().bytes());
        to_v4(&mut packet, &case.rewrite4());
        prop_assert_eq!(packet.bytes(), case.up4(ID).bytes());
    }

    #[test]
    fn c18_v4_to_v6_is_what_etherparse_writes(case in case(1500)) {
        let mut packet = PacketBuf::from_bytes(&case.down4().bytes());
        to_v6(&mut packet, &case.rewrite6(), u16::MAX);
        prop_assert_eq!(packet.bytes(), case.down6().bytes());
    }

    #[test]
    fn there_and_back_again_is_the_same_packet_two_hops_later(case in case(1500)) {
        prop_assume!(case.hops > 2);
        let sent = case.up6();
        let mut packet = PacketBuf::from_bytes(&sent.bytes());
        to_v4(&mut packet, &case.rewrite4());
        // The inverse rewrite: to where it came from, as the client wrote it.
        let f = &case.flow;
        let (src_port, dst_port) = if case.is_echo() { (f.port6, 0) } else { (f.port6, f.peer_port) };
        let back = Rewrite {
            src: f.src6,
            dst: f.dst6,
            src_port,
            dst_port,
            delta: Delta::v6_to_v4(f).reversed(),
        };
        to_v6(&mut packet, &back, u16::MAX);
        let mut expected = sent.clone().hops(case.hops - 2);
        expected.extensions.clear();
        expected.flow_label = 0;
        prop_assert_eq!(packet.bytes(), expected.bytes());
        prop_assert_eq!(packet.offload.gso, None);
    }

    #[test]
    fn b17_a_checksum_that_is_off_by_something_stays_off_by_it(case in case(200), off in 1u16..0xffff) {
        for up in [true, false] {
            let sent = if up { case.up6() } else { case.down4() };
            let mut bytes = sent.bytes();
            let at = bytes.len() - sent.data().len() - match &case.l4 {
                L4::Tcp { options, .. } => 4 + options.len(),
                L4::Echo { .. } => 6,
                L4::Udp { .. } | L4::Icmp { .. } | L4::Other { .. } => 2,
            };
            let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            // In one's complement 0 and 0xffff are the same number, so that "wrong" means another one.
            let wrong = ((u32::from(sum) + u32::from(off)) % 0xffff) as u16;
            prop_assume!(wrong != 0 && wrong != sum % 0xffff);
            bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            let mut packet = PacketBuf::from_bytes(&bytes);
            if up {
                to_v4(&mut packet, &case.rewrite4());
            } else {
                to_v6(&mut packet, &case.rewrite6(), u16::MAX);
            }
            let verdict = Packet::parse(packet.bytes());
            prop_assert!(verdict.as_ref().is_err_and(|e| e.contains("checksum")), "{:?}", verdict);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn segments_of_the_translation_are_translations_of_the_segments(
        mut case in case(20_000), size in 1u16..9000, up: bool,
    ) {
        prop_assume!(!case.is_echo());
        case.extensions.clear();
        case.options.clear();
        let sent = if up { case.up6() } else { case.down4() };
        let mut bytes = sent.bytes();
        let mut offload = Offload::default();
        make_partial(&mut bytes, &mut offload);
        let size = size.max((sent.data().len() / 60) as u16 + 1);
        let kind = if matches!(case.l4, L4::Tcp { .. }) { GsoKind::Tcp } else { GsoKind::Udp };
        offload.gso = Some(Gso { kind, size, ecn: false });
        prop_assume!(!sent.data().is_empty());

        let mut packet = PacketBuf::from_bytes(&bytes);
        packet.offload = offload;
        if up {
            to_v4(&mut packet, &case.rewrite4());
        } else {
            to_v6(&mut packet, &case.rewrite6(), u16::MAX);
        }
        let after = parsed(packet.bytes(), &packet.offload);
        let before = segments(&bytes, &offload);
        prop_assert_eq!(before.len(), after.len());
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            let mut one = PacketBuf::from_bytes(before);
            if up {
                to_v4(&mut one, &case.rewrite4());
            } else {
                to_v6(&mut one, &case.rewrite6(), u16::MAX);
            }
            let mut one = Packet::parse(one.bytes()).unwrap();
            if up {
                // Identifications count up behind us; DF is that of a full segment.
                one.id = ID.wrapping_add(i as u16);
                one.df = after.df;
            }
            prop_assert_eq!(&one, after);
        }
    }

    #[test]
    fn c11_pieces_fit_and_are_the_whole(case in case(9000), lowest in 1280u16..3000) {
        let mut case = case;
        case.df = false;
        let mut packet = PacketBuf::from_bytes(&case.down4().bytes());
        let cut = to_v6(&mut packet, &case.rewrite6(), lowest);
        let whole = case.down6().bytes();
        prop_assert_eq!(cut.is_some(), whole.len() > usize::from(lowest));
        let Some(cut) = cut else {
            prop_assert_eq!(packet.bytes(), whole);
            return Ok(());
        };
        let mut scratch = [PacketBuf::new(), PacketBuf::new()];
        let mut pieces = Vec::new();
        frag::cut(&mut packet, cut, &mut scratch, |piece| pieces.push(piece.bytes().to_vec()));
        prop_assert!(pieces.iter().all(|p| p.len() <= usize::from(lowest)));
        prop_assert_eq!(reassemble6(&pieces), whole);
    }

    /// D-45, D-56: a quote is translated like the packet it quotes, but its hop limit is left alone, and no sum in
    /// it is ever verified.
    #[test]
    fn d45_quotes_are_what_etherparse_writes(case in case(400), cut in 8usize..500) {
        let f = &case.flow;
        // Half of a TCP checksum (bytes 16 and 17) cannot be updated.
        let cut = if cut == 17 { 18 } else { cut };
        let outer6 = Outer { src: f.dst6, dst: f.src6, traffic_class: 0, hop_limit: 9 };
        let outer4 = Outer { src: f.src4, dst: f.dst4, traffic_class: 0, hop_limit: 9 };
        let head = Head { kind: 1, code: 1, rest: 0 };
        let mut out = PacketBuf::new();

        // The client's packet, quoted on the IPv4 side after its translation.
        let sent = Case { extensions: Vec::new(), ..case.clone() };
        let quoted = sent.up4(ID).bytes();
        let quoted = &quoted[..quoted.len().min(20 + cut)];
        let quote = quote4(quoted).unwrap();
        error_to_v6(&outer6, head, Body { quote: quoted, extension: &[] }, &quote, f, &mut out);
        let error = Packet::parse(out.bytes()).unwrap();
        let mut expected = sent.up6().hops(sent.hops - 1);
        expected.flow_label = 0;
        let expected = expected.bytes();
        prop_assert_eq!(error.icmp().3, &expected[..expected.len().min(40 + cut)]);

        // The peer's packet, quoted on the IPv6 side.
        let quoted = sent.down6().bytes();
        let quoted = &quoted[..quoted.len().min(40 + cut)];
        let quote = quote6(quoted).unwrap();
        let body = Body { quote: quoted, extension: &[] };
        error_to_v4(&outer4, Head { kind: 3, ..head }, body, &quote, f, 7, &mut out);
        let error = Packet::parse(out.bytes()).unwrap();
        let whole = Packet { options: Vec::new(), ..sent.down4() }.hops(sent.hops - 1).id(0);
        let df = whole.bytes().len() > 1260;
        let expected = whole.df(df).bytes();
        prop_assert_eq!(error.icmp().3, &expected[..expected.len().min(20 + cut).min(576 - 28)]);
    }

    #[test]
    fn a06_mapping_is_reversible(v4: u32, bits: u128, which in 0usize..6) {
        let len = [32, 40, 48, 56, 64, 96][which];
        let prefix = sampan::addr::Prefix6::covering(Ipv6Addr::from_bits(bits & !(0xff << 56)), len);
        let pref64 = sampan::xlat::pref64::Pref64::new(prefix).unwrap();
        let v4 = Ipv4Addr::from_bits(v4);
        let v6 = pref64.embed(v4);
        prop_assert_eq!(pref64.extract(v6), Some(v4));
        prop_assert_eq!(v6.octets()[8], 0, "A-03: octet u");
        prop_assert!(IpAddr::from(v6).is_ipv6() && prefix.contains(v6));
    }
}
