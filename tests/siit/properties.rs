//! What holds for every packet.

use proptest::collection::vec;
use proptest::prelude::*;

use sampan::nat64::engine::Sink;
use sampan::siit::event::Event;
use sampan::siit::settings::{Hairpin, ZeroChecksum};
use sampan::siit::{Place, Siit};
use sampan::time::Instant;
use sampan::verdict::{Sent, Settled, Verdict};
use sampan::wire::packet::{Offload, PacketBuf};

use crate::packet::{Packet, echo, error, raw, tcp, udp};
use crate::translator::{HOST4, HOST6, NODE4, NODE6, Translator, eam, settings, table};

/// Packets of every kind, in both directions.
fn any_packet() -> impl Strategy<Value = Packet> {
    let kinds = (0..9usize, vec(any::<u8>(), 0..1500), any::<bool>(), any::<u16>(), any::<bool>());
    kinds.prop_map(|(kind, data, to_v4, id, df)| {
        let (src, dst) = if to_v4 { (NODE6, HOST6) } else { (HOST4, NODE4) };
        let about = if to_v4 { udp(HOST6, NODE6, &data) } else { udp(NODE4, HOST4, &data) };
        let half = (data.len() / 16 * 8).max(8);
        let packet = match kind {
            0 => udp(src, dst, &data),
            1 => tcp(src, dst, &data),
            2 => echo(src, dst, false, &data),
            3 => raw(src, dst, 132, &data),
            4 => udp(src, dst, &data).piece(0, half, id.into()),
            5 => tcp(src, dst, &data).piece(0, half + 24, id.into()),
            6 if to_v4 => error(NODE6, 1, 0, 0, &about.bytes()),
            6 => error(HOST4, 3, 1, 0, &about.bytes()),
            7 if to_v4 => error("2001:db8::1234", 3, 0, 0, &about.bytes()),
            7 => error("203.0.113.1", 11, 0, 0, &about.piece(0, half, id.into()).bytes()),
            _ => udp(NODE6, "2001:db8:64::192.0.2.2", &data),
        };
        packet.with(|p| p.df = df && p.src.is_ipv4())
    })
}

fn translator() -> Translator {
    Translator::with(|s| {
        s.mapping.eam = table(vec![eam(NODE4, NODE6), eam("192.0.2.2", "2001:db8:6::12")]);
        s.interface_info = true;
        s.udp_zero_checksum = ZeroChecksum::Compute;
        s.mtu.v4 = 1000;
        s.hairpin = Hairpin::Intrinsic;
    })
}

proptest! {
    /// Whatever comes in, nothing panics, every packet has one fate, and what comes out is well-formed.
    #[test]
    fn damaged_packets_do_no_harm(
        packet in any_packet(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = packet.bytes();
        for (at, value) in damage {
            // Mostly the headers, whose bytes matter.
            let at = at.index(bytes.len().min(96));
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let mut t = translator();
        for (out, _) in t.send_raw(bytes, Offload::default()) {
            let out = Packet::parse(&out);
            prop_assert!(out.ttl > 0);
        }
    }

    /// An honest packet comes out whole, with a right checksum, in no piece longer than its side carries.
    #[test]
    fn honest_packets_keep_their_sums(packet in any_packet()) {
        let mut t = translator();
        for out in t.send(&packet) {
            let len = out.bytes().len();
            let limit = if out.src.is_ipv4() { 1000 } else { 1500 };
            prop_assert!(len <= limit, "{len} of {limit}");
            if out.fragment.is_none() && out.protocol != 132 {
                prop_assert!(out.sum_is_right(), "{out:?}");
            }
        }
    }

    /// I-15: to IPv4 and back, every field that both families have is the same again.
    #[test]
    fn i05_i06_b14_there_and_back(data in vec(any::<u8>(), 0..900), kind in 0..4usize, tos: u8) {
        let sent = match kind {
            0 => udp(NODE6, HOST6, &data),
            1 => tcp(NODE6, HOST6, &data),
            2 => echo(NODE6, HOST6, true, &data),
            _ => raw(NODE6, HOST6, 50, &data),
        }
        .with(|p| p.tos = tos);
        let mut t = Translator::default();
        let half = t.translate(&sent);
        // Sent back by a host that swaps the addresses; sums do not change by that.
        let answer = half.with(|p| std::mem::swap(&mut p.src, &mut p.dst));
        let back = t.translate(&answer).with(|p| std::mem::swap(&mut p.src, &mut p.dst));
        prop_assert_eq!((back.src, back.dst, back.tos, back.protocol), (sent.src, sent.dst, tos, sent.protocol));
        prop_assert_eq!(&back.payload, &sent.payload);
        prop_assert_eq!(back.ttl, sent.ttl - 2, "one hop each way");
    }
}

/// Counts what is sent and keeps nothing.
struct Counter(u32);

impl Sink for Counter {
    fn send(&mut self, _: &mut PacketBuf, _: Sent) -> bool {
        self.0 += 1;
        true
    }

    fn settle(&mut self, _: u32, _: Settled) {}
}

#[test]
fn c15_c16_events_name_addresses_and_ports_and_are_limited() {
    let now = Instant::from_secs(1);
    let mut siit = Siit::new(settings(), Place { worker: 0, workers: 1, seed: 1 }, now);
    let mut sink = Counter(0);
    let unsummed = udp(HOST4, NODE4, &[1; 100]).with(|p| p.payload[6..8].fill(0));
    for (packet, is_fragment) in [(unsummed.clone(), false), (unsummed.piece(0, 64, 1), true)] {
        let mut buf = PacketBuf::from_bytes(&packet.bytes());
        assert!(matches!(siit.handle(now, &mut buf, &mut sink), Verdict::Dropped(_)));
        let (src, dst) = (HOST4.parse().unwrap(), NODE4.parse().unwrap());
        let event = Event { src, src_port: 0x1234, dst, dst_port: 53, is_fragment };
        assert_eq!(siit.take_event(), Some(event));
        assert_eq!(siit.take_event(), None);
    }
    for _ in 0..1000 {
        let mut buf = PacketBuf::from_bytes(&unsummed.bytes());
        let _ = siit.handle(now, &mut buf, &mut sink);
    }
    let told = std::iter::from_fn(|| siit.take_event()).count();
    assert!((1..=10).contains(&told), "{told} events in no time");
}

/// What asks whether a worker works goes through the live mapping, and is nobody's traffic.
#[test]
fn a_canned_packet_goes_through_every_kind_of_mapping() {
    let mut changed = vec![settings()];
    changed.push({
        let mut settings = settings();
        settings.mapping.eam = table(Vec::new());
        settings.mapping.translatable4 = vec!["192.0.2.0/24".parse().unwrap()];
        settings
    });
    changed.push({
        let mut settings = settings();
        settings.mapping.eam = table(Vec::new());
        settings
    });
    for settings in changed {
        let mut siit = Siit::new(settings, Place { worker: 0, workers: 1, seed: 1 }, Instant::from_secs(1));
        assert_eq!(siit.canned(), Ok(()));
        assert_eq!((siit.take_event(), siit.suppressed_notices()), (None, 0));
    }
}
