//! What a kernel or a network card does with a super-packet behind us: cut it into segments and finish their
//! checksums. Written from the virtio specification and RFC 9293 / RFC 768, with etherparse for the sums.

use etherparse::checksum::Sum16BitWords;
use sampan::wire::packet::{Checksum, GsoKind, Offload};

use super::packet::{CWR, FIN, PSH, Packet};

/// Cuts `bytes` as `offload` says. Panics when the offload data is not what a kernel would need to do it.
pub fn segments(bytes: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let v6 = bytes[0] >> 4 == 6;
    let ip_len = if v6 { 40 } else { 20 };
    if let Checksum::Partial { start, field } = offload.checksum {
        assert_eq!(usize::from(start), ip_len, "csum_start is where the transport starts");
        let at = ip_len + usize::from(field);
        let partial = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let pseudo = !sum(bytes, ip_len, bytes.len() - ip_len).ones_complement().to_be();
        assert_eq!(partial % 0xffff, pseudo % 0xffff, "the field holds the sum of the pseudo-header");
    }
    let Some(gso) = offload.gso else {
        let mut whole = bytes.to_vec();
        if let Checksum::Partial { field, .. } = offload.checksum {
            finish(&mut whole, ip_len, usize::from(field));
        }
        return vec![whole];
    };
    assert!(matches!(offload.checksum, Checksum::Partial { .. }), "segments need their checksums computed");
    let (l4_len, field) = match gso.kind {
        GsoKind::Tcp => (usize::from(bytes[ip_len + 12] >> 4) * 4, 16),
        GsoKind::Udp => (8, 6),
    };
    assert_eq!(usize::from(offload.header_len), ip_len + l4_len, "hdr_len covers IP and transport headers");
    let (headers, payload) = bytes.split_at(ip_len + l4_len);
    let chunks: Vec<_> = payload.chunks(usize::from(gso.size)).collect();
    let last = chunks.len() - 1;
    let mut out = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let mut one = [headers, chunk].concat();
        let len = one.len() as u16;
        if v6 {
            one[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        } else {
            one[2..4].copy_from_slice(&len.to_be_bytes());
            let id = u16::from_be_bytes([one[4], one[5]]).wrapping_add(i as u16);
            one[4..6].copy_from_slice(&id.to_be_bytes());
            one[10..12].fill(0);
            let sum = Sum16BitWords::new().add_slice(&one[..20]).ones_complement().to_be();
            one[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        match gso.kind {
            GsoKind::Tcp => {
                let seq = u32::from_be_bytes(one[ip_len + 4..ip_len + 8].try_into().unwrap());
                let seq = seq.wrapping_add((i * usize::from(gso.size)) as u32);
                one[ip_len + 4..ip_len + 8].copy_from_slice(&seq.to_be_bytes());
                if i < last {
                    one[ip_len + 13] &= !(FIN | PSH);
                }
                if i > 0 {
                    one[ip_len + 13] &= !CWR;
                }
            }
            GsoKind::Udp => {
                let len = (one.len() - ip_len) as u16;
                one[ip_len + 4..ip_len + 6].copy_from_slice(&len.to_be_bytes());
            }
        }
        finish(&mut one, ip_len, field);
        out.push(one);
    }
    out
}

/// The segments, each judged by etherparse.
pub fn parsed(bytes: &[u8], offload: &Offload) -> Vec<Packet> {
    segments(bytes, offload).iter().map(|s| Packet::parse(s).unwrap()).collect()
}

/// Puts the sum of the pseudo-header into the checksum field of a finished packet without options or extension
/// headers, as a sender with checksum offload does, and says so.
pub fn make_partial(bytes: &mut [u8], offload: &mut Offload) {
    let ip_len = if bytes[0] >> 4 == 6 { 40 } else { 20 };
    let protocol = if ip_len == 40 { bytes[6] } else { bytes[9] };
    let field = if protocol == 6 { 16 } else { 6 };
    let pseudo = !sum(bytes, ip_len, bytes.len() - ip_len).ones_complement().to_be();
    bytes[ip_len + field..ip_len + field + 2].copy_from_slice(&pseudo.to_be_bytes());
    offload.checksum = Checksum::Partial { start: ip_len as u16, field: field as u16 };
    let l4_len = if protocol == 6 { usize::from(bytes[ip_len + 12] >> 4) * 4 } else { 8 };
    offload.header_len = (ip_len + l4_len) as u16;
}

/// Puts the pieces of one IPv6 datagram together again.
pub fn reassemble6(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut id = None;
    for (i, piece) in pieces.iter().enumerate() {
        assert_eq!((piece[0] >> 4, piece[6]), (6, 44), "a fragment header follows the base header");
        assert_eq!(usize::from(u16::from_be_bytes([piece[4], piece[5]])) + 40, piece.len());
        let offset_more = u16::from_be_bytes([piece[42], piece[43]]);
        assert_eq!(
            usize::from(offset_more & 0xfff8),
            whole.len().saturating_sub(40),
            "in order, without gaps"
        );
        assert_eq!(offset_more & 1 != 0, i + 1 < pieces.len(), "more fragments until the last one");
        let this = &piece[44..48];
        assert_eq!(*id.get_or_insert(this), this, "one identification");
        if i == 0 {
            whole.extend(&piece[..40]);
            whole[6] = piece[40];
        }
        whole.extend(&piece[48..]);
    }
    let len = (whole.len() - 40) as u16;
    whole[4..6].copy_from_slice(&len.to_be_bytes());
    whole
}

/// Sum of the pseudo-header for a transport of `len` bytes.
fn sum(bytes: &[u8], ip_len: usize, len: usize) -> Sum16BitWords {
    if ip_len == 40 {
        Sum16BitWords::new()
            .add_slice(&bytes[8..40])
            .add_4bytes((len as u32).to_be_bytes())
            .add_2bytes([0, bytes[6]])
    } else {
        Sum16BitWords::new()
            .add_slice(&bytes[12..20])
            .add_2bytes((len as u16).to_be_bytes())
            .add_2bytes([0, bytes[9]])
    }
}

fn finish(bytes: &mut [u8], ip_len: usize, field: usize) {
    let at = ip_len + field;
    bytes[at..at + 2].fill(0);
    let pseudo = sum(bytes, ip_len, bytes.len() - ip_len);
    let sum = pseudo.add_slice(&bytes[ip_len..]);
    let sum = if field == 6 { sum.to_ones_complement_with_no_zero() } else { sum.ones_complement() };
    bytes[at..at + 2].copy_from_slice(&sum.to_be().to_be_bytes());
}
