//! Packets from fuzz data: valid ones, then whatever spoils them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::Bytes;
use super::naive;

/// What a packet is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Tcp { src: u16, dst: u16, flags: u8 },
    Udp { src: u16, dst: u16 },
    Echo { reply: bool, id: u16 },
}

/// Lengths of payload that are interesting: empty, odd, around the MTUs, several fragments.
const LENGTHS: [usize; 16] = [0, 1, 2, 8, 9, 56, 100, 512, 1180, 1212, 1220, 1232, 1252, 1400, 1452, 3000];
const HOPS: [u8; 8] = [64, 255, 2, 1, 0, 63, 128, 3];

/// Sequence number of every TCP segment.
pub const SEQ: [u8; 4] = [1, 2, 3, 4];

/// The transport of a flow, without checksum.
pub fn transport(flow: Flow, is_v6: bool, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut out = Vec::with_capacity(20 + payload.len());
    let protocol = match flow {
        Flow::Tcp { src, dst, flags } => {
            out.extend(src.to_be_bytes());
            out.extend(dst.to_be_bytes());
            out.extend(SEQ);
            out.extend([5, 6, 7, 8, 0x50, flags, 0x40, 0, 0, 0, 0, 0]);
            naive::TCP
        }
        Flow::Udp { src, dst } => {
            out.extend(src.to_be_bytes());
            out.extend(dst.to_be_bytes());
            out.extend([0, 0, 0, 0]);
            naive::UDP
        }
        Flow::Echo { reply, id } => {
            out.extend([[8, 0], [128, 129]][usize::from(is_v6)][usize::from(reply)..][..1].iter());
            out.extend([0, 0, 0]);
            out.extend(id.to_be_bytes());
            out.extend([0, 7]);
            if is_v6 { naive::ICMPV6 } else { naive::ICMP }
        }
    };
    out.extend(payload);
    (protocol, out)
}

/// A header of either family in front of `payload`; lengths and checksums are right afterwards.
pub fn ip(src: IpAddr, dst: IpAddr, hops: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut out = vec![0x60, 0, 0, 0, 0, 0, protocol, hops];
            out.extend(src.octets());
            out.extend(dst.octets());
            out
        }
        (src, dst) => {
            let mut out = vec![0x45, 0, 0, 0, 0, 1, 0, 0, hops, protocol, 0, 0];
            for addr in [src, dst] {
                out.extend(match addr {
                    IpAddr::V4(addr) => addr.octets(),
                    IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.octets(),
                });
            }
            out
        }
    };
    out.extend(payload);
    naive::fix(&mut out);
    out
}

/// A packet of a flow whose length, hop limit, traffic class, flags and options the data chooses.
pub fn packet(data: &mut Bytes<'_>, src: IpAddr, dst: IpAddr, flow: Flow) -> Vec<u8> {
    let len = data.one_of(&LENGTHS);
    let hops = data.one_of(&HOPS);
    let look = data.byte();
    let fill = data.byte();
    let payload: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(7) ^ fill).collect();
    let (protocol, l4) = transport(flow, src.is_ipv6(), &payload);
    let mut packet = ip(src, dst, hops, protocol, &l4);
    if src.is_ipv6() {
        packet[0] |= look >> 4;
        packet[1] |= look << 4;
        if look & 3 == 3 {
            extend6(data, &mut packet);
        }
    } else {
        packet[1] = look;
        naive::put(&mut packet, 4, u16::from(fill) << 8 | u16::from(look));
        if fill & 1 == 1 {
            packet[6] |= 0x40;
        }
        if look & 3 == 3 {
            options4(data, &mut packet);
        }
        naive::fix_header4(&mut packet);
    }
    if matches!(flow, Flow::Udp { .. }) && look & 4 != 0 {
        let at = packet.len() - payload.len() - 2;
        packet[at..at + 2].fill(0);
    }
    packet
}

