//! The probe of RFC 6146 §3.5.2.2: an empty TCP segment that an end of a living connection answers.

use std::net::Ipv6Addr;

use crate::wire::checksum::pseudo6;
use crate::wire::ipv6::{self, Header6};
use crate::wire::l4::{self, TcpFlags};
use crate::wire::packet::PacketBuf;

/// Length of a TCP header without options.
const TCP: usize = 20;
const HOPS: u8 = 64;

/// Builds the probe between two transport addresses in `out`: sequence and acknowledgement number 0, only the ACK flag.
pub fn build_probe6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), out: &mut PacketBuf) {
    let header = Header6 {
        traffic_class: 0,
        payload_len: TCP as u16,
        next_header: l4::TCP,
        hop_limit: HOPS,
        src: from.0,
        dst: to.0,
    };
    let mut bytes = [0; ipv6::HEADER + TCP];
    if let Some((front, tcp)) = bytes.split_first_chunk_mut() {
        header.write(front);
        tcp[0..2].copy_from_slice(&from.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.1.to_be_bytes());
        tcp[12] = ((TCP / 4) as u8) << 4;
        tcp[13] = TcpFlags::ACK;
        let sum = pseudo6(from.0, to.0, l4::TCP, TCP as u32).bytes(tcp).checksum();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    out.fill(&bytes);
}
