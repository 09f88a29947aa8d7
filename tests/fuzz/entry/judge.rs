//! What must be true of everything that comes out, whatever went in. Every check names its requirement.

use sampan::wire::packet::{Checksum, Gso, GsoKind, Offload, PacketBuf, View};

use super::naive::{self, Ip, word};

/// A packet as a device gives or takes it.
pub type Sent = (Vec<u8>, Offload);

/// What the translation of one packet is held to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub mtu6: usize,
    pub mtu4: usize,
    pub lowest_ipv6_mtu: usize,
    /// Hop limit or TTL that must come out.
    pub hops: u8,
    /// The input is a datagram that the gateway put together from fragments.
    pub reassembled: bool,
    /// Largest TCP segment that a SYN may announce.
    pub mss: Option<u16>,
    /// The packet passed through twice (RFC 6146 §3.8) and was IPv4 on the way.
    pub hairpinned: bool,
}

/// A whole datagram that came out, in one piece or in several.
struct Datagram {
    ip: Ip,
    l4: Vec<u8>,
    offload: Offload,
    in_pieces: bool,
}

/// Protocol number of the Authentication Header (RFC 4302).
const AUTHENTICATION: u8 = 51;

/// Parses an output with our parser, with etherparse and with the naive reader; all three must take it.
pub fn well_formed(bytes: &[u8], offload: Offload) -> Ip {
    let ip = well_formed_ip(bytes, offload);
    assert_eq!(naive::transport(bytes, &ip), Ok(()), "transport of {bytes:02x?}");
    let sliced = etherparse::SlicedPacket::from_ip(bytes);
    assert!(sliced.is_ok(), "etherparse refuses our output: {sliced:?} {bytes:02x?}");
    ip
}

/// The same for what is carried without looking into it: up to the transport.
pub fn well_formed_ip(bytes: &[u8], offload: Offload) -> Ip {
    let mut buf = PacketBuf::from_bytes(bytes);
    buf.offload = offload;
    let view = buf.parse();
    assert!(view.is_ok(), "our parser refuses our output: {view:?} {bytes:02x?}");
    assert_eq!(buf.len(), bytes.len(), "bytes behind the packet");
    let ip = match naive::read(bytes, true) {
        Ok(ip) => ip,
        Err(e) => panic!("output with bad {e}: {bytes:02x?}"),
    };
    assert_eq!(ip.len, bytes.len(), "output of another length than its header says");
    // An Authentication Header is carried as it came; etherparse would read it, too.
    let headers = match bytes[0] >> 4 {
        4 if ip.protocol == AUTHENTICATION => {
            etherparse::Ipv4HeaderSlice::from_slice(bytes).err().map(|e| e.to_string())
        }
        6 if ip.protocol == AUTHENTICATION => {
            etherparse::Ipv6HeaderSlice::from_slice(bytes).err().map(|e| e.to_string())
        }
        _ => etherparse::IpHeaders::from_slice(bytes).err().map(|e| e.to_string()),
    };
    assert!(headers.is_none(), "etherparse refuses our output: {headers:?} {bytes:02x?}");
    match view {
        Ok(View::V4(v)) => assert_eq!((v.l4, v.total_len), (ip.l4, ip.len)),
        Ok(View::V6(v)) => assert_eq!((v.l4, v.total_len), (ip.l4, ip.len)),
        Err(_) => {}
    }
    // B-01 and RFC 7915 §4.1: no options, no extension header but a Fragment Header; C-02: no flow label.
    assert!(!ip.has_options && ip.flow_label == 0 && !ip.routed, "{bytes:02x?}");
    // C-13: no atomic fragments.
    assert!(!ip.has_fragment_header || ip.fragment.is_some(), "atomic fragment {bytes:02x?}");
    ip
}

/// Length of the longest segment that this packet will be on a wire.
pub fn segment_len(bytes: &[u8], ip: &Ip, offload: &Offload) -> usize {
    match offload.gso {
        Some(gso) => (ip.l4 + l4_header(&bytes[ip.l4..], ip) + usize::from(gso.size)).min(ip.len),
        None => ip.len,
    }
}

fn l4_header(l4: &[u8], ip: &Ip) -> usize {
    if ip.protocol == naive::TCP { usize::from(l4[12] >> 4) * 4 } else { 8 }
}

/// Whether this is an echo of its family.
pub fn is_echo(l4: &[u8], ip: &Ip) -> bool {
    let kinds = if ip.is_v6() { [128, 129] } else { [8, 0] };
    ip.protocol == ip.icmp() && l4.first().is_some_and(|kind| kinds.contains(kind))
}