/// Puts extension headers, an atomic Fragment Header among them, behind the base header.
fn extend6(data: &mut Bytes<'_>, packet: &mut Vec<u8>) {
    for _ in 0..data.below(4) {
        let number = data.one_of(&[60, 0, 43, 44, 60]);
        let next = std::mem::replace(&mut packet[6], number);
        let mut header = vec![next, 0, 0, 0, 0, 0, 0, 0];
        match number {
            43 => header[3] = data.one_of(&[0, 0, 0, 1]),
            44 => header[4..8].copy_from_slice(&data.long().to_be_bytes()),
            _ => header[2..4].copy_from_slice(&[1, 4]),
        }
        packet.splice(40..40, header);
    }
    let len = packet.len() as u16 - 40;
    naive::put(packet, 4, len);
}

/// Puts options behind the IPv4 header: nothing, router alert, a source route that is used up, one that is not.
fn options4(data: &mut Bytes<'_>, packet: &mut Vec<u8>) {
    let options: &[u8] = data.one_of(&[
        &[1, 1, 1, 0],
        &[148, 4, 0, 0],
        &[131, 7, 8, 10, 0, 0, 1, 0],
        &[131, 7, 4, 10, 0, 0, 1, 0],
        &[7, 1, 0, 0],
    ]);
    packet.splice(20..20, options.iter().copied());
    packet[0] = 0x45 + (options.len() / 4) as u8;
    let len = packet.len() as u16;
    naive::put(packet, 2, len);
}

/// An ICMP error from `src` to `dst` about `quoted`, with checksums that are right.
pub fn icmp_error(
    src: IpAddr,
    dst: IpAddr,
    hops: u8,
    kind: u8,
    code: u8,
    rest: u32,
    quoted: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest.to_be_bytes());
    message.extend(quoted);
    ip(src, dst, hops, if src.is_ipv6() { naive::ICMPV6 } else { naive::ICMP }, &message)
}

/// Cuts a whole packet into fragments with at most `room` payload bytes (a multiple of 8), in order.
pub fn fragments(packet: &[u8], room: usize, id: u32) -> Vec<Vec<u8>> {
    let Ok(ip) = naive::read(packet, true) else { return vec![packet.to_vec()] };
    let payload = &packet[ip.l4..ip.len];
    let mut out = Vec::new();
    for (i, chunk) in payload.chunks(room.max(8)).enumerate() {
        let offset = i * room.max(8);
        let more = offset + chunk.len() < payload.len();
        out.push(fragment(packet, &ip, offset, more, id, chunk));
    }
    out
}

/// One fragment with the base header of `packet`.
pub fn fragment(
    packet: &[u8],
    ip: &naive::Ip,
    offset: usize,
    more: bool,
    id: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut piece = Vec::new();
    if ip.is_v6() {
        piece.extend(&packet[..40]);
        piece[6] = 44;
        piece.extend([ip.protocol, 0]);
        piece.extend((offset as u16 & 0xfff8 | u16::from(more)).to_be_bytes());
        piece.extend(id.to_be_bytes());
        piece.extend(payload);
        let len = piece.len() as u16 - 40;
        naive::put(&mut piece, 4, len);
    } else {
        piece.extend(&packet[..20]);
        piece[0] = 0x45;
        piece.extend(payload);
        let len = piece.len() as u16;
        naive::put(&mut piece, 2, len);
        naive::put(&mut piece, 4, id as u16);
        naive::put(&mut piece, 6, (offset / 8) as u16 & 0x1fff | if more { 0x2000 } else { 0 });
        naive::fix_header4(&mut piece);
    }
    piece
}

/// Spoils a packet in one to four places, and may make its checksums right again.
pub fn spoil(data: &mut Bytes<'_>, packet: &mut Vec<u8>) {
    let how = data.byte();
    for _ in 0..=how & 3 {
        if packet.is_empty() {
            return;
        }
        let at = usize::from(data.word()) % packet.len();
        packet[at] ^= data.byte();
    }
    match how >> 6 {
        1 => naive::fix(packet),
        2 if packet.len() >= 20 && packet[0] >> 4 == 4 => naive::fix_header4(packet),
        3 => {
            let len = usize::from(data.word()) % (packet.len() + 1);
            packet.truncate(len);
        }
        _ => {}
    }
}

/// An IPv6 address of a test network.
pub fn addr6(net: u16, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into())
}
