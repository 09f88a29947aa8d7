use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;

#[path = "../../../../tests/support/rng.rs"]
#[allow(dead_code, reason = "shared with the tests beside the crate")]
mod rng;
use rng::Rng;

fn index(lines: usize) -> Index<Vec<Line>> {
    Index::new((0..lines).map(|_| Line::default()).collect::<Vec<_>>()).unwrap()
}

/// As the programs look: the line, and the next one when there is a mark.
fn find(index: &Index<Vec<Line>>, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
    let [home, next] = index.ways(hash).unwrap();
    let found = home.slots(tag(hash)).find(|slot| is_it(*slot));
    found.or_else(|| next.slots(tag(hash)).find(|slot| home.has_spilled() && is_it(*slot)))
}

fn spilled(index: &Index<Vec<Line>>) -> Vec<u32> {
    index.lines.iter().map(|line| line.spilled.load(Relaxed)).collect()
}

/// Puts in and takes out at random what falls into few lines, so that they spill and overflow. What `hash_of` says of a
/// key is what finds it.
fn churn(
    index: &Index<Vec<Line>>,
    seed: u64,
    hash_of: impl Fn(u64) -> u64,
    own: std::ops::Range<u32>,
) -> u32 {
    let mut rng = Rng(seed);
    let keys = u64::from(own.end - own.start) * 2;
    // Which key has a slot, and which slot a key.
    let mut model: HashMap<u64, u32> = HashMap::new();
    let mut free: Vec<u32> = own.collect();
    let mut refused = 0;
    for _ in 0..20_000 {
        let key = (seed << 32) | (rng.next() % keys);
        let hash = hash_of(key);
        match model.entry(key) {
            Occupied(known) => {
                let slot = *known.get();
                assert_eq!(find(index, hash, |s| s == slot), Some(slot));
                assert!(!index.insert(hash, slot, |s| s == slot), "twice");
                index.remove(hash, known.remove());
                assert_eq!(find(index, hash, |s| s == slot), None);
                free.push(slot);
            }
            Vacant(unknown) => {
                let Some(slot) = free.pop() else { continue };
                if index.insert(hash, slot, |_| false) {
                    unknown.insert(slot);
                } else {
                    refused += 1;
                    free.push(slot);
                }
            }
        }
    }
    for (key, slot) in model {
        assert_eq!(find(index, hash_of(key), |s| s == slot), Some(slot));
        index.remove(hash_of(key), slot);
    }
    refused
}

#[test]
fn it_says_what_a_map_says_with_room_and_without() {
    for (lines, flows, is_full) in [(2, 64, true), (4, 64, true), (16, 64, false), (64, 256, false)] {
        let index = index(lines);
        let refused = churn(&index, 7, scatter, 0..flows);
        assert_eq!(refused > 0, is_full, "{lines} lines: {refused}");
        assert_eq!(spilled(&index), vec![0; lines]);
        assert!(index.lines.iter().all(|line| line.entries.iter().all(|e| e.load(Relaxed) == 0)));
    }
}

#[test]
fn workers_do_not_disturb_each_other() {
    let index = index(16);
    thread::scope(|scope| {
        for worker in 0..4_u32 {
            let index = &index;
            scope.spawn(move || churn(index, 1 + u64::from(worker), scatter, worker * 64..worker * 64 + 60));
        }
    });
    assert_eq!(spilled(&index), [0; 16]);
    assert!(index.lines.iter().all(|line| line.entries.iter().all(|e| e.load(Relaxed) == 0)));
}

#[test]
fn equal_hashes_are_told_apart_by_what_they_lead_to() {
    let index = index(4);
    for slot in 0..30 {
        assert!(index.insert(9, slot, |_| false), "{slot}");
    }
    assert_eq!(spilled(&index), [0, 15, 0, 0]);
    assert!(!index.insert(9, 30, |_| false), "both lines are full");
    assert_eq!(spilled(&index), [0, 15, 0, 0]);
    for slot in 0..30 {
        assert_eq!(find(&index, 9, |s| s == slot), Some(slot));
        assert!(!index.insert(9, 31, |s| s == slot), "{slot} is there");
    }
    assert_eq!(find(&index, 9, |_| false), None);
    // A hole in the first line hides nothing in the second.
    index.remove(9, 3);
    assert_eq!(find(&index, 9, |s| s == 29), Some(29));
    // Neither does a tag of zero find what is empty.
    assert_eq!(find(&index, 3, |_| true), None);
}

