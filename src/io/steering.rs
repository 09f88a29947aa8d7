//! Which queue of the TUN a packet comes to. Left to itself the kernel remembers some 4,096 flows, and what it does not
//! remember comes to any worker, which passes it on: two threads wake for one packet. A small program
//! (`src/io/bpf/steer.bpf.c`) knows better: it reads what workers have noted when they passed something on.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use aya::maps::Map;
use aya::programs::SocketFilter;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::fastpath::{Mapped, Shared};
use super::random;
use super::tun::TunQueue;
use crate::addr::Prefix6;

/// Built by `deploy/build-bpf`, which a test runs to compare.
static OBJECT: &[u8] = include_bytes_aligned!("bpf/steer.bpf.o");
const NOTES: usize = 65_536;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const FRAGMENT: u8 = 44;

/// What steer.h calls `struct steering`.
#[repr(C)]
struct Board {
    seed: AtomicU64,
    subscriber_mask: [AtomicU32; 4],
    port_shift: AtomicU32,
    spare: AtomicU32,
    notes: [AtomicU8; NOTES],
}

const _: () = assert!(size_of::<Board>() == 32 + NOTES);

// SAFETY: made of atomics, and as large as the map's one value.
unsafe impl Shared for Board {}

/// What workers note for the program.
pub struct Notes {
    board: Mapped<Board>,
    seed: u64,
    subscriber_len: u8,
    port_shift: u32,
}

/// Puts the program on the device of `queue`, in place of any other. Subscribers have prefixes of `subscriber_len` bits,
/// and blocks hold 2^`port_shift` ports.
pub fn attach(queue: &TunQueue, subscriber_len: u8, port_shift: u8) -> io::Result<Arc<Notes>> {
    let mut programs = EbpfLoader::new().load(OBJECT).map_err(io::Error::other)?;
    let program = programs.program_mut("sampan_steer").ok_or(io::ErrorKind::NotFound)?;
    let program: &mut SocketFilter = program.try_into().map_err(io::Error::other)?;
    program.load().map_err(io::Error::other)?;
    let program =
        program.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?)).map_err(io::Error::other)?;
    let notes = Notes::new(&mut programs, subscriber_len, port_shift)?;
    queue.steer(Some(program.as_fd()))?;
    Ok(Arc::new(notes))
}

impl Notes {
    fn new(programs: &mut Ebpf, subscriber_len: u8, port_shift: u8) -> io::Result<Self> {
        let Some(Map::Array(map)) = programs.take_map("steering") else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let board = Mapped::<Board>::new(&map.fd(), 1)?;
        let seed = u64::from_ne_bytes(random()?);
        let port_shift = u32::from(port_shift & 15);
        let mask = Prefix6::covering(Ipv6Addr::from_bits(u128::MAX), subscriber_len).addr().octets();
        let [there] = &*board else { return Err(io::ErrorKind::InvalidData.into()) };
        there.seed.store(seed, Ordering::Relaxed);
        for (word, bytes) in there.subscriber_mask.iter().zip(mask.as_chunks().0) {
            word.store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        there.port_shift.store(port_shift, Ordering::Relaxed);
        Ok(Self { board, seed, subscriber_len, port_shift })
    }

    /// `packet` had to be passed on to `worker`: the next ones of its kind shall come there at once.
    pub fn learn(&self, packet: &[u8], worker: u16) {
        let (Some(at), Ok(note)) = (self.place(packet), u8::try_from(worker + 1)) else { return };
        if let Some(place) = self.board.first().and_then(|board| board.notes.get(at)) {
            place.store(note, Ordering::Relaxed);
        }
    }

    /// Where the program looks for a packet; `None` for packets whose owner is not told by where it looks.
    fn place(&self, packet: &[u8]) -> Option<usize> {
        let hash = match packet.first()? >> 4 {
            6 => {
                let (next, kind) = (*packet.get(6)?, *packet.get(40)?);
                if next == FRAGMENT || next == ICMP6 && kind < 128 {
                    return None;
                }
                let source: Ipv6Addr = packet.get(8..)?.first_chunk::<16>().copied()?.into();
                let subscriber = Prefix6::covering(source, self.subscriber_len).addr().octets();
                let words = subscriber.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
                words.fold(self.seed, mix)
            }
            4 => {
                let (protocol, kind) = (*packet.get(9)?, *packet.get(20)?);
                let cut = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
                if *packet.first()? != 0x45 || cut != 0 || protocol == ICMP && !matches!(kind, 0 | 8) {
                    return None;
                }
                let target = u32::from_ne_bytes(*packet.get(16..)?.first_chunk()?);
                let at = if protocol == ICMP { 24 } else { 22 };
                let port = u16::from_be_bytes(*packet.get(at..)?.first_chunk()?);
                mix(mix(self.seed, target), 1 + (u32::from(port) >> self.port_shift))
            }
            _ => return None,
        };
        Some((hash >> 20) as usize % NOTES)
    }
}

const fn mix(hash: u64, word: u32) -> u64 {
    let hash = (hash ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}
