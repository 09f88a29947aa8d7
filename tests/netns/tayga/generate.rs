//! Valid packets of every kind that a stateless translator meets, from a seed.

use super::errors::{
    error_about_error, error_from_router, error_with_extension, error_with_short_quote, plain_error,
    translated_by_hand,
};
use super::packet::{ICMP, Packet, TCP, echo, raw, tcp, udp};
use crate::rng::Rng;

/// The translation prefix of both translators.
pub const PREFIX: &str = "2001:db8:64::";
/// Explicit mappings: two hosts and a block of sixteen.
pub const MAPS: [(&str, &str); 3] = [
    ("198.51.100.1/32", "2001:db8:6::11/128"),
    ("198.51.100.2/32", "2001:db8:6::12/128"),
    ("198.51.100.64/28", "2001:db8:6:40::/124"),
];
/// Where errors of the translators themselves come from.
pub const OWN4: &str = "192.0.2.9";
pub const OWN6: &str = "2001:db8:6::1";
/// A router of the IPv6 network, without an IPv4 address.
pub const ROUTER6: &str = "2001:db8:6::99";
/// The MTU of both sides; tayga has one for both.
pub const MTU: usize = 1500;

/// A packet and the kind of packet it is.
pub struct Case {
    pub class: &'static str,
    pub bytes: Vec<u8>,
}

type Maker = fn(&mut Rng) -> Packet;

/// Every class, in the order in which they take turns.
const CLASSES: [(&str, Maker); 28] = [
    ("udp", plain_udp),
    ("tcp", plain_tcp),
    ("echo", plain_echo),
    ("other transport", other_transport),
    ("size", size),
    ("extension headers", extension_headers),
    ("routing header", routing_header),
    ("fragment", fragment),
    ("fragment behind extension headers", fragment_behind_extensions),
    ("extension header behind fragment header", extension_behind_fragment),
    ("atomic fragment", atomic_fragment),
    ("fragment of ICMP", fragment_of_icmp),
    ("options", options),
    ("source route", source_route),
    ("udp without checksum", udp_without_checksum),
    ("wrong checksum", wrong_checksum),
    ("checksum of zero", checksum_of_zero),
    ("hop limit", hop_limit),
    ("error", plain_error),
    ("error", plain_error),
    ("error", plain_error),
    ("error with short quote", error_with_short_quote),
    ("error with extension", error_with_extension),
    ("error about error", error_about_error),
    ("error from router", error_from_router),
    ("other ICMP", other_icmp),
    ("odd address", odd_address),
    ("two mapped nodes", two_mapped_nodes),
];

/// Cases in the order of the classes, for ever.
pub fn cases(seed: u64) -> impl Iterator<Item = Case> {
    let mut rng = Rng(seed);
    CLASSES.iter().cycle().map(move |(class, make)| Case { class, bytes: make(&mut rng).bytes() })
}

impl Rng {
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Short ones, any, and none.
    pub fn data(&mut self) -> Vec<u8> {
        let len = match self.below(4) {
            0 => 0,
            1 | 2 => self.below(100),
            _ => self.below(1200),
        };
        self.bytes(len)
    }
}

fn client(rng: &mut Rng) -> (String, String) {
    match rng.below(3) {
        0 => ("198.51.100.1".into(), "2001:db8:6::11".into()),
        1 => ("198.51.100.2".into(), "2001:db8:6::12".into()),
        _ => {
            let n = rng.below(16);
            (format!("198.51.100.{}", 64 + n), format!("2001:db8:6:40::{n:x}"))
        }
    }
}

fn server(rng: &mut Rng) -> String {
    format!("203.0.113.{}", 1 + rng.below(250))
}

fn embedded(v4: &str) -> String {
    format!("{PREFIX}{v4}")
}

/// Source and destination of a packet to the IPv6 node, or to the IPv4 host.
fn ends(rng: &mut Rng, to6: bool) -> (String, String) {
    let ((client4, client6), server) = (client(rng), server(rng));
    if to6 { (server, client4) } else { (client6, embedded(&server)) }
}