#[test]
fn what_a_dead_process_left_is_repaired() {
    let index = index(4);
    let hash_of = |slot: u32| if slot < 18 { 1 } else { 2 };
    for slot in 0..20 {
        assert!(index.insert(hash_of(slot), slot, |_| false));
    }
    assert_eq!(spilled(&index), [0, 3, 0, 0]);
    let [home, next] = index.ways(1).unwrap();
    // It died between the count and the entry, or between the entry and the count.
    home.spilled.fetch_add(1, Relaxed);
    index.repair(1, 20, hash_of);
    assert_eq!(spilled(&index), [0, 3, 0, 0]);
    assert!(next.take(entry(1, 17)));
    index.repair(1, 17, hash_of);
    assert_eq!(spilled(&index), [0, 2, 0, 0]);
    // Or in the middle of something that was in order: gone it is.
    index.repair(1, 16, hash_of);
    index.repair(1, 0, hash_of);
    assert_eq!(spilled(&index), [0, 1, 0, 0]);
    let found: Vec<_> =
        (0..20).filter(|slot| find(&index, hash_of(*slot), |s| s == *slot).is_some()).collect();
    assert_eq!(found, (1..16).chain(18..20).collect::<Vec<_>>());
}

#[test]
fn every_bit_of_a_key_and_of_the_seed_matters() {
    let mut rng = Rng(3);
    let mut key = [0_u32; KEY_WORDS];
    // How often each bit of the hash flips with each bit of the key.
    let mut flips = vec![[0_u32; 64]; KEY_WORDS * 32 + 64];
    let mut count = |bit: usize, difference: u64| {
        for (to, flipped) in flips[bit].iter_mut().enumerate() {
            *flipped += (difference >> to & 1) as u32;
        }
    };
    for _ in 0..1000 {
        let seed = rng.next();
        key = key.map(|_| rng.next() as u32);
        let hash = Secret::of(seed).hash(&key);
        for bit in 0..KEY_WORDS * 32 {
            let mut other = key;
            other[bit / 32] ^= 1 << (bit % 32);
            count(bit, hash ^ Secret::of(seed).hash(&other));
        }
        for bit in 0..64 {
            count(KEY_WORDS * 32 + bit, hash ^ Secret::of(seed ^ 1 << bit).hash(&key));
        }
    }
    let odd = flips.iter().enumerate().find(|(_, of)| of.iter().any(|n| !(400..=600).contains(n)));
    assert_eq!(odd, None);
}

#[test]
fn flows_of_few_hosts_and_neighbouring_ports_spread() {
    let secret = Secret::of(5);
    let lines = lines_for(1 << 16);
    let index = index(lines as usize);
    let places: Vec<AtomicU64> = (0..lines).map(|_| AtomicU64::new(0)).collect();
    for flow in 0..1_u32 << 16 {
        let ports = 53_u32.to_be() << 16 | (1024 + (flow & 0xfff)).to_be() >> 16;
        let key = [0x20, 0, 0, (1 + (flow >> 12)).to_be(), 0x64, 0, 0, 0x0100_00c6, ports, 17];
        let hash = secret.hash(&key);
        places[(hash as u32 & index.mask()) as usize].fetch_add(1, Relaxed);
        assert!(index.insert(hash, flow, |_| false));
    }
    let fullest = places.iter().map(|n| n.load(Relaxed)).max();
    assert!(fullest < Some(17), "{fullest:?}, 4 on average");
}

#[test]
fn there_is_room_for_any_number_of_flows() {
    for (flows, lines) in [(1, 16), (64, 16), (65, 32), (4096, 1024), (1_000_000, 1 << 18), (MOST, 1 << 22)] {
        assert_eq!(lines_for(flows), lines, "{flows}");
    }
    assert!(Index::new((0..3).map(|_| Line::default()).collect::<Vec<_>>()).is_none());
    assert_eq!(slot_of(entry(u64::MAX, MOST - 1)), Some(MOST - 1));
    assert_eq!(entry(0, 0), 1);
}
