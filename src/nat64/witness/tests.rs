use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;

fn segment(seq: u32, ack: u32, flags: u8, len: u32) -> Segment {
    Segment { seq, ack, window: 0x4000, flags: TcpFlags(flags), len, scale: None }
}

/// A connection whose client began at `a` and whose server began at `b`.
fn open(a: u32, b: u32) -> FlowWitness {
    let mut w = FlowWitness::of_syn(Side::V6, &segment(a, 0, SYN, 0));
    assert!(w.see(Side::V4, &segment(b, a.wrapping_add(1), SYN | ACK, 0)));
    assert!(w.see(Side::V6, &segment(a.wrapping_add(1), b.wrapping_add(1), ACK, 0)));
    w
}

#[test]
fn the_layout_is_fixed() {
    // A kernel program reads and writes these.
    assert_eq!(std::mem::offset_of!(FlowWitness, v4), 12);
    let offsets = [
        std::mem::offset_of!(Direction, end),
        std::mem::offset_of!(Direction, ack),
        std::mem::offset_of!(Direction, window),
        std::mem::offset_of!(Direction, scale),
        std::mem::offset_of!(Direction, flags),
    ];
    assert_eq!(offsets, [0, 4, 8, 10, 11]);
}

#[test]
fn f45_of_all_numbers_one_resets_an_idle_connection() {
    // Around the end of the circle, too.
    for b in [1000, u32::MAX - 1, u32::MAX, 0x7fff_ffff] {
        let w = open(7, b);
        let next = b.wrapping_add(1);
        for step in (1..=u32::MAX).step_by(65_521).chain([1, 2, u32::MAX, 0x8000_0000, 0x4000]) {
            let mut w = w;
            assert!(!w.see(Side::V4, &segment(next.wrapping_add(step), 8, RST, 0)), "{step} from {next}");
            assert!(!w.see(Side::V6, &segment(8_u32.wrapping_add(step), next, RST | ACK, 0)));
        }
        assert!({ w }.see(Side::V4, &segment(next, 0, RST, 0)));
        assert!({ w }.see(Side::V6, &segment(8, 0, RST, 0)));
    }
}

#[test]
fn f45_a_reset_may_be_before_or_behind_what_is_on_its_way() {
    let mut w = open(0, 1000);
    assert!(w.see(Side::V4, &segment(1001, 1, ACK, 500)));
    // The client may have taken none, some or all of the 500 bytes.
    for (seq, believed) in [(1000, false), (1001, true), (1200, true), (1501, true), (1502, false)] {
        assert_eq!({ w }.see(Side::V4, &segment(seq, 1, RST, 0)), believed, "{seq}");
    }
    assert!(w.see(Side::V6, &segment(1, 1501, ACK, 0)));
    assert!(!{ w }.see(Side::V4, &segment(1001, 1, RST, 0)));
}

#[test]
fn f45_a_syn_ack_must_answer_the_syn() {
    let w = FlowWitness::of_syn(Side::V6, &segment(5000, 0, SYN, 0));
    for ack in [0, 5000, 5002, 5001_u32.wrapping_add(1 << 31)] {
        assert!(!{ w }.see(Side::V4, &segment(1, ack, SYN | ACK, 0)), "{ack}");
    }
    // A bare SYN crosses the client's (simultaneous open): nothing can be checked, and nothing is lost by it, for the
    // true answer takes its place.
    let mut w = w;
    assert!(w.see(Side::V4, &segment(77, 0, SYN, 0)));
    assert!(w.see(Side::V4, &segment(900_000_000, 5001, SYN | ACK, 0)));
    assert!(w.see(Side::V6, &segment(5001, 900_000_001, ACK, 0)));
    assert!(w.see(Side::V4, &segment(900_000_001, 5001, ACK, 100)));
    // Once the client has taken it, no other one will do.
    assert!(!w.see(Side::V4, &segment(77, 5001, SYN | ACK, 0)));
    assert!(w.see(Side::V4, &segment(900_000_000, 5001, SYN | ACK, 0)), "the same one again");
}

#[test]
fn f45_fins_and_data_must_fit_the_window() {
    let w = open(0, 1000);
    for (seq, believed) in
        [(1001, true), (1001 + 60_000, true), (1001 + 70_000, false), (1001 - 66_000 - 4096, false)]
    {
        let seq = seq as u32;
        assert_eq!({ w }.see(Side::V4, &segment(seq, 1, FIN | ACK, 0)), believed, "{seq}");
        assert_eq!({ w }.see(Side::V4, &segment(seq, 1, ACK, 100)), believed, "{seq}");
        assert_eq!(
            { w }.see(Side::V6, &segment(seq.wrapping_sub(1000), 1001, FIN | ACK, 0)),
            believed,
            "{seq}"
        );
    }
    // It may not acknowledge what was never sent.
    assert!(!{ w }.see(Side::V4, &segment(1001, 2, ACK, 100)));
    assert!(!{ w }.see(Side::V4, &segment(1001, 0, TcpFlags::PSH, 100)), "no ACK flag");
}

