//! From IPv6 to IPv4 (RFC 7915 §5), and back again when the destination is an IPv6 node (RFC 7757 §4.2.2).

use super::settings::Hairpin;
use super::{Siit, Turn, sent};
use crate::addr::is_illegal_source6;
use crate::nat64::engine::Sink;
use crate::verdict::{DropReason, Sent, Verdict};
use crate::wire::icmp::Icmp;
use crate::wire::ipv6::{View6, is_extension_header};
use crate::wire::l4::{self, Payload};
use crate::wire::packet::{PacketBuf, View};
use crate::xlat::eam::Home;
use crate::xlat::{Delta, FlowPair, Notice, Refusal, Rewrite, frag, v6_to_v4};

/// IGMP: what it says concerns one link only (RFC 7915 §4.2).
pub(super) const IGMP: u8 = 2;

impl Siit {
    #[inline]
    pub(super) fn v6_to_v4(
        &mut self,
        view: &View6,
        packet: &mut PacketBuf,
        sink: &mut impl Sink,
    ) -> Result<Verdict, Refusal> {
        // RFC 7915 §5.1: silently.
        if is_illegal_source6(view.src) {
            return Err(DropReason::IllegalSource.into());
        }
        if matches!(view.payload, Payload::Icmp(Icmp::Error { .. })) {
            return self.error6(view, packet, sink);
        }
        let mapping = &self.settings.mapping;
        let (src4, dst4, turns) = {
            let Some(dst) = mapping.to_v4(view.dst).filter(|dst| dst.home == Home::V4) else {
                return Err(DropReason::NotPool6.with(Notice::Prohibited));
            };
            let Some(src) = mapping.to_v4(view.src) else {
                return Err(DropReason::SourceNotMapped.with(Notice::Prohibited));
            };
            // An address that stands for an IPv4 node does not come from this side, unless somebody loops or lies.
            if src.home == Home::V4 {
                return Err(DropReason::SourceInPool6.into());
            }
            if src.by_prefix {
                mapping.check_carried(src.addr).map_err(|reason| reason.with(Notice::Prohibited))?;
            }
            if dst.by_prefix {
                if self.own_addresses.contains(&dst.addr) {
                    return Err(DropReason::OwnAddress.with(Notice::Prohibited));
                }
                mapping.check_peer(dst.addr).map_err(|reason| reason.with(Notice::Prohibited))?;
            }
            let explicit = dst.by_prefix && mapping.is_explicit_v6_node(dst.addr);
            (src.addr, dst.addr, explicit && self.settings.hairpin == Hairpin::Intrinsic)
        };
        let (src_port, dst_port) = match view.payload {
            Payload::Tcp(tcp) => (tcp.src, tcp.dst),
            Payload::Udp(udp) => (udp.src, udp.dst),
            Payload::Icmp(Icmp::Echo { id, .. }) => (id, 0),
            // RFC 7915 §5.2: silently.
            Payload::Icmp(_) => return Err(DropReason::IcmpType.into()),
            // RFC 7915 §5.1.1: dropped and counted.
            Payload::Fragment if is_extension_header(view.protocol) => {
                return Err(DropReason::ExtensionChain.into());
            }
            Payload::Fragment => (0, 0),
            Payload::Other(protocol) if view.fragment.is_some() && is_extension_header(protocol) => {
                return Err(DropReason::ExtensionChain.into());
            }
            // As IPv4 these would be messages of the translator's neighbours, not of the sender.
            Payload::Other(l4::ICMP | IGMP) => return Err(DropReason::ProtocolRefused.into()),
            Payload::Other(_) => (0, 0),
        };
        let flow = FlowPair {
            src6: view.src,
            port6: src_port,
            dst6: view.dst,
            src4,
            port4: src_port,
            dst4,
            peer_port: dst_port,
        };
        let rewrite = Rewrite { src: src4, dst: dst4, src_port, dst_port, delta: Delta::v6_to_v4(&flow) };
        let mtu = self.settings.mtu;
        // What turns back does not leave on the IPv4 side; it must fit the IPv6 side as it is.
        let mtu4 = if turns { mtu.v6.saturating_sub(20) } else { mtu.v4 };
        let segments = packet.segments(view.l4 + view.payload.header_len());
        let id = self.idents.next(src4, dst4, view.protocol, segments);
        let context = self.context4(mtu4, id);
        let plan = v6_to_v4::plan(view, packet, &rewrite, &context)?;
        plan.apply(packet);
        if turns {
            return Ok(self.turn(packet, sink));
        }
        let Some(mtu) = plan.cut else { return Ok(sent(sink.send(packet, Sent::Translated))) };
        let mut accepted = true;
        frag::cut4(packet, mtu, &mut self.scratch[0], |piece| accepted &= sink.send(piece, Sent::Piece));
        Ok(sent(accepted))
    }

    /// Translates an IPv4 packet that we have just made back to IPv6.
    pub(super) fn turn(&mut self, packet: &mut PacketBuf, sink: &mut impl Sink) -> Verdict {
        let view = match packet.parse() {
            Ok(View::V4(view)) => view,
            Ok(View::V6(_)) => return Verdict::Dropped(DropReason::BadVersion),
            Err(reason) => return Verdict::Dropped(reason),
        };
        match self.v4_to_v6(&view, packet, Turn::Second, sink) {
            Ok(verdict) => verdict,
            // There is no IPv4 sender to tell.
            Err(refusal) => Verdict::Dropped(refusal.reason),
        }
    }

    /// What a translation to IPv4 goes by, with packets of `mtu4` bytes at most.
    pub(super) const fn context4(&self, mtu4: u16, id: u16) -> v6_to_v4::Context {
        v6_to_v4::Context {
            hop: self.hop(Turn::First),
            mtu4,
            id,
            mss: self.settings.mss_clamp,
            tos: self.settings.classes.tos,
        }
    }
}
