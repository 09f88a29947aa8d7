//! A kernel for one test: network namespaces and a bpf file system that nobody else sees, and programs that are fed
//! with packets (`BPF_PROG_TEST_RUN`).

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};
use sampan::io::fastpath::{Config, FastPath, Side};
use sampan::time::Instant;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Of the interface that receives.
pub const MAC_IN: [u8; 6] = [2, 0, 0, 0, 6, 1];
pub const MAC_OUT: [u8; 6] = [2, 0, 0, 0, 4, 1];
/// Of the hosts behind the two.
const MAC_CLIENT: [u8; 6] = [2, 0, 0, 0, 6, 2];
const MAC_SERVER: [u8; 6] = [2, 0, 0, 0, 4, 2];

/// What a program says about a packet that is none of its business.
pub const PASS: u32 = u32::MAX;
pub const SHOT: u32 = 2;
pub const REDIRECT: u32 = 7;

/// Runs `test` on a thread with namespaces of its own for network and mounts; they end with it.
pub fn alone<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root is needed");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            test()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command line where the calling thread is.
pub fn sh(line: &str) -> String {
    let out = Command::new("sh").args(["-ec", line]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

pub fn now() -> Instant {
    Instant::from_nanos(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64)
}

/// A directory for pins. Must be made by a thread that is [`alone`].
pub fn pins() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let pins = dir.path().join("pins");
    (dir, pins)
}

/// Settings that leave everything to the programs.
pub fn config(pin_dir: PathBuf) -> Config {
    Config {
        max_flows: 4096,
        orphan_limit: Duration::from_secs(300),
        inside: vec!["in0".into()],
        outside: vec!["out0".into()],
        tun_index: 0,
        pool6: vec!["::/0".parse().unwrap()],
        pool4: vec!["0.0.0.0/0".parse().unwrap()],
        shared: Vec::new(),
        mtu6: 1500,
        mtu4: 1500,
        lowest_ipv6_mtu: 1280,
        tos: None,
        traffic_class: None,
        miss_rate: 0,
        miss_burst: 0,
        subscriber_len: 64,
        port_shift: 6,
        ident_base: 0xc000,
        ident_span: 0x4000,
        pin_dir,
    }
}

/// A gateway with two links, and routes for everything through them.
pub struct Bench {
    pub fast_path: FastPath,
    pub pins: PathBuf,
    config: Config,
    programs: [OwnedFd; 2],
    indices: [u32; 2],
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Must be called by a thread that is [`alone`].
    pub fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            echo 1 > /proc/sys/net/ipv4/ip_forward; ip link set lo up");
        for (link, own, other) in [("in", MAC_IN, MAC_CLIENT), ("out", MAC_OUT, MAC_SERVER)] {
            sh(&format!(
                "ip link add {link}0 address {} type veth peer name {link}1 address {}
                 ip link set {link}0 up; ip link set {link}1 up",
                mac(own),
                mac(other)
            ));
        }
        sh(&format!(
            "ip addr add 100.100.0.1/24 dev out0; ip -6 addr add fd06::1/64 dev in0
             ip neigh add 100.100.0.2 lladdr {} dev out0; ip -6 neigh add fd06::2 lladdr {} dev in0
             ip route add default via 100.100.0.2; ip -6 route add default via fd06::2",
            mac(MAC_SERVER),
            mac(MAC_CLIENT)
        ));
        let (dir, pins) = pins();
        let mut config = config(pins.clone());
        change(&mut config);
        let (fast_path, programs) = start(&config);
        let indices = ["in0", "out0"].map(|link| nix::net::if_::if_nametoindex(link).unwrap());
        Self { fast_path, pins, config, programs, indices, _dir: dir }
    }

    /// Another daemon takes over what this one leaves.
    pub fn restart(&mut self) {
        (self.fast_path, self.programs) = start(&self.config);
    }

    /// What the program makes of an IP packet that comes from its side: its word, and the packet.
    pub fn feed(&self, packet: &[u8], extra: Extra) -> Result<(u32, Vec<u8>), std::io::Error> {
        let (word, out) = self.offer(packet, extra)?;
        if word == REDIRECT {
            let from6 = packet.first().is_some_and(|b| b >> 4 == 6);
            let (own, other) = if from6 { (MAC_OUT, MAC_SERVER) } else { (MAC_IN, MAC_CLIENT) };
            assert_eq!((&out[..6], &out[6..12]), (&other[..], &own[..]), "addresses of the link");
            assert_eq!(out[12..14], if from6 { [8, 0] } else { [0x86, 0xdd] });
        }
        Ok((word, out[ETHERNET.min(out.len())..].to_vec()))
    }

    /// The same with the frame as the program leaves it, whatever it is.
    pub fn offer(&self, packet: &[u8], extra: Extra) -> Result<(u32, Vec<u8>), std::io::Error> {
        let (side, mac, kind) = match packet.first().map(|b| b >> 4) {
            Some(6) => (0, MAC_IN, [0x86, 0xdd]),
            _ => (1, MAC_OUT, [8, 0]),
        };
        let frame = [&mac[..], &[2, 0, 0, 0, 9, 9], &kind, packet, &vec![0xaa; extra.padding]].concat();
        test_run(&self.programs[side], &frame, self.indices[side], extra)
    }

    /// A counter of the programs.
    pub fn counter(&self, name: &str) -> u64 {
        let all = self.fast_path.counters();
        all.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

fn start(config: &Config) -> (FastPath, [OwnedFd; 2]) {
    let fast_path = FastPath::load(config).unwrap();
    fast_path.update(config).unwrap();
    fast_path.heartbeat(now());
    let programs = [Side::Inside, Side::Outside].map(|side| fast_path.program(side).unwrap());
    (fast_path, programs)
}

/// How a packet is fed in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// Bytes behind the packet.
    pub padding: usize,
    /// Segment size of a super-packet.
    pub gso: u32,
    /// Like a network card that has made a sum of the whole packet (`CHECKSUM_COMPLETE`). The kernel compares that sum with
    /// the packet after the program.
    pub summed: bool,
}

/// The kernel's `struct` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    spare: u32,
}

fn test_run(program: &OwnedFd, frame: &[u8], index: u32, extra: Extra) -> std::io::Result<(u32, Vec<u8>)> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    const CHECKSUM_COMPLETE: u32 = 4;
    // `struct __sk_buff`: the index of the device at 40, the segment size at 176.
    let mut context = [0_u8; 192];
    context[40..44].copy_from_slice(&index.to_ne_bytes());
    context[176..180].copy_from_slice(&extra.gso.to_ne_bytes());
    let mut out = vec![0; frame.len() + 256];
    let mut run = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ctx_size_in: context.len() as u32,
        ctx_in: context.as_ptr() as u64,
        flags: if extra.summed { CHECKSUM_COMPLETE } else { 0 },
        ..TestRun::default()
    };
    // SAFETY: the structure is the kernel's, of the size that is said, and the buffers that it points to outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut run, size_of::<TestRun>()) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    out.truncate(run.data_size_out as usize);
    Ok((run.retval, out))
}
