//! The TUN device: one queue for each worker, with virtio-net headers, so that super-packets stay whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Device, Received, vnet};
use crate::wire::packet::PacketBuf;

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0u32 as libc::Ioctl;

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Longest interface name (IFNAMSIZ without its final zero).
pub const MAX_NAME: usize = 15;

/// Why the device could not be had.
#[derive(Debug)]
pub enum TunError {
    /// `/dev/net/tun` cannot be opened.
    Open(io::Error),
    /// The interface cannot be created or joined.
    Attach(String, io::Error),
    /// The kernel refuses checksum or segmentation offload.
    Offload(io::Error),
    /// The eventfd of a queue cannot be made.
    Wake(io::Error),
}

impl std::fmt::Display for TunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(e) if e.kind() == io::ErrorKind::NotFound => write!(
                f,
                "/dev/net/tun does not exist; load the tun driver (modprobe tun), or give the container that device"
            ),
            Self::Open(e) => write!(f, "cannot open /dev/net/tun: {e}; run as root or with CAP_NET_ADMIN"),
            Self::Attach(name, e) => match e.raw_os_error() {
                Some(libc::EPERM) => {
                    write!(f, "not allowed to create interface {name}: run as root or with CAP_NET_ADMIN")
                }
                Some(libc::EBUSY) => {
                    write!(
                        f,
                        "interface {name} is in use: is another sampan running? (sampan status, or set tun.name)"
                    )
                }
                Some(libc::EINVAL) => write!(
                    f,
                    "interface {name} exists and is no multi-queue TUN: remove it (ip link del {name}) or set tun.name"
                ),
                _ => write!(f, "cannot create interface {name}: {e}"),
            },
            Self::Offload(e) => {
                write!(f, "the kernel refuses checksum and segmentation offload on the TUN: {e}")
            }
            Self::Wake(e) => write!(f, "cannot make an eventfd: {e}; raise the limit of open files"),
        }
    }
}

impl std::error::Error for TunError {}

/// One queue of the TUN.
pub struct TunQueue {
    file: File,
    waker: Arc<Waker>,
}

/// Wakes the worker that waits on a queue.
pub struct Waker {
    event: EventFd,
    asleep: AtomicBool,
}

/// What segmentation the kernel will leave to us and do for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// UDP segmentation (Linux 6.2 and later); TCP segmentation is always there.
    pub udp: bool,
}

/// Creates or joins the TUN `name` with `count` queues and makes it persistent: it outlives the process, so that
/// routes stay when the daemon is replaced. [`remove`] ends it.
pub fn open(name: &str, count: u16) -> Result<(Vec<TunQueue>, Offloads), TunError> {
    let mut queues = Vec::new();
    let mut offloads = Offloads { udp: true };
    for _ in 0..count.max(1) {
        let file = attach(name)?;
        set(&file, TUNSETPERSIST, 1).map_err(|e| TunError::Attach(name.to_owned(), e))?;
        let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        if set(&file, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6).is_err() {
            offloads.udp = false;
            set(&file, TUNSETOFFLOAD, tcp).map_err(TunError::Offload)?;
        }
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|e| TunError::Wake(e.into()))?;
        queues.push(TunQueue { file, waker: Arc::new(Waker { event, asleep: AtomicBool::new(false) }) });
    }
    Ok((queues, offloads))
}

/// Takes the persistence from the TUN `name`: it and its routes go when the last queue is closed.
pub fn remove(name: &str) -> Result<(), TunError> {
    let file = attach(name)?;
    set(&file, TUNSETPERSIST, 0).map_err(|e| TunError::Attach(name.to_owned(), e))
}

fn attach(name: &str) -> Result<File, TunError> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(TunError::Open)?;
    // SAFETY: ifreq is a plain C struct for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().take(MAX_NAME).zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(TunError::Attach(name.to_owned(), io::Error::last_os_error()));
    }
    Ok(file)
}

fn set(file: &File, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open, and these requests take a number, not a pointer.
    if unsafe { libc::ioctl(file.as_raw_fd(), request, value) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl TunQueue {
    /// Whether the device outlives its last queue.
    pub fn set_persistent(&self, on: bool) -> Result<(), TunError> {
        set(&self.file, TUNSETPERSIST, on.into()).map_err(|e| TunError::Attach("of this queue".into(), e))
    }

    /// Lets a program (of the socket filter kind) choose the queue for each packet; `None`: the kernel does as it does
    /// by itself. For the whole device, and it outlives the process.
    pub fn steer(&self, program: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let number: libc::c_int = program.map_or(-1, |fd| fd.as_raw_fd());
        // SAFETY: the descriptor is open, and the request reads one int, which outlives the call.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const number) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// What wakes the worker of this queue.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Waits for a packet, a call of [`Waker::wake`], or the end of `timeout`. `is_idle` is asked once more after
    /// wakers have been told, so that none is missed.
    pub fn wait(&self, timeout: Duration, is_idle: impl FnOnce() -> bool) -> io::Result<()> {
        self.waker.asleep.store(true, Ordering::SeqCst);
        if is_idle() {
            let mut fds = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.waker.event.as_fd(), PollFlags::POLLIN),
            ];
            let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if !self.waker.asleep.swap(false, Ordering::SeqCst) {
            // Somebody has written to the eventfd, or is just about to; an empty one is an error that means nothing.
            let _ = self.waker.event.read();
        }
        Ok(())
    }
}

impl Waker {
    /// Wakes the worker if it sleeps; costs a system call only then.
    pub fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when the counter is full, and then the worker is awake anyway.
            let _ = self.event.write(1);
        }
    }
}

impl Device for TunQueue {
    #[inline]
    fn recv(&mut self, packet: &mut PacketBuf) -> io::Result<Received> {
        let area = packet.receive_area(vnet::HEADER);
        let len = match self.file.read(area) {
            Ok(len) => len,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Received::Nothing);
            }
            Err(e) => return Err(e),
        };
        let Some(header) = area.first_chunk::<{ vnet::HEADER }>() else { return Ok(Received::Nothing) };
        let offload = match vnet::decode(*header) {
            Ok(offload) => offload,
            Err(reason) => return Ok(Received::Bad(reason)),
        };
        packet.received(len.saturating_sub(vnet::HEADER), offload);
        Ok(Received::Packet)
    }

    #[inline]
    fn send(&mut self, packet: &mut PacketBuf) -> io::Result<()> {
        let header = vnet::encode(packet);
        self.file.write(packet.with_prefix(header)).map(|_| ())
    }
}
