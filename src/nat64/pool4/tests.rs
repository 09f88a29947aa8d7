use super::*;
use crate::nat64::settings::Key;
use std::collections::HashSet;

fn settings(ranges: Vec<Pool4Range>) -> Settings {
    let mut settings = Settings::of_key(Key([1; 16]));
    settings.pool4.ranges = ranges;
    settings
}

fn range(prefix: &str, ports: RangeInclusive<u16>) -> Pool4Range {
    Pool4Range::new(prefix.parse().unwrap(), ports)
}

fn wish(hash: u64) -> Wish {
    let (scope, subscriber, shard, class) = (0, 1, 7, Class::Any);
    Wish { scope, subscriber, shard, hash, class }
}

#[test]
fn h03_scattered_ranges_and_every_block_is_leased_once_and_comes_back() {
    let ranges = ["198.51.100.7/32", "203.0.113.9/32", "192.0.2.200/32", "198.51.100.128/25"];
    let pool = Pool::new(&settings(ranges.map(|p| range(p, 1024..=65535)).to_vec()), None);
    let blocks = 131 * 126;
    assert_eq!(pool.usage(), (blocks, 0));
    let mut seen = HashSet::new();
    let mut held = Vec::new();
    for hash in 0.. {
        let Some((address, block)) = pool.lease(&wish(hash << 32 | hash), Instant::ZERO) else { break };
        assert!(block.first >= 1024 && u32::from(block.first) + 511 <= 65535);
        assert!(seen.insert((address.addr, block.first)));
        assert_eq!(pool.shard(address.addr, block.first + 511), Some(7));
        held.push((address, block));
    }
    assert_eq!((held.len() as u64, pool.usage()), (blocks, (blocks, blocks)));
    held.into_iter().for_each(|(address, block)| address.release(block));
    assert_eq!(pool.usage(), (blocks, 0));
    assert!(!pool.contains("198.51.100.8".parse().unwrap()));
    assert_eq!(pool.shard("198.51.100.8".parse().unwrap(), 2000), None);
    assert_eq!(pool.shard("198.51.100.7".parse().unwrap(), 1023), None, "in no block");
}

#[test]
fn whole_blocks_lie_at_multiples_of_their_size() {
    assert_eq!(span(&(1024..=65535), 512), (2, 126));
    assert_eq!(span(&(1..=65535), 512), (1, 127));
    assert_eq!(span(&(0..=65535), 512), (1, 127));
    assert_eq!(span(&(2000..=2319), 64), (32, 4));
    assert_eq!(span(&(2000..=2001), 64), (32, 0));
}

#[test]
fn a_pool_that_changes_keeps_what_is_leased_and_drains_what_goes() {
    let old = Pool::new(&settings(vec![range("198.51.100.0/31", 1024..=65535)]), None);
    let [a, b] = [0, 1].map(|n| Ipv4Addr::new(198, 51, 100, n));
    let lease = |pool: &Pool, addr| pool.lease_at(pool.find(addr).unwrap(), &wish(9), Instant::ZERO);
    let (of_a, of_b) = (lease(&old, a).unwrap(), lease(&old, b).unwrap());
    let next = settings(vec![range("198.51.100.1/32", 1024..=2047), range("203.0.113.0/30", 2048..=4095)]);
    let new = Pool::new(&next, Some(&old));
    // B has fewer blocks, A none; what is leased stays leased.
    assert_eq!((new.shard(a, of_a.first), new.shard(b, of_b.first)), (Some(7), Some(7)));
    assert_eq!(new.usage(), (2 + 16, 2));
    assert!(new.contains(a) && lease(&new, a).is_none());
    assert_eq!(new.draining().collect::<Vec<_>>(), [(a, 1)]);
    assert!(!new.find(b).unwrap().allows(&of_b) || of_b.first < 2048);
    // A comes back before it is empty.
    let both = settings(vec![range("198.51.100.0/31", 1024..=65535)]);
    let again = Pool::new(&both, Some(&new));
    assert_eq!((again.draining().count(), again.usage()), (0, (252, 2)));
    // Or it is empty first.
    new.find(a).unwrap().release(of_a);
    assert_eq!(new.draining().count(), 0);
    let last = Pool::new(&next, Some(&new));
    assert!(!last.contains(a));
    new.find(b).unwrap().release(of_b);
    assert_eq!(last.usage(), (18, 0));
}

#[test]
fn units_with_a_pool_of_their_own_get_its_blocks_only() {
    let mut own = range("203.0.113.0/32", 1024..=2047);
    (own.pool, own.block_size) = (Some("finance".into()), Some(64));
    let pool = Pool::new(&settings(vec![range("198.51.100.0/32", 1024..=2047), own]), None);
    assert_eq!(
        (pool.scope(None), pool.scope(Some("finance")), pool.scope(Some("x"))),
        (Some(0), Some(1), None)
    );
    let all = |scope| -> Vec<_> {
        let mut blocks = Vec::new();
        while let Some((a, _)) = pool.lease(&Wish { scope, ..wish(5) }, Instant::ZERO) {
            blocks.push(a.addr.to_string());
        }
        blocks
    };
    assert_eq!(all(1), vec!["203.0.113.0"; 16]);
    assert_eq!(all(0), vec!["198.51.100.0"; 2]);
    assert_eq!(pool.largest_block(), 512);
}

#[test]
fn h29_a_pool_is_low_once_until_it_has_recovered() {
    let pool = Pool::new(&settings(vec![range("198.51.100.0/32", 1024..=6143)]), None);
    let mut held = Vec::new();
    let mut told = Vec::new();
    for _ in 0..10 {
        held.extend(pool.lease(&wish(3), Instant::ZERO));
        told.extend(pool.newly_low(0));
    }
    assert_eq!(told, [(10, 8)]);
    for (address, block) in held.drain(..4) {
        address.release(block);
    }
    assert_eq!(pool.newly_low(0), None);
    held.extend((0..2).filter_map(|_| pool.lease(&wish(3), Instant::ZERO)));
    assert_eq!(pool.newly_low(0), Some((10, 8)));
}

#[test]
fn an_address_that_changes_its_pool_leases_no_more_under_the_old_name() {
    let old = Pool::new(&settings(vec![range("198.51.100.0/32", 1024..=2047)]), None);
    let (address, block) = old.lease(&wish(3), Instant::ZERO).unwrap();
    let mut renamed = range("198.51.100.0/32", 1024..=2047);
    renamed.pool = Some("other".into());
    let new = Pool::new(&settings(vec![renamed]), Some(&old));
    assert!(!address.allows(&block) && old.lease(&wish(3), Instant::ZERO).is_none());
    assert!(!Arc::ptr_eq(new.find(address.addr).unwrap(), &address));
    assert_eq!((new.usage(), new.draining().count()), ((2, 0), 0));
    address.release(block);
}