/// Checks that `out` is the translation of the TCP, UDP or echo packet `input`.
pub fn translated(input: &[u8], offload: Offload, out: &[Sent], rules: &Rules) {
    let from = match naive::read(input, true) {
        Ok(ip) => ip,
        Err(e) => panic!("translated although of bad {e}"),
    };
    assert!(!from.routed, "source route or segments left must not be translated (B-11, C-09)");
    assert_eq!(naive::transport(input, &from), Ok(()), "translated although the transport is broken");
    let input = &input[..from.len];
    let datagrams = join(out);
    let to_v6 = datagrams[0].ip.is_v6();
    assert!(to_v6 != from.is_v6() || rules.hairpinned, "same family");
    for (bytes, offload) in out {
        let ip = well_formed(bytes, *offload);
        assert_eq!(ip.tos, from.tos, "B-02, C-01");
        assert_eq!(ip.hops, rules.hops, "B-08, C-05: {} came in", from.hops);
        check_length(bytes, &ip, offload, (input, &from), rules);
    }
    if let [datagram] = &datagrams[..] {
        check_content(&input[from.l4..], &from, datagram, rules.mss);
        check_checksum(input, &from, offload, datagram);
        return;
    }
    let parts = super_parts(&from, offload);
    assert_eq!(datagrams.len(), parts.len(), "number of datagrams");
    for (datagram, part) in datagrams.iter().zip(parts) {
        let mut l4 = input[from.l4..from.l4 + 8].to_vec();
        l4.extend(&input[part]);
        let len = l4.len() as u16;
        naive::put(&mut l4, 4, len);
        check_content(&l4, &from, datagram, None);
        check_checksum(input, &from, offload, datagram);
    }
}

/// The payloads of a UDP super-packet, one for each datagram.
fn super_parts(from: &Ip, offload: Offload) -> Vec<std::ops::Range<usize>> {
    let Some(Gso { kind: GsoKind::Udp, size, .. }) = offload.gso else {
        panic!("several datagrams from a packet that was none of several");
    };
    let start = from.l4 + 8;
    (start..from.len)
        .step_by(usize::from(size))
        .map(|at| at..(at + usize::from(size)).min(from.len))
        .collect()
}

/// Puts fragments together. They must come in order, fit each other, and be of one datagram after the other.
fn join(out: &[Sent]) -> Vec<Datagram> {
    let mut all: Vec<Datagram> = Vec::new();
    let mut open = false;
    for (bytes, offload) in out {
        let ip = well_formed(bytes, *offload);
        let payload = &bytes[ip.l4..];
        let Some((offset, more)) = ip.fragment else {
            assert!(!open, "a datagram ends without its last piece");
            let datagram = Datagram { ip, l4: payload.to_vec(), offload: *offload, in_pieces: false };
            all.push(datagram);
            continue;
        };
        assert_eq!(*offload, Offload::default(), "a piece leaves nothing to be done");
        assert!(!more || payload.len() % 8 == 0, "RFC 8200 §4.5: pieces of whole 8 bytes");
        if !open {
            assert_eq!(offset, 0, "E-20: first piece first");
            all.push(Datagram { ip, l4: Vec::new(), offload: *offload, in_pieces: true });
        }
        let Some(last) = all.last_mut() else { return all };
        assert_eq!(offset, last.l4.len(), "pieces without gap or overlap");
        assert_eq!(
            (ip.src, ip.dst, ip.id, ip.protocol),
            (last.ip.src, last.ip.dst, last.ip.id, last.ip.protocol)
        );
        last.l4.extend(payload);
        open = more;
    }
    assert!(!open, "a datagram ends without its last piece");
    assert!(!all.is_empty(), "nothing came out");
    all
}

