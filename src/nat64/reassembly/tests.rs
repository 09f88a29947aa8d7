use super::*;
use std::time::Duration;

const LIMITS: Fragments = Fragments {
    bytes: 64 << 10,
    datagrams: 8,
    datagrams_per_source: 3,
    pieces: 8,
    timeout: Duration::from_secs(2),
};

/// UDP datagram of `len` payload bytes from host number `host`, cut at `cuts` (offsets behind the IP header).
fn pieces6(host: u16, id: u32, len: usize, cuts: &[usize]) -> Vec<Vec<u8>> {
    let datagram = udp(len);
    spans(cuts, datagram.len())
        .map(|(from, to)| {
            let mut out = vec![0; 48];
            let header = ipv6::Header6 {
                traffic_class: 0,
                payload_len: (8 + to - from) as u16,
                next_header: ipv6::FRAGMENT,
                hop_limit: 64,
                src: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host),
                dst: "64:ff9b::c633:6401".parse().unwrap(),
            };
            header.write(out.first_chunk_mut().unwrap());
            let fragment = Fragment { offset: from as u16, more: to < datagram.len(), id };
            fragment.write(l4::UDP, out[40..].first_chunk_mut().unwrap());
            out.extend(&datagram[from..to]);
            out
        })
        .collect()
}

fn udp(len: usize) -> Vec<u8> {
    let mut datagram = vec![0x12, 0x34, 0, 53];
    datagram.extend(((8 + len) as u16).to_be_bytes());
    datagram.extend([0xab, 0xcd]);
    datagram.extend((0..len).map(|i| i as u8));
    datagram
}

fn spans(cuts: &[usize], end: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut bounds = vec![0];
    bounds.extend(cuts);
    bounds.push(end);
    (0..bounds.len() - 1).map(move |i| (bounds[i], bounds[i + 1]))
}

fn join(store: &mut Reassembly, now: u64, piece: &[u8]) -> (Joined, PacketBuf) {
    let mut packet = PacketBuf::from_bytes(piece);
    let view = packet.parse().unwrap();
    (store.join(Instant::from_secs(now), &view, &mut packet), packet)
}

fn empty(store: &Reassembly) -> bool {
    store.len() == 0
        && store.pieces.len() == 0
        && store.chunks.len() == 0
        && store.sources.len() == 0
        && (store.oldest, store.newest) == (NIL, NIL)
}

#[test]
fn e01_e06_all_orders_of_four_pieces() {
    let pieces = pieces6(1, 7, 4000, &[1400, 2800, 3600]);
    for order in 0..24 {
        let mut left: Vec<usize> = (0..4).collect();
        let mut store = Reassembly::new(LIMITS, 1);
        let mut n = order;
        for count in (1..=4).rev() {
            let piece = left.remove(n % count);
            n /= count;
            let (joined, mut packet) = join(&mut store, 0, &pieces[piece]);
            if count > 1 {
                assert_eq!(joined, Joined::Waiting);
                continue;
            }
            assert_eq!(joined, Joined::Whole { held: 3 });
            assert!(packet.reassembled);
            let View::V6(view) = packet.parse().unwrap() else { panic!() };
            assert!(view.fragment.unwrap().is_atomic());
            assert_eq!(&packet.bytes()[view.l4..], &udp(4000)[..]);
        }
        assert!(empty(&store));
    }
}

#[test]
fn e11_overlap_ends_the_whole_set_and_its_late_pieces() {
    let mut store = Reassembly::new(LIMITS, 1);
    let good = pieces6(1, 7, 2000, &[800, 1600]);
    let bad = pieces6(1, 7, 2000, &[792, 1600]);
    assert_eq!(join(&mut store, 0, &good[0]).0, Joined::Waiting);
    let refused = |held| Joined::Refused { reason: DropReason::FragmentOverlap, held };
    assert_eq!(join(&mut store, 0, &bad[1]).0, refused(1));
    assert_eq!(join(&mut store, 0, &good[1]).0, refused(0));
    assert_eq!(join(&mut store, 0, &good[2]).0, refused(0));
    assert_eq!(store.expire(Instant::from_secs(1)), None);
    assert_eq!(store.expire(Instant::from_secs(2)), Some(0));
    assert!(empty(&store));
}

#[test]
fn e12_an_exact_duplicate_does_no_harm() {
    let mut store = Reassembly::new(LIMITS, 1);
    let pieces = pieces6(1, 7, 2000, &[800]);
    assert_eq!(join(&mut store, 0, &pieces[1]).0, Joined::Waiting);
    let duplicate = Joined::Refused { reason: DropReason::FragmentDuplicate, held: 0 };
    assert_eq!(join(&mut store, 0, &pieces[1]).0, duplicate);
    let mut forged = pieces[1].clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(join(&mut store, 0, &pieces[0]).0, Joined::Whole { held: 1 });
    assert_eq!(join(&mut store, 0, &pieces[1]).0, Joined::Waiting);
    assert_eq!(
        join(&mut store, 0, &forged).0,
        Joined::Refused { reason: DropReason::FragmentOverlap, held: 1 }
    );
}

#[test]
fn e03_pieces_wait_two_seconds() {
    let mut store = Reassembly::new(LIMITS, 1);
    let pieces = pieces6(1, 7, 2000, &[800]);
    join(&mut store, 0, &pieces[0]);
    assert_eq!(store.expire(Instant::from_nanos(1_999_999_999)), None);
    assert_eq!(store.expire(Instant::from_secs(2)), Some(1));
    assert!(empty(&store));
}

#[test]
fn e02_e23_caps_of_source_and_store() {
    let mut store = Reassembly::new(LIMITS, 1);
    for id in 0..3 {
        assert_eq!(join(&mut store, 0, &pieces6(1, id, 2000, &[800])[0]).0, Joined::Waiting);
    }
    let limited = Joined::Refused { reason: DropReason::FragmentLimit, held: 0 };
    assert_eq!(join(&mut store, 0, &pieces6(1, 9, 2000, &[800])[0]).0, limited);
    for host in 2..7 {
        assert_eq!(join(&mut store, 0, &pieces6(host, 0, 2000, &[800])[0]).0, Joined::Waiting);
    }
    let full = Joined::Refused { reason: DropReason::FragmentStoreFull, held: 0 };
    assert_eq!(join(&mut store, 0, &pieces6(9, 0, 2000, &[800])[0]).0, full);
    while store.expire(Instant::from_secs(3)).is_some() {}
    assert!(empty(&store));
}

#[test]
fn e16_a_first_piece_without_ports_is_refused() {
    let mut store = Reassembly::new(LIMITS, 1);
    let mut tiny = pieces6(1, 7, 2000, &[8])[0].clone();
    assert_eq!(join(&mut store, 0, &tiny).0, Joined::Waiting);
    tiny[40] = l4::TCP;
    assert_eq!(join(&mut store, 0, &tiny).0, Joined::Refused { reason: DropReason::FragmentTiny, held: 0 });
}