/// Fields that every header may have any value in.
pub fn varied(rng: &mut Rng, packet: Packet) -> Packet {
    packet.with(|p| {
        p.tos = rng.next() as u8;
        p.ttl = 2 + rng.below(250) as u8;
        if p.src.is_ipv4() {
            p.id = rng.next() as u32 & 0xffff;
            p.df = rng.flip();
        } else {
            p.flow_label = rng.next() as u32 & 0xf_ffff;
        }
    })
}

fn ports(rng: &mut Rng, packet: Packet) -> Packet {
    let ports = rng.bytes(4);
    packet.with(|p| {
        p.payload[..4].copy_from_slice(&ports);
        p.sum();
    })
}

pub fn udp_of(rng: &mut Rng, to6: bool, data: &[u8]) -> Packet {
    let (src, dst) = ends(rng, to6);
    let packet = udp(&src, &dst, data);
    let packet = ports(rng, packet);
    varied(rng, packet)
}

pub fn tcp_of(rng: &mut Rng, to6: bool, data: &[u8]) -> Packet {
    let (src, dst) = ends(rng, to6);
    let packet = tcp(&src, &dst, data);
    let (numbers, options) = (rng.bytes(8), 4 * rng.below(4));
    let flags = rng.of(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0xc2, 0x52]);
    let packet = packet.with(|p| {
        p.payload[4..12].copy_from_slice(&numbers);
        p.payload[12] = ((20 + options) as u8 / 4) << 4;
        p.payload[13] = flags;
        // Maximum segment size, then no operations.
        let tail = [[2, 4, 5, 180], [1; 4], [1; 4]].concat();
        p.payload.splice(20..20, tail[..options].to_vec());
    });
    let packet = ports(rng, packet);
    varied(rng, packet)
}

pub fn echo_of(rng: &mut Rng, to6: bool, data: &[u8]) -> Packet {
    let (src, dst) = ends(rng, to6);
    let packet = echo(&src, &dst, rng.flip(), data);
    let numbers = rng.bytes(4);
    let packet = packet.with(|p| {
        p.payload[4..8].copy_from_slice(&numbers);
        p.sum();
    });
    varied(rng, packet)
}

fn plain_udp(rng: &mut Rng) -> Packet {
    let (to6, data) = (rng.flip(), rng.data());
    udp_of(rng, to6, &data)
}

fn plain_tcp(rng: &mut Rng) -> Packet {
    let (to6, data) = (rng.flip(), rng.data());
    tcp_of(rng, to6, &data)
}

fn plain_echo(rng: &mut Rng) -> Packet {
    let (to6, data) = (rng.flip(), rng.data());
    echo_of(rng, to6, &data)
}

fn other_transport(rng: &mut Rng) -> Packet {
    let (src, dst) = {
        let to6 = rng.flip();
        ends(rng, to6)
    };
    // IGMP, IP in IP, IPv6 in IP, DCCP, GRE, ESP, AH, OSPF, SCTP, UDP-Lite, and those of the other family.
    let v6 = src.contains(':');
    let foreign: &[u8] = if v6 { &[ICMP] } else { &[0, 43, 44, 58, 60] };
    let known = [2, 4, 41, 33, 47, 50, 51, 89, 132, 136, 253];
    let protocol = if rng.below(4) == 0 { rng.of(foreign) } else { rng.of(&known) };
    let len = 24 + 4 * rng.below(30);
    let body = rng.bytes(len);
    varied(rng, raw(&src, &dst, protocol, &body))
}

/// Around every length at which something changes.
fn size(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let limits = if to6 { [1240, 1252, 1260, 1480, MTU] } else { [1260, 1272, 1280, 1300, MTU] };
    let total = (rng.of(&limits) + rng.below(5)).saturating_sub(2).min(MTU);
    let data = rng.bytes(total - if to6 { 28 } else { 48 });
    udp_of(rng, to6, &data)
}

fn any_to4(rng: &mut Rng) -> Packet {
    let data = rng.data();
    match rng.below(3) {
        0 => udp_of(rng, false, &data),
        1 => tcp_of(rng, false, &data),
        _ => echo_of(rng, false, &data),
    }
}

/// Bodies from the Length byte on.
fn hop_by_hop() -> (u8, Vec<u8>) {
    (0, vec![0, 1, 4, 0, 0, 0, 0])
}

