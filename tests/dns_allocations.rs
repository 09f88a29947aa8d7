//! A DNS reply from the cache costs no allocation, in any thread of the process: an allocator that counts says so.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops at the first surprise

#[allow(dead_code)] // each test file uses its part
#[path = "support/dns.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use support::*;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything to the system's allocator unchanged; counting touches a number only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn v4_only(query: &Message, _tcp: bool) -> Reaction {
    let mut message = reply_to(query, ResponseCode::NoError);
    if query.queries[0].query_type == RecordType::A {
        message.answers.push(a(&query.queries[0].name.to_ascii(), 3600, "192.0.2.1"));
    } else {
        let mut record = soa("test.");
        record.ttl = 3600;
        message.authorities.push(record);
    }
    Reaction::Reply(message)
}

#[tokio::test]
async fn a_reply_from_the_cache_allocates_nothing() {
    const ROUNDS: u64 = 5_000;
    let upstream = Upstream::start(v4_only).await;
    let service = Service::usual(&[upstream.addr]).await;
    let asked = with_opt(query("www.example.test.", RecordType::AAAA));
    assert_eq!(addresses(&ask_udp(service.addr, &asked).await).len(), 1);
    // One socket, so one thread of the service; it may have to look into its letter box first.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(service.addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let bytes = asked.to_vec().unwrap();
    let mut reply = [0; 1232];
    let mut ask = || {
        client.send(&bytes).unwrap();
        client.recv(&mut reply).unwrap()
    };
    let len = ask();
    ask();
    let (hits, before) = (service.counter("cache_hits"), ALLOCATIONS.load(Ordering::Relaxed));
    for _ in 0..ROUNDS {
        assert_eq!(ask(), len);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(service.counter("cache_hits"), hits + ROUNDS);
    assert_eq!(allocations, 0);
    assert_eq!(upstream.asked().len(), 2);
    // The counter counts.
    drop(std::hint::black_box(vec![0; 64]));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before);
}
