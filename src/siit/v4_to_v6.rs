//! From IPv4 to IPv6 (RFC 7915 §4).

use super::settings::ZeroChecksum;
use super::v6_to_v4::IGMP;
use super::{Siit, Turn, sent};
use crate::addr::is_illegal_source4;
use crate::nat64::engine::Sink;
use crate::verdict::{DropReason, Sent, Verdict};
use crate::wire::icmp::Icmp;
use crate::wire::ipv4::View4;
use crate::wire::ipv6::FRAGMENT;
use crate::wire::l4::{self, Payload};
use crate::wire::packet::{Checksum, PacketBuf};
use crate::xlat::eam::Home;
use crate::xlat::{Delta, FlowPair, Notice, Refusal, Rewrite, frag, v4_to_v6};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

impl Siit {
    #[inline]
    pub(super) fn v4_to_v6(
        &mut self,
        view: &View4,
        packet: &mut PacketBuf,
        turn: Turn,
        sink: &mut impl Sink,
    ) -> Result<Verdict, Refusal> {
        // Groups cannot be mapped (RFC 7915 §1.2), and nothing is said about them.
        if is_illegal_source4(view.dst) {
            return Err(DropReason::IllegalDestination.into());
        }
        if matches!(view.payload, Payload::Icmp(Icmp::Error { .. })) {
            return self.error4(view, packet, turn, sink);
        }
        // RFC 7915 §4.1: silently.
        if is_illegal_source4(view.src) {
            return Err(DropReason::IllegalSource.into());
        }
        let mapping = &self.settings.mapping;
        let (src6, dst6) = {
            let dst = mapping.to_v6(view.dst);
            if dst.home == Home::V4 {
                return Err(DropReason::NotPool4.with(Notice::Prohibited));
            }
            if dst.by_prefix {
                mapping.check_carried(view.dst).map_err(|reason| reason.with(Notice::Prohibited))?;
            }
            // RFC 7757 §4.2.1 rule 1.
            let hide = self.hides_mappings(turn);
            let src = if hide { mapping.embed(view.src) } else { mapping.to_v6(view.src) };
            if src.by_prefix {
                mapping.check_peer(view.src).map_err(|reason| reason.with(Notice::Prohibited))?;
            }
            (src.addr, dst.addr)
        };
        let (src_port, dst_port) = match view.payload {
            Payload::Tcp(tcp) => (tcp.src, tcp.dst),
            Payload::Udp(udp) => {
                let none = udp.no_checksum && packet.offload.checksum == Checksum::Complete;
                if none && self.settings.udp_zero_checksum == ZeroChecksum::Drop {
                    return Err(DropReason::UdpNoChecksum.with(Notice::Prohibited));
                }
                (udp.src, udp.dst)
            }
            Payload::Icmp(Icmp::Echo { id, .. }) => (id, 0),
            // RFC 7915 §4.2: silently.
            Payload::Icmp(_) => return Err(DropReason::IcmpType.into()),
            // RFC 7915 §4.2 for IGMP. The others would be read as headers of IPv6 that no IPv6 node has sent.
            Payload::Fragment | Payload::Other(_)
                if matches!(
                    view.protocol,
                    IGMP | l4::ICMPV6 | HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
                ) =>
            {
                return Err(DropReason::ProtocolRefused.into());
            }
            Payload::Fragment | Payload::Other(_) => (0, 0),
        };
        let flow = FlowPair {
            src6,
            port6: src_port,
            dst6,
            src4: view.src,
            port4: src_port,
            dst4: view.dst,
            peer_port: dst_port,
        };
        let delta = Delta::v6_to_v4(&flow).reversed();
        let rewrite = Rewrite { src: src6, dst: dst6, src_port, dst_port, delta };
        // Nothing is put together here.
        let context = self.context6(turn, view.id.into());
        let plan = v4_to_v6::plan(view, packet, &rewrite, &context)?;
        plan.apply(packet);
        let Some(cut) = plan.cut else { return Ok(sent(sink.send(packet, Sent::Translated))) };
        let mut accepted = true;
        frag::cut(packet, cut, &mut self.scratch, |piece| accepted &= sink.send(piece, Sent::Piece));
        Ok(sent(accepted))
    }

    /// What a translation to IPv6 goes by.
    pub(super) const fn context6(&self, turn: Turn, id: u32) -> v4_to_v6::Context {
        let mtu = self.settings.mtu;
        v4_to_v6::Context {
            hop: self.hop(turn),
            mtu6: mtu.v6,
            mtu4: mtu.v4,
            lowest_ipv6_mtu: mtu.lowest_ipv6,
            id,
            mss: self.settings.mss_clamp,
            traffic_class: self.settings.classes.traffic_class,
        }
    }
}