fn destination_options() -> (u8, Vec<u8>) {
    (60, [vec![1, 1, 12], vec![0; 12]].concat())
}

fn routing(left: u8) -> (u8, Vec<u8>) {
    (43, [vec![2, 4, left], vec![0; 20]].concat())
}

fn chain(rng: &mut Rng) -> Vec<(u8, Vec<u8>)> {
    let mut chain = Vec::new();
    let which = 1 + rng.below(7);
    if which & 1 != 0 {
        chain.push(hop_by_hop());
    }
    if which & 2 != 0 {
        chain.push(destination_options());
    }
    if which & 4 != 0 {
        chain.push(routing(0));
    }
    chain
}

fn extension_headers(rng: &mut Rng) -> Packet {
    let extensions = chain(rng);
    any_to4(rng).with(|p| p.extensions = extensions)
}

fn routing_header(rng: &mut Rng) -> Packet {
    let left = 1 + rng.below(3) as u8;
    let front = rng.flip();
    any_to4(rng).with(|p| {
        p.extensions.extend(front.then(hop_by_hop));
        p.extensions.push(routing(left));
    })
}

/// One piece of a datagram of UDP, TCP or something else: the first, one in the middle or the last.
fn fragment(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let len = 600 + rng.below(2000);
    let data = rng.bytes(len);
    let whole = match rng.below(3) {
        0 => udp_of(rng, to6, &data),
        1 => tcp_of(rng, to6, &data),
        _ => {
            let (src, dst) = ends(rng, to6);
            varied(rng, raw(&src, &dst, 132, &data))
        }
    };
    let id = if to6 { rng.next() as u32 & 0xffff } else { rng.next() as u32 };
    // Pieces of all sizes; IPv4 ones may be too long for an IPv6 link once they are translated.
    let room = 8 * rng.of(&[10, 50, 153, 154, 155, 181]);
    let pieces = whole.payload.len().div_ceil(room);
    let from = room * rng.below(pieces);
    whole.piece(from, from + room, id)
}

fn fragment_behind_extensions(rng: &mut Rng) -> Packet {
    let data = rng.bytes(800);
    let id = rng.next() as u32;
    let from = 8 * rng.below(50);
    let extensions = chain(rng);
    let whole = udp_of(rng, false, &data);
    whole.piece(from, from + 200, id).with(|p| p.extensions = extensions)
}

fn extension_behind_fragment(rng: &mut Rng) -> Packet {
    let id = rng.next() as u32;
    let more = rng.flip();
    udp_of(rng, false, &[7; 100]).with(|p| {
        let (number, body) = destination_options();
        p.payload.splice(0..0, [vec![p.protocol], body].concat());
        p.protocol = number;
        let len = p.payload.len() & !7;
        p.payload.truncate(len);
        p.fragment = Some((0, more));
        p.id = id;
    })
}

fn atomic_fragment(rng: &mut Rng) -> Packet {
    let id = rng.next() as u32;
    any_to4(rng).with(|p| {
        p.fragment = Some((0, false));
        p.id = id;
    })
}

fn fragment_of_icmp(rng: &mut Rng) -> Packet {
    let (to6, id) = (rng.flip(), rng.next() as u32 & 0xffff);
    let data = rng.bytes(800);
    let from = 200 * rng.below(4);
    echo_of(rng, to6, &data).piece(from, from + 200, id)
}

fn any_to6(rng: &mut Rng) -> Packet {
    let data = rng.data();
    match rng.below(3) {
        0 => udp_of(rng, true, &data),
        1 => tcp_of(rng, true, &data),
        _ => echo_of(rng, true, &data),
    }
}

/// Options that a router need not act on: no operations, record route, timestamp, router alert.
fn options(rng: &mut Rng) -> Packet {
    let options: &[u8] = rng.of(&[
        &[1, 1, 1, 0][..],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        // A loose source route that is used up.
        &[131, 7, 8, 192, 0, 2, 1, 0],
    ]);
    any_to6(rng).with(|p| p.options = options.to_vec())
}

/// Loose or strict, with a stop still ahead.
fn source_route(rng: &mut Rng) -> Packet {
    let kind = rng.of(&[131, 137]);
    any_to6(rng).with(|p| p.options = vec![kind, 7, 4, 192, 0, 2, 1, 0])
}

