//! A canned packet that is translated there and back, to see that a plan still works. It is nobody's: it leaves no
//! mapping and is never sent.

use std::net::{IpAddr, Ipv4Addr};

use super::{Delta, FlowPair, Refusal, Rewrite, v4_to_v6, v6_to_v4};
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, pseudo4, pseudo6};
use crate::wire::ipv6::{self, Header6};
use crate::wire::l4;
use crate::wire::packet::{PacketBuf, View};

/// Whom the canned packet is for: any global address will do (this one is of `a.root-servers.net`).
pub const PEER: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
/// The discard port of either side.
pub const PORT: u16 = 9;

const PAYLOAD: &[u8; 8] = b"sampan!\n";
const UDP: usize = 8 + PAYLOAD.len();

/// Why the canned packet did not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The translation was refused.
    Refused(DropReason),
    /// It was translated into something else than it should have been.
    Wrong,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.reason)
    }
}

impl From<DropReason> for Failure {
    fn from(reason: DropReason) -> Self {
        Self::Refused(reason)
    }
}

/// Sends a datagram of `flow` through both translators, in `scratch`, and compares what comes out with what went in.
pub fn there_and_back(
    flow: &FlowPair,
    to_v4: &v6_to_v4::Context,
    to_v6: &v4_to_v6::Context,
    scratch: &mut PacketBuf,
) -> Result<(), Failure> {
    build(flow, scratch);
    let delta = Delta::v6_to_v4(flow);
    let View::V6(view) = scratch.parse()? else { return Err(Failure::Wrong) };
    let rewrite =
        Rewrite { src: flow.src4, dst: flow.dst4, src_port: flow.port4, dst_port: flow.peer_port, delta };
    v6_to_v4::plan(&view, scratch, &rewrite, to_v4)?.apply(scratch);
    compare(scratch, (flow.src4.into(), flow.port4), (flow.dst4.into(), flow.peer_port))?;

    // The same bytes become what they were.
    let View::V4(view) = scratch.parse()? else { return Err(Failure::Wrong) };
    let rewrite = Rewrite {
        src: flow.src6,
        dst: flow.dst6,
        src_port: flow.port6,
        dst_port: flow.peer_port,
        delta: delta.reversed(),
    };
    v4_to_v6::plan(&view, scratch, &rewrite, to_v6)?.apply(scratch);
    compare(scratch, (flow.src6.into(), flow.port6), (flow.dst6.into(), flow.peer_port))
}

fn build(flow: &FlowPair, out: &mut PacketBuf) {
    let header = Header6 {
        traffic_class: 0,
        payload_len: UDP as u16,
        next_header: l4::UDP,
        hop_limit: 64,
        src: flow.src6,
        dst: flow.dst6,
    };
    let mut bytes = [0; ipv6::HEADER + UDP];
    if let Some((front, udp)) = bytes.split_first_chunk_mut() {
        header.write(front);
        udp[0..2].copy_from_slice(&flow.port6.to_be_bytes());
        udp[2..4].copy_from_slice(&flow.peer_port.to_be_bytes());
        udp[4..6].copy_from_slice(&(UDP as u16).to_be_bytes());
        udp[8..].copy_from_slice(PAYLOAD);
        let sum = match pseudo6(flow.src6, flow.dst6, l4::UDP, UDP as u32).bytes(udp).checksum() {
            0 => 0xffff,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    out.fill(&bytes);
}

/// Looks at the result with nothing but the bytes: ends, payload, and a checksum from scratch.
fn compare(packet: &mut PacketBuf, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Result<(), Failure> {
    let (ends, at, pseudo) = match packet.parse()? {
        View::V4(view) => {
            ((view.src.into(), view.dst.into()), view.l4, pseudo4(view.src, view.dst, l4::UDP, UDP as u32))
        }
        View::V6(view) => {
            ((view.src.into(), view.dst.into()), view.l4, pseudo6(view.src, view.dst, l4::UDP, UDP as u32))
        }
    };
    let udp = packet.bytes().get(at..).unwrap_or_default();
    let port = |at: usize| udp.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let sound = ends == (src.0, dst.0)
        && (port(0), port(2)) == (Some(src.1), Some(dst.1))
        && udp.get(8..) == Some(&PAYLOAD[..])
        && pseudo.plus(Sum::ZERO.bytes(udp)).checksum() == 0;
    if sound { Ok(()) } else { Err(Failure::Wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xlat::Hop;

    fn flow() -> FlowPair {
        FlowPair {
            src6: "2001:db8:6::1".parse().unwrap(),
            port6: PORT,
            dst6: "64:ff9b::c629:4".parse().unwrap(),
            src4: Ipv4Addr::new(192, 0, 2, 1),
            port4: 1024,
            dst4: PEER,
            peer_port: PORT,
        }
    }

    fn contexts() -> (v6_to_v4::Context, v4_to_v6::Context) {
        (
            v6_to_v4::Context { hop: Hop::More, mtu4: 1500, id: 0, mss: None, tos: None },
            v4_to_v6::Context {
                hop: Hop::More,
                mtu6: 1500,
                mtu4: 1500,
                lowest_ipv6_mtu: 1280,
                id: 0,
                mss: None,
                traffic_class: None,
            },
        )
    }

    #[test]
    fn it_comes_back() {
        let (to_v4, to_v6) = contexts();
        assert_eq!(there_and_back(&flow(), &to_v4, &to_v6, &mut PacketBuf::new()), Ok(()));
    }

    #[test]
    fn a_plan_that_does_not_work_is_told() {
        let (to_v4, to_v6) = contexts();
        let narrow = v4_to_v6::Context { hop: Hop::Less, ..to_v6 };
        let tired = v6_to_v4::Context { hop: Hop::Less, ..to_v4 };
        assert_eq!(there_and_back(&flow(), &tired, &narrow, &mut PacketBuf::new()), Ok(()));
        let mut packet = PacketBuf::new();
        build(&flow(), &mut packet);
        let (src, dst) = (flow().src6.into(), flow().dst6.into());
        assert_eq!(compare(&mut packet, (src, PORT), (dst, PORT)), Ok(()));
        assert_eq!(compare(&mut packet, (dst, PORT), (src, PORT)), Err(Failure::Wrong));
        for at in 0..packet.len() - ipv6::HEADER {
            build(&flow(), &mut packet);
            packet.bytes_mut()[ipv6::HEADER + at] ^= 1;
            assert!(compare(&mut packet, (src, PORT), (dst, PORT)).is_err(), "byte {at}");
        }
    }
}
