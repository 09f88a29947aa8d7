//! One packet through the stateless translation, either way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sampan::wire::l4::Payload;
use sampan::wire::packet::{Offload, PacketBuf, View};
use sampan::xlat::pref64::Pref64;
use sampan::xlat::{Delta, FlowPair, Hop, Refusal, Rewrite, frag, icmp_error, v4_to_v6, v6_to_v4};

use super::bytes::Bytes;
use super::judge::{self, Rules, Sent};
use super::judge_piece;
use super::naive;
use super::wire_parse::offload;

/// Bytes in front of the packet: offload data, then settings.
pub const PREFIX: usize = 16;

const T: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const Z: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const X: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// The settings of one input.
pub struct Setup {
    pub offload: Offload,
    pub hop: Hop,
    pub mtu6: u16,
    pub mtu4: u16,
    pub lowest: u16,
    pub id: u16,
    pub port: u16,
    pub reassembled: bool,
    pub mss: Option<u16>,
    /// Make the packet's lengths and checksums right first.
    pub fix: bool,
}

impl Setup {
    /// Legal settings from any data.
    pub fn new(data: &mut Bytes<'_>) -> Self {
        let offload = offload(data.take(8));
        let flags = data.byte();
        let wide = data.one_of(&[1500, 1280, 9000, 65535, 1492]);
        let port = data.word();
        let id = data.word();
        let narrow = data.word();
        Self {
            offload,
            hop: [Hop::Less, Hop::More, Hop::Same, Hop::Less][usize::from(flags & 3)],
            mss: (flags & 4 != 0).then_some(if flags & 8 == 0 { 1220 } else { narrow }),
            mtu6: wide,
            mtu4: if flags & 16 == 0 { 1500 } else { narrow.max(68) },
            lowest: if flags & 32 == 0 { 1280 } else { wide },
            id,
            port,
            reassembled: flags & 64 != 0,
            fix: flags & 128 != 0,
        }
    }

    /// The packet behind them.
    pub fn packet(&self, bytes: &[u8]) -> PacketBuf {
        let mut bytes = bytes.to_vec();
        if self.fix {
            naive::fix(&mut bytes);
        }
        let mut packet = PacketBuf::from_bytes(&bytes);
        packet.offload = self.offload;
        packet
    }

    fn rules(&self, hops: u8) -> Rules {
        Rules {
            mtu6: self.mtu6.into(),
            mtu4: self.mtu4.into(),
            lowest_ipv6_mtu: self.lowest.into(),
            hops: match self.hop {
                Hop::Less => hops.wrapping_sub(1),
                Hop::Same => hops,
                Hop::More => hops.saturating_add(1),
            },
            reassembled: self.reassembled,
            mss: self.mss,
            hairpinned: false,
        }
    }
}

/// Data: [`PREFIX`] bytes of settings, then an IPv6 packet.
pub fn xlat_6to4(data: &[u8]) {
    let mut data = Bytes::new(data);
    let setup = Setup::new(&mut data);
    let mut packet = setup.packet(data.rest());
    let Ok(View::V6(view)) = packet.parse() else { return };
    if must_not_cross(view.payload, view.protocol) {
        return;
    }
    packet.reassembled = setup.reassembled && view.fragment.is_some();
    let (src, dst) = ports(view.payload);
    let flow = FlowPair {
        src6: view.src,
        port6: src,
        dst6: view.dst,
        src4: T,
        port4: setup.port,
        dst4: Z,
        peer_port: dst,
    };
    let rewrite =
        Rewrite { src: T, dst: Z, src_port: setup.port, dst_port: dst, delta: Delta::v6_to_v4(&flow) };
    let (hop, mtu4, id, mss) = (setup.hop, setup.mtu4, setup.id, setup.mss);
    let context = v6_to_v4::Context { hop, mtu4, id, mss, tos: None };
    let untouched = packet.bytes().to_vec();
    let plan = match v6_to_v4::plan(&view, &packet, &rewrite, &context) {
        Ok(plan) => plan,
        Err(refusal) => {
            let mut out = PacketBuf::new();
            let built = refusal.notice.is_some_and(|n| icmp_error::build6(n, &view, &packet, X, &mut out));
            return refused(&untouched, &setup, refusal, built.then_some(out), view.hop_limit);
        }
    };
    assert!(setup.hop.apply(view.hop_limit).is_some(), "B-08");
    plan.apply(&mut packet);
    let mut out = Vec::new();
    match plan.cut {
        Some(mtu) => {
            assert_eq!(mtu, setup.mtu4);
            frag::cut4(&mut packet, mtu, &mut PacketBuf::new(), |piece| out.push(sent(piece)));
        }
        None => out.push(sent(&packet)),
    }
    let mut rules = setup.rules(view.hop_limit);
    rules.reassembled = packet.reassembled;
    if is_opaque(view.payload) {
        return judge_piece::translated(&untouched, &out, &rules, (T.into(), Z.into()));
    }
    judge::translated(&untouched, setup.offload, &out, &rules);
    addressed(&out, IpAddr::V4(T), IpAddr::V4(Z), setup.port, dst);
}