#[test]
fn f45_windows_are_scaled_when_both_ends_said_so() {
    for (v6, v4, reach) in
        [(Some(7), Some(2), 0x4000_u32 << 7), (Some(7), None, REACH), (None, Some(9), REACH)]
    {
        let syn = Segment { scale: v6, ..segment(0, 0, SYN, 0) };
        let mut w = FlowWitness::of_syn(Side::V6, &syn);
        assert!(w.see(Side::V4, &Segment { scale: v4, ..segment(1000, 1, SYN | ACK, 0) }));
        assert!(w.see(Side::V6, &segment(1, 1001, ACK, 0)));
        assert!({ w }.see(Side::V4, &segment(1001 + reach, 1, ACK, 10)));
        assert!(!w.see(Side::V4, &segment(1002 + reach, 1, ACK, 10)));
    }
}

#[test]
fn f45_a_client_may_begin_anew_between_the_same_ports() {
    let mut w = open(0, 1000);
    // RFC 9293 §3.10.7.4: a server that still has the old connection answers with where it stands; the client resets it.
    assert!(w.see(Side::V6, &segment(700_000_000, 0, SYN, 0)));
    assert!(!w.see(Side::V4, &segment(1001, 1, ACK, 0)));
    assert!(!w.see(Side::V6, &segment(1, 0, RST, 0)), "not of the new connection");
    assert!(w.see(Side::V4, &segment(3_000_000_000, 700_000_001, SYN | ACK, 0)));
    assert!(w.see(Side::V6, &segment(700_000_001, 3_000_000_001, ACK, 0)));
    assert!(!{ w }.see(Side::V4, &segment(1001, 1, RST, 0)));
    assert!(w.see(Side::V4, &segment(3_000_000_001, 1, RST, 0)));
}

#[test]
fn f45_what_the_client_acknowledges_was_sent() {
    let mut w = open(0, 1000);
    // Whoever forwards the flow elsewhere may miss segments; the client's word brings us back.
    assert!(w.see(Side::V6, &segment(1, 500_000, ACK, 0)));
    assert!(w.see(Side::V4, &segment(500_000, 1, ACK, 100)));
    assert!({ w }.see(Side::V4, &segment(500_100, 1, RST, 0)));
}

#[test]
fn o14_quoted_segments_are_under_way() {
    let mut w = open(0, 1000);
    assert!(w.see(Side::V6, &segment(1, 1001, ACK, 500)));
    // All the 500 bytes, and what a keep-alive probe repeats.
    for (seq, yes) in [(0, true), (1, true), (300, true), (501, true), (502, false), (u32::MAX, false)] {
        assert_eq!(w.may_be_under_way(Side::V6, seq), yes, "{seq}");
    }
    assert!(w.see(Side::V4, &segment(1001, 501, ACK, 0)));
    assert!(!w.may_be_under_way(Side::V6, 1) && w.may_be_under_way(Side::V6, 500));
    assert!(w.may_be_under_way(Side::V4, 1001) && !w.may_be_under_way(Side::V4, 1003));
    // Of a side that never spoke nothing can be quoted.
    let w = FlowWitness::of_syn(Side::V6, &segment(0, 0, SYN, 0));
    assert!(w.may_be_under_way(Side::V6, 0) && !w.may_be_under_way(Side::V4, 0));
}

#[test]
fn options_that_lie_about_their_length_are_no_windows() {
    assert_eq!(window_scale(&[2, 4, 5, 180, 1, 3, 3, 7]), Some(7));
    assert_eq!(window_scale(&[3, 3, 200]), Some(MAX_SCALE));
    for options in [&[3, 3][..], &[3], &[], &[0, 3, 3, 7], &[8, 0, 3], &[8, 255, 3, 3, 7], &[3, 2, 7]] {
        assert_eq!(window_scale(options), None, "{options:?}");
    }
}

/// An honest end of a connection, which keeps data that comes out of order.
struct End {
    una: u32,
    next: u32,
    received: u32,
    kept: Vec<(u32, u32)>,
}

/// What an end does next; true is the client.
#[derive(Clone, Debug)]
enum Event {
    /// Sends this many bytes of new data, if the other end's window has room.
    Data(bool, u32, Way),
    /// Sends the oldest that is not acknowledged again, so many bytes of it.
    Again(bool, u32, Way),
    /// Acknowledges.
    Ack(bool, Way),
    /// A segment of this end that was delayed arrives.
    Late(bool),
}

/// How far a segment comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    LostBefore,
    LostBehind,
    Delayed,
    Arrives,
}

/// The window of both ends, not scaled: as wide as it gets without.
const WINDOW: u16 = u16::MAX;