/// B-06, B-21, B-22, C-10, C-11, E-19: nothing longer than its next hop takes, DF as the RFC says.
fn check_length(bytes: &[u8], ip: &Ip, offload: &Offload, (input, from): (&[u8], &Ip), rules: &Rules) {
    let segment = segment_len(bytes, ip, offload);
    if ip.is_v6() {
        let may_be_cut = rules.reassembled || !has_df(input, from, *offload, rules);
        let tcp_super = matches!(offload.gso, Some(gso) if gso.kind == GsoKind::Tcp);
        let limit = match may_be_cut && !tcp_super {
            true => rules.mtu6.min(rules.lowest_ipv6_mtu),
            false => rules.mtu6,
        };
        assert!(segment <= limit, "{segment} bytes, {limit} fit");
        assert!(ip.fragment.is_none() || may_be_cut, "E-19: cut in spite of DF");
        return;
    }
    // A super-packet without DF may be cut by the kernel behind us; every other one must fit.
    let kernel_cuts = offload.gso.is_some() && !ip.df;
    assert!(segment <= rules.mtu4 || kernel_cuts, "{segment} bytes, {} fit", rules.mtu4);
    if !from.is_v6() {
        return;
    }
    if ip.fragment.is_some() {
        assert!(!ip.df, "pieces without DF");
    } else if from.has_fragment_header || rules.reassembled {
        assert!(!ip.df, "E-08: DF = 0 behind a Fragment Header");
        if !rules.reassembled {
            assert_eq!(ip.id, from.id & 0xffff, "E-08, E-14: the identification of the Fragment Header");
        }
    } else {
        assert_eq!(ip.df, segment > 1260, "B-06 at {segment}");
    }
}

/// DF of the IPv4 form; a hairpinned packet gets its own on the way (B-06).
fn has_df(input: &[u8], from: &Ip, offload: Offload, rules: &Rules) -> bool {
    match rules.hairpinned {
        false => from.df,
        true => !from.has_fragment_header && segment_len(input, from, &offload) - from.l4 + 20 > 1260,
    }
}

/// Nothing but addresses, ports and checksums changes.
fn check_content(l4: &[u8], from: &Ip, out: &Datagram, mss: Option<u16>) {
    let to = &out.ip;
    match from.protocol {
        naive::TCP => {
            assert_eq!(to.protocol, naive::TCP);
            let header = usize::from(l4[12] >> 4) * 4;
            assert_eq!(l4.len(), out.l4.len());
            assert_eq!(l4[4..16], out.l4[4..16], "TCP header");
            assert_eq!(l4[18..20], out.l4[18..20], "TCP urgent pointer");
            let options = match mss {
                Some(most) if l4[13] & 2 != 0 => clamped(&l4[20..header], most),
                _ => l4[20..header].to_vec(),
            };
            assert_eq!(options, out.l4[20..header], "TCP options");
            assert_eq!(l4[header..], out.l4[header..], "TCP payload");
        }
        naive::UDP => {
            assert_eq!(to.protocol, naive::UDP);
            assert_eq!(l4[4..6], out.l4[4..6], "UDP length");
            assert_eq!(l4[8..], out.l4[8..], "UDP payload");
        }
        p if p == from.icmp() => {
            assert_eq!(to.protocol, to.icmp());
            let kinds = |ip: &Ip| if ip.is_v6() { [128, 129] } else { [8, 0] };
            let which = kinds(from).iter().position(|k| *k == l4[0]);
            assert_eq!(Some(out.l4[0]), which.map(|i| kinds(to)[i]), "D-01, D-02, D-22, D-23");
            assert_eq!(l4[1], out.l4[1], "echo code");
            assert_eq!(l4[6..], out.l4[6..], "echo sequence and payload");
        }
        other => panic!("protocol {other} was translated"),
    }
}

/// TCP options with the announced segment size lowered to `most`.
fn clamped(options: &[u8], most: u16) -> Vec<u8> {
    let mut out = options.to_vec();
    let mut at = 0;
    while at + 1 < out.len() && out[at] != 0 {
        if out[at] == 1 {
            at += 1;
            continue;
        }
        let len = usize::from(out[at + 1]);
        if len < 2 {
            break;
        }
        if out[at] == 2 && len == 4 {
            if at + 4 <= out.len() {
                let lowered = word(&out, at + 2).min(most);
                naive::put(&mut out, at + 2, lowered);
            }
            break;
        }
        at += len;
    }
    out
}

/// B-16, B-17, C-17, C-18: right stays right, wrong stays wrong, missing is made.
fn check_checksum(input: &[u8], from: &Ip, offload: Offload, out: &Datagram) {
    let whole = pretend_whole(out);
    let (bytes, ip) = (&whole.0, &whole.1);
    let is_v4_without = !from.is_v6() && from.protocol == naive::UDP && word(&input[from.l4..], 6) == 0;
    match (offload.checksum, out.offload.checksum) {
        (Checksum::Partial { .. }, Checksum::Partial { .. }) => {
            assert_eq!(is_partial_right(bytes, ip), is_partial_right(input, from), "partial checksum");
        }
        // Finished here, from scratch.
        (Checksum::Partial { .. }, Checksum::Complete) => {
            assert!(out.in_pieces || offload.gso.is_some(), "finished without need");
            assert_eq!(naive::is_checksum_right(bytes, ip), Some(true), "finished checksum");
        }
        (Checksum::Complete, Checksum::Partial { .. }) => {
            assert!(is_v4_without && offload.gso.is_some(), "unfinished without need");
            assert!(is_partial_right(bytes, ip), "partial checksum made here");
        }
        // A super-packet with a finished checksum: no kernel makes one; it is only carried on.
        (Checksum::Complete, Checksum::Complete) if offload.gso.is_some() => {}
        (Checksum::Complete, Checksum::Complete) => {
            let expected = if is_v4_without { Some(true) } else { naive::is_checksum_right(input, from) };
            assert_eq!(naive::is_checksum_right(bytes, ip), expected, "B-16, B-17");
        }
    }
}