/// Data: [`PREFIX`] bytes of settings, then an IPv4 packet.
pub fn xlat_4to6(data: &[u8]) {
    let mut data = Bytes::new(data);
    let setup = Setup::new(&mut data);
    let mut packet = setup.packet(data.rest());
    let Ok(View::V4(view)) = packet.parse() else { return };
    if must_not_cross(view.payload, view.protocol) {
        return;
    }
    packet.reassembled = setup.reassembled && !view.df;
    let (src, dst) = ports(view.payload);
    let is_echo = matches!(view.payload, Payload::Icmp(_));
    let y = Pref64::well_known().embed(view.src);
    let flow = FlowPair {
        src6: X,
        port6: setup.port,
        dst6: y,
        src4: view.dst,
        port4: dst,
        dst4: view.src,
        peer_port: src,
    };
    // For ICMP the identifier is written from `src_port`, whatever the direction.
    let (src_port, dst_port) = if is_echo { (setup.port, 0) } else { (src, setup.port) };
    let delta = Delta::v6_to_v4(&flow).reversed();
    let rewrite = Rewrite { src: y, dst: X, src_port, dst_port, delta };
    let context = v4_to_v6::Context {
        hop: setup.hop,
        mtu6: setup.mtu6,
        mtu4: setup.mtu4,
        lowest_ipv6_mtu: setup.lowest,
        id: setup.id.into(),
        mss: setup.mss,
        traffic_class: None,
    };
    let untouched = packet.bytes().to_vec();
    let plan = match v4_to_v6::plan(&view, &packet, &rewrite, &context) {
        Ok(plan) => plan,
        Err(refusal) => {
            let mut out = PacketBuf::new();
            let built = refusal.notice.is_some_and(|n| icmp_error::build4(n, &view, &packet, T, 7, &mut out));
            return refused(&untouched, &setup, refusal, built.then_some(out), view.ttl);
        }
    };
    assert!(setup.hop.apply(view.ttl).is_some(), "C-05");
    plan.apply(&mut packet);
    let mut out = Vec::new();
    match plan.cut {
        Some(cut) => {
            let mut scratch = [PacketBuf::new(), PacketBuf::new()];
            frag::cut(&mut packet, cut, &mut scratch, |piece| out.push(sent(piece)));
        }
        None => out.push(sent(&packet)),
    }
    let mut rules = setup.rules(view.ttl);
    rules.reassembled = packet.reassembled;
    if is_opaque(view.payload) {
        return judge_piece::translated(&untouched, &out, &rules, (y.into(), X.into()));
    }
    judge::translated(&untouched, setup.offload, &out, &rules);
    addressed(&out, IpAddr::V6(y), IpAddr::V6(X), src_port, dst_port);
}

