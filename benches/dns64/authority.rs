//! The upstream of all: every name has one A record, computed from the name, and no AAAA.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Lifetime of every record, and of their absence: longer than a run.
const TTL: u32 = 86_400;

/// A running upstream; it ends with the process.
pub struct Authority {
    pub addr: SocketAddr,
    delay: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Authority {
    /// Starts it on a CPU.
    pub fn start(addr: SocketAddr, cpu: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        let (delay, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let queue = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
        let late = (socket.try_clone()?, Arc::clone(&queue));
        thread::spawn(move || {
            crate::pin(cpu);
            send_late(&late.0, &late.1);
        });
        let (its_delay, its_count) = (Arc::clone(&delay), Arc::clone(&asked));
        thread::spawn(move || {
            crate::pin(cpu);
            let mut buffer = [0; 1500];
            loop {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                its_count.fetch_add(1, Ordering::Relaxed);
                let Some(reply) = answer(&buffer[..len]) else { continue };
                match its_delay.load(Ordering::Relaxed) {
                    0 => drop(socket.send_to(&reply, from)),
                    millis => {
                        let due = Instant::now() + Duration::from_millis(millis);
                        queue.0.lock().unwrap().push_back((due, reply, from));
                        queue.1.notify_one();
                    }
                }
            }
        });
        Ok(Self { addr, delay, asked })
    }

    /// From now on it answers so late.
    pub fn set_delay(&self, delay: Duration) {
        self.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// How many questions came.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

type Late = (Mutex<VecDeque<(Instant, Vec<u8>, SocketAddr)>>, Condvar);

fn send_late(socket: &UdpSocket, (queue, more): &Late) {
    loop {
        let mut waiting = queue.lock().unwrap();
        let (due, reply, to) = loop {
            match waiting.pop_front() {
                Some(first) => break first,
                None => waiting = more.wait(waiting).unwrap(),
            }
        };
        drop(waiting);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let _ = socket.send_to(&reply, to);
    }
}

/// The address of a name: `a-b-c-d.…` says it; any other name has one all the same.
pub fn address(name: &[u8]) -> Ipv4Addr {
    let first = name.get(1..=usize::from(name.first().copied().unwrap_or(0))).unwrap_or_default();
    let octets: Vec<u8> = std::str::from_utf8(first)
        .unwrap_or_default()
        .split('-')
        .filter_map(|octet| octet.parse().ok())
        .collect();
    <[u8; 4]>::try_from(octets).unwrap_or([198, 18, 0, 1]).into()
}

/// The reply to a query; `None` to anything else.
pub fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    let question = query.get(12..end + 5)?;
    let is_a = query.get(end + 1..end + 3)? == [0, 1];
    let opt = query.get(10..12)? != [0, 0];
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, u8::from(!is_a), 0, u8::from(opt)]);
    reply.extend(question);
    let ttl = TTL.to_be_bytes();
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl);
        reply.extend([0, 4]);
        reply.extend(address(question).octets());
    } else {
        reply.extend(b"\x04test\0\0\x06\0\x01");
        reply.extend(ttl);
        reply.extend([0, 22, 0, 0]);
        for field in [1, 3600, 600, 86_400, TTL] {
            reply.extend(u32::to_be_bytes(field));
        }
    }
    if opt {
        reply.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    Some(reply)
}