fn event() -> impl Strategy<Value = Event> {
    let way = || {
        prop_oneof![
            1 => Just(Way::LostBefore), 1 => Just(Way::LostBehind), 1 => Just(Way::Delayed), 5 => Just(Way::Arrives)
        ]
    };
    prop_oneof![
        6 => (any::<bool>(), 1u32..20_000, way()).prop_map(|(end, len, way)| Event::Data(end, len, way)),
        2 => (any::<bool>(), 1u32..20_000, way()).prop_map(|(end, len, way)| Event::Again(end, len, way)),
        4 => (any::<bool>(), way()).prop_map(|(end, way)| Event::Ack(end, way)),
        2 => any::<bool>().prop_map(Event::Late),
    ]
}

impl End {
    fn take(&mut self, s: &Segment) {
        if is_between(self.una, s.ack, self.next) {
            self.una = s.ack;
        }
        if s.len > 0 {
            self.kept.push((s.seq, s.end()));
        }
        let behind =
            |received: u32, (from, to): &(u32, u32)| !is_before(received, *from) && is_before(received, *to);
        while let Some((_, to)) = self.kept.iter().find(|range| behind(self.received, range)) {
            self.received = *to;
        }
        self.kept.retain(|(_, to)| is_before(self.received, *to));
    }

    fn segment(&self, seq: u32, len: u32) -> Segment {
        Segment { seq, ack: self.received, window: WINDOW, flags: TcpFlags(ACK), len, scale: None }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is lost, delayed, doubled or reordered on either side of us between two honest ends: what is new to a
    /// receiver is believed, and at rest the RST and the FIN of both ends are, and nobody else's RST is.
    #[test]
    fn f45_honest_ends_are_believed(a: u32, b: u32, events in vec(event(), 0..200), guess in 1u32..) {
        let first = |isn: u32| isn.wrapping_add(1);
        let mut w = FlowWitness::of_syn(Side::V6, &Segment { window: WINDOW, ..segment(a, 0, SYN, 0) });
        let answer = Segment { window: WINDOW, ..segment(b, first(a), SYN | ACK, 0) };
        prop_assert!(w.see(Side::V4, &answer));
        let mut ends = [first(a), first(b)].map(|n| End { una: n, next: n, received: 0, kept: Vec::new() });
        ends[0].received = first(b);
        ends[1].received = first(a);
        prop_assert!(w.see(Side::V6, &ends[0].segment(first(a), 0)));
        let mut late = [VecDeque::new(), VecDeque::new()];
        // At the end everything is sent again until it has arrived.
        let settle = (0..8).flat_map(|_| {
            [true, false].into_iter().flat_map(|end| {
                [Event::Late(end), Event::Again(end, 65_535, Way::Arrives), Event::Ack(!end, Way::Arrives)]
            })
        });
        for event in events.into_iter().chain(settle) {
            let (client, seq, len, way) = match event {
                Event::Data(client, len, way) => {
                    let end = &mut ends[usize::from(!client)];
                    let seq = end.next;
                    let room = u32::from(WINDOW) - end.next.wrapping_sub(end.una);
                    let len = len.min(room);
                    end.next = seq.wrapping_add(len);
                    (client, seq, len, way)
                }
                Event::Again(client, len, way) => {
                    let end = &ends[usize::from(!client)];
                    (client, end.una, len.min(end.next.wrapping_sub(end.una)), way)
                }
                Event::Ack(client, way) => (client, ends[usize::from(!client)].next, 0, way),
                Event::Late(client) => {
                    let Some(s) = late[usize::from(!client)].pop_front() else { continue };
                    w.see(if client { Side::V6 } else { Side::V4 }, &s);
                    ends[usize::from(client)].take(&s);
                    continue;
                }
            };
            let s = ends[usize::from(!client)].segment(seq, len);
            match way {
                Way::LostBefore => continue,
                Way::Delayed => {
                    late[usize::from(!client)].push_back(s);
                    continue;
                }
                Way::LostBehind | Way::Arrives => {}
            }
            let believed = w.see(if client { Side::V6 } else { Side::V4 }, &s);
            prop_assert!(believed, "{client} {s:?} {w:?}");
            if way == Way::Arrives {
                ends[usize::from(client)].take(&s);
            }
        }
        prop_assert_eq!((ends[0].una, ends[1].una), (ends[0].next, ends[1].next), "at rest");
        for (side, end) in [(Side::V6, &ends[0]), (Side::V4, &ends[1])] {
            let own = Segment { flags: TcpFlags(RST), ..end.segment(end.next, 0) };
            prop_assert!({ w }.see(side, &own), "{side:?} {w:?}");
            let forged = Segment { seq: end.next.wrapping_add(guess), ..own };
            let believed = { w }.see(side, &forged);
            prop_assert!(!believed, "{side:?} {w:?}");
            let fin = Segment { flags: TcpFlags(FIN | ACK), ..own };
            prop_assert!({ w }.see(side, &fin), "{side:?} {w:?}");
        }
    }
}