fn ports(payload: Payload) -> (u16, u16) {
    match payload {
        Payload::Tcp(tcp) => (tcp.src, tcp.dst),
        Payload::Udp(udp) => (udp.src, udp.dst),
        Payload::Icmp(sampan::wire::icmp::Icmp::Echo { id, .. }) => (id, 0),
        Payload::Icmp(_) | Payload::Fragment | Payload::Other(_) => (0, 0),
    }
}

/// What the stateless translator carries without reading: pieces, and other transports.
fn is_opaque(payload: Payload) -> bool {
    matches!(payload, Payload::Fragment | Payload::Other(_))
}

/// Protocols that mean something else in the other family. Both translators refuse them before they plan anything.
fn must_not_cross(payload: Payload, protocol: u8) -> bool {
    is_opaque(payload) && [0, 1, 2, 43, 44, 51, 58, 60, 135, 139, 140].contains(&protocol)
}

fn sent(packet: &PacketBuf) -> Sent {
    (packet.bytes().to_vec(), packet.offload)
}

/// Every refusal has a cause in the packet or in the settings, and leaves the packet as it was.
fn refused(input: &[u8], setup: &Setup, refusal: Refusal, error: Option<PacketBuf>, hops: u8) {
    use sampan::verdict::DropReason;
    let Ok(ip) = naive::read(input, true) else { panic!("refused a packet that was read") };
    let l4 = &input[ip.l4..];
    let is_icmp = ip.protocol == ip.icmp();
    let no_checksum = |at: usize| ip.protocol == naive::UDP && l4.len() >= at + 2 && naive::word(l4, at) == 0;
    let is_first = ip.fragment.is_none_or(|(offset, _)| offset == 0);
    match refusal.reason {
        DropReason::HopLimit => assert!(hops == 0 || hops == 1 && setup.hop == Hop::Less),
        DropReason::RoutingHeader | DropReason::SourceRoute => assert!(ip.routed),
        DropReason::UdpZeroChecksum => assert!(ip.is_v6() && is_first && no_checksum(6), "B-20"),
        DropReason::UdpNoChecksum => {
            assert!(!ip.is_v6() && is_first && ip.fragment.is_some() && no_checksum(6), "C-16");
        }
        DropReason::IcmpType => assert!(is_icmp && !judge::is_echo(l4, &ip)),
        DropReason::Fragment => {
            assert!(ip.fragment.is_some() && [naive::ICMP, naive::ICMPV6].contains(&ip.protocol))
        }
        DropReason::BadLength | DropReason::FragmentTiny => {
            assert!(judge_piece::is_impossible(l4, &ip), "E-04, E-15: {ip:?}");
        }
        DropReason::Oversize => assert!(ip.len - ip.l4 + 20 > 65_535 - 8),
        DropReason::PacketTooBig | DropReason::SegmentTooBig => {
            let segment = judge::segment_len(input, &ip, &setup.offload) - ip.l4;
            let fragment_header = if ip.fragment.is_some() { 8 } else { 0 };
            let (len, mtu) = match ip.is_v6() {
                true => (segment + 20, setup.mtu4),
                false => (segment + 40 + fragment_header, setup.mtu6),
            };
            assert!(len > usize::from(mtu), "{len} bytes fit {mtu}");
        }
        other => panic!("{other:?} is no reason for this packet"),
    }
    if let Some(error) = error {
        judge::originated(input, setup.offload, &sent(&error));
    }
}

/// Addresses and ports are those of the rewrite.
fn addressed(out: &[Sent], src: IpAddr, dst: IpAddr, src_port: u16, dst_port: u16) {
    for (bytes, _) in out {
        let Ok(ip) = naive::read(bytes, true) else { panic!("judged before") };
        assert_eq!((ip.src, ip.dst), (src, dst));
        if ip.fragment.is_some_and(|(offset, _)| offset > 0) {
            continue;
        }
        let at = |i: usize| naive::word(bytes, ip.l4 + i);
        match ip.protocol {
            p if p == ip.icmp() => assert_eq!(at(4), src_port, "identifier"),
            _ => assert_eq!((at(0), at(2)), (src_port, dst_port), "ports"),
        }
    }
}