fn udp_without_checksum(rng: &mut Rng) -> Packet {
    let (to6, piece) = (rng.flip(), rng.flip());
    let data = rng.bytes(400);
    let packet = udp_of(rng, to6, &data).with(|p| p.payload[6..8].fill(0));
    if piece { packet.piece(0, 200, 77) } else { packet }
}

/// A checksum that was spoiled on the way: nobody may make it right.
fn wrong_checksum(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let by = 1 + rng.below(0xfffd) as u16;
    let data = rng.data();
    let packet = if rng.flip() { udp_of(rng, to6, &data) } else { tcp_of(rng, to6, &data) };
    packet.with(|p| {
        let at = if p.protocol == TCP { 16 } else { 6 };
        let sum = u16::from_be_bytes([p.payload[at], p.payload[at + 1]]);
        // One's complement addition, never to zero, which UDP takes for "none".
        let (sum, carry) = sum.overflowing_add(by);
        let sum = (sum + u16::from(carry)).max(1);
        p.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    })
}

/// UDP whose checksum is zero on the other side.
fn checksum_of_zero(rng: &mut Rng) -> Packet {
    let (to6, mut data) = (rng.flip(), rng.data());
    data.splice(..0, [0; 2]);
    udp_of(rng, to6, &data).with(|p| {
        let other = translated_by_hand(p.clone());
        // The word that is missing in the other form to a sum of all ones.
        p.payload[8..10].copy_from_slice(&other.payload[6..8]);
        p.sum();
    })
}

/// The kernel has taken one already, so neither 0 nor 255 comes.
fn hop_limit(rng: &mut Rng) -> Packet {
    let (to6, hops) = (rng.flip(), rng.of(&[1, 1, 2, 3, 253, 254]));
    let packet = if to6 { any_to6(rng) } else { any_to4(rng) };
    packet.with(|p| p.ttl = hops)
}

/// Queries that stay on their link or that nobody uses any more.
fn other_icmp(rng: &mut Rng) -> Packet {
    let to6 = rng.flip();
    let kinds: &[u8] =
        if to6 { &[9, 10, 13, 14, 15, 17, 42] } else { &[130, 131, 133, 135, 136, 137, 139, 160] };
    let kind = rng.of(kinds);
    let body = rng.bytes(20);
    echo_of(rng, to6, &body).with(|p| {
        p.payload[0] = kind;
        p.sum();
    })
}

/// Addresses that no packet on the way may have, or that nobody has mapped.
fn odd_address(rng: &mut Rng) -> Packet {
    let data = rng.bytes(40);
    if rng.flip() {
        let addr = rng.of(&[
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.5",
            "240.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
        ]);
        let source = rng.flip();
        udp_of(rng, true, &data).with(|p| {
            if source {
                p.src = addr.parse().unwrap()
            } else {
                p.dst = addr.parse().unwrap()
            }
            p.sum();
        })
    } else {
        let (addr, source) = rng.of(&[
            ("::1", true),
            ("fe80::1", true),
            ("::ffff:192.0.2.1", true),
            ("2001:db8:64::127.0.0.1", true),
            ("2001:db8:64::127.0.0.1", false),
            ("2001:db8:64::224.0.0.5", true),
            ("2001:db8:64::224.0.0.5", false),
            ("2001:db8:bad::1", true),
            ("2001:db8:bad::1", false),
            ("ff02::1", false),
        ]);
        udp_of(rng, false, &data).with(|p| {
            if source {
                p.src = addr.parse().unwrap()
            } else {
                p.dst = addr.parse().unwrap()
            }
            p.sum();
        })
    }
}

/// RFC 7757 §4: an IPv6 node calls another one by its IPv4 address.
fn two_mapped_nodes(rng: &mut Rng) -> Packet {
    let data = rng.data();
    let peer = embedded(rng.of(&["198.51.100.1", "198.51.100.2", "198.51.100.70"]));
    let packet = match rng.below(3) {
        0 => udp_of(rng, false, &data),
        1 => tcp_of(rng, false, &data),
        _ => echo_of(rng, false, &data),
    };
    packet.with(|p| {
        p.dst = peer.parse().unwrap();
        p.sum();
    })
}