/// The datagram as one packet, however long.
fn pretend_whole(datagram: &Datagram) -> (Vec<u8>, Ip) {
    let mut ip = datagram.ip;
    ip.fragment = None;
    ip.l4 = 0;
    ip.len = datagram.l4.len();
    (datagram.l4.clone(), ip)
}

/// Whether the checksum field holds the folded sum of the pseudo-header.
fn is_partial_right(bytes: &[u8], ip: &Ip) -> bool {
    let l4 = &bytes[ip.l4..ip.len];
    // What lies behind a datagram is not part of it (RFC 768).
    let (at, len) = if ip.protocol == naive::TCP { (16, l4.len()) } else { (6, word(l4, 4).into()) };
    // In one's complement 0 and 0xffff are the same number.
    let same = |a: u16, b: u16| a == b || a ^ b == 0xffff && (a == 0 || b == 0);
    same(word(l4, at), naive::sum(&[&naive::pseudo(ip, ip.protocol, len)]))
}

/// Checks an ICMP error that the gateway sent of its own accord about `input`.
pub fn originated(input: &[u8], offload: Offload, out: &Sent) {
    let (bytes, out_offload) = out;
    assert_eq!(*out_offload, Offload::default());
    let to = well_formed(bytes, *out_offload);
    let Ok(from) = naive::read(input, true) else { panic!("an error about a broken packet") };
    assert_eq!(to.is_v6(), from.is_v6(), "the sender's own family");
    assert_eq!(to.dst, from.src, "to the sender");
    assert!(naive::is_icmp_error(bytes, &to));
    assert_eq!(naive::is_checksum_right(bytes, &to), Some(true));
    // D-67: never about errors, later fragments, or towards a group.
    assert!(!naive::is_icmp_error(input, &from), "an error about an error");
    assert!(from.fragment.is_none_or(|(offset, _)| offset == 0), "an error about a later fragment");
    assert!(!from.dst.is_multicast() && !from.src.is_multicast() && !from.src.is_unspecified());
    // D-64.
    assert!(bytes.len() <= if to.is_v6() { 1280 } else { 576 }, "{} bytes", bytes.len());
    let message = &bytes[to.l4..];
    let (quote, segment) = (&message[8..], segment_len(input, &from, &offload));
    if offload == Offload::default() {
        assert_eq!(*quote, input[..quote.len()], "the quote is the packet");
        assert!(quote.len() == from.len || bytes.len() == if to.is_v6() { 1280 } else { 576 });
    } else {
        check_quoted_segment(quote, &from, offload, segment);
    }
    let mtu = naive::long(message, 4) as usize;
    match (to.is_v6(), message[0], message[1]) {
        // D-43, and a Packet Too Big that asks for no less than was sent would never end.
        (true, 2, 0) => assert!(mtu >= 1280 && mtu < segment, "MTU {mtu} about {segment}"),
        (false, 3, 4) => assert!(mtu >= 68 && mtu < segment, "MTU {mtu} about {segment}"),
        _ => {}
    }
}

/// A quoted super-packet looks like its first segment (design rule 10).
fn check_quoted_segment(quote: &[u8], from: &Ip, offload: Offload, segment: usize) {
    // The quote may end in the extension headers.
    let Ok(quoted) = naive::read(quote, false) else { return assert!(quote.len() < from.l4) };
    assert_eq!((quoted.src, quoted.dst, quoted.protocol), (from.src, from.dst, from.protocol));
    assert_eq!(quoted.len, segment, "length of the quoted segment");
    if quote.len() == segment && matches!(offload.checksum, Checksum::Partial { .. }) {
        assert_eq!(naive::is_checksum_right(quote, &quoted), Some(true), "checksum of the quoted segment");
    }
}
