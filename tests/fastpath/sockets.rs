//! Real sockets on both sides of the programs, with everything that network devices leave to each other: partial
//! checksums, super-packets of TCP and UDP, segmentation in software behind the translation, neighbours that nobody has
//! asked for yet. What the programs pass up is translated by a thread on a TUN.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use sampan::io::fastpath::{self, FastPath};
use sampan::io::tun::{self, TunQueue};
use sampan::io::{Device, Received};
use sampan::lab::netns::Netns;
use sampan::nat64::mirror::{Rule, Scope};
use sampan::nat64::settings::Protocol;
use sampan::nat64::witness::FlowWitness;
use sampan::wire::l4::Payload;
use sampan::wire::packet::{PacketBuf, View};
use sampan::xlat::{Delta, FlowPair, Hop, Rewrite, v4_to_v6, v6_to_v4};

use crate::kernel::{alone, config, now, pins, sh};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc000, 0x0202);
const POOL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// What a stream carries.
const BYTES: usize = 8 << 20;
/// Datagrams of a super-packet, and how many of those are sent.
const SEGMENTS: usize = 20;
const BATCHES: usize = 40;
/// Bytes of a datagram: Linux sends super-packets of UDP without DF, and those must fit `lowest-ipv6-mtu` (RFC 7915 §4.1).
const SEGMENT: usize = 1280 - 48;

/// The flow of a client's port; the peer's port and that of the pool follow from it.
fn flow(port: u16) -> FlowPair {
    FlowPair {
        src6: CLIENT,
        port6: port,
        dst6: SERVER6,
        src4: POOL,
        port4: port + 10_000,
        dst4: SERVER,
        peer_port: port + 20_000,
    }
}

/// Three network namespaces: client, gateway (the calling thread's) and server.
struct Net {
    client: Netns,
    server: Netns,
    fast_path: FastPath,
    _dir: tempfile::TempDir,
}

impl Net {
    fn new() -> (Self, TunQueue) {
        // A place for the names of namespaces that nobody else sees.
        sh("mount -t tmpfs none /run; ip netns add client; ip netns add server
            echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            echo 1 > /proc/sys/net/ipv4/ip_forward; ip link set lo up
            ip link add in0 type veth peer name c0 netns client; ip link add out0 type veth peer name s0 netns server
            ip link set in0 up; ip link set out0 up; ip -n client link set c0 up; ip -n server link set s0 up
            ip -6 addr add 2001:db8:1::1/64 dev in0 nodad; ip addr add 192.0.2.1/24 dev out0
            ip -n client -6 addr add 2001:db8:1::2/64 dev c0 nodad; ip -n server addr add 192.0.2.2/24 dev s0
            ip -n client -6 route add default via 2001:db8:1::1; ip -n server route add default via 192.0.2.1");
        let (mut queues, _) = tun::open("tun0", 1).unwrap();
        sh(
            "ip link set tun0 mtu 65535 up; ip -6 route add 64:ff9b::/96 dev tun0; ip route add 198.51.100.0/24 dev tun0",
        );
        let (dir, pins) = pins();
        let mut config = config(pins);
        config.tun_index = nix::net::if_::if_nametoindex("tun0").unwrap();
        config.pool6 = vec!["64:ff9b::/96".parse().unwrap()];
        config.pool4 = vec!["198.51.100.0/24".parse().unwrap()];
        let fast_path = fastpath::open(&config).unwrap();
        fast_path.heartbeat(now());
        let mut mirror = fast_path.mirrors(1).remove(0);
        for port in 1000..1100 {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let (flow, scope) = (flow(port), Scope { number: 0, generation: 0 });
                let rule = Rule { protocol, flow, delta: Delta::v6_to_v4(&flow), scope };
                mirror.install(now(), &rule, &FlowWitness::default(), 0).unwrap();
            }
        }
        let (client, server) = (Netns::named("client"), Netns::named("server"));
        let net = Self { client, server, fast_path, _dir: dir };
        (net, queues.remove(0))
    }

    fn counter(&self, name: &str) -> u64 {
        let all = self.fast_path.counters();
        all.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// Runs `test` while a thread translates what comes up.
    fn run(&self, mut queue: TunQueue, test: impl FnOnce(&AtomicU64) + Send) {
        let (over, slow) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    queue.wait(Duration::from_millis(20), || true).unwrap();
                    while step(&mut queue) {
                        slow.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&slow)));
            over.store(true, Ordering::Relaxed);
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
    }

    /// A stream through the gateway, which says what it carried. `up` is from the client to the server.
    fn stream(&self, port: u16, up: bool) {
        let flow = flow(port);
        let listener = self.server.run(|| TcpListener::bind((SERVER, flow.peer_port)).unwrap()).unwrap();
        let client = self.client.run(|| connect(&flow)).unwrap();
        let (server, from) = listener.accept().unwrap();
        assert_eq!(from, SocketAddr::new(POOL.into(), flow.port4));
        let (mut sender, mut receiver) = if up { (client, server) } else { (server, client) };
        thread::scope(|scope| {
            scope.spawn(move || {
                let data: Vec<u8> = (0..BYTES).map(pattern).collect();
                sender.write_all(&data).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut data = Vec::new();
            receiver.read_to_end(&mut data).unwrap();
            assert_eq!(data.len(), BYTES);
            assert!(data.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
        });
    }

    /// Datagrams through the gateway, many in each call of the sender if `segmented`.
    fn datagrams(&self, port: u16, up: bool, segmented: bool) {
        let flow = flow(port);
        let bind = |netns: &Netns, addr: SocketAddr, to: SocketAddr| {
            let socket = netns.run(|| UdpSocket::bind(addr).unwrap()).unwrap();
            socket.connect(to).unwrap();
            option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20);
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        };
        let client = bind(&self.client, (CLIENT, port).into(), (SERVER6, flow.peer_port).into());
        let server = bind(&self.server, (SERVER, flow.peer_port).into(), (POOL, flow.port4).into());
        let (sender, receiver) = if up { (client, server) } else { (server, client) };
        if segmented {
            option(&sender, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32);
        }
        let data: Vec<u8> = (0..SEGMENTS * SEGMENT).map(pattern).collect();
        for batch in 0..BATCHES {
            if segmented {
                sender.send(&data).unwrap();
            } else {
                data.chunks(SEGMENT).for_each(|datagram| assert_eq!(sender.send(datagram).unwrap(), SEGMENT));
            }
            for (number, expected) in data.chunks(SEGMENT).enumerate() {
                let mut buffer = [0; 2048];
                let len =
                    receiver.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}: {batch}.{number}, up: {up}"));
                assert_eq!(buffer[..len], *expected);
            }
        }
    }

    /// Counters of wrong checksums at both ends that are not zero.
    fn checksum_errors(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for netns in [&self.client, &self.server] {
            let text = netns.run(|| sh("nstat -asz")).unwrap();
            let lines: Vec<_> = text.lines().filter(|line| line.contains("CsumErrors")).collect();
            assert!(lines.len() >= 4, "{text}");
            wrong.extend(
                lines.iter().filter(|l| l.split_whitespace().nth(1) != Some("0")).map(|l| l.to_string()),
            );
        }
        wrong
    }
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8 ^ (at >> 11) as u8
}

/// A connection from the port of `flow`: the standard library cannot choose one.
fn connect(flow: &FlowPair) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, bind, connect, socket};
    let at = |addr, port| SockaddrIn6::from(std::net::SocketAddrV6::new(addr, port, 0, 0));
    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(socket.as_raw_fd(), &at(flow.src6, flow.port6)).unwrap();
    connect(socket.as_raw_fd(), &at(flow.dst6, flow.peer_port)).unwrap();
    TcpStream::from(socket)
}

fn option(socket: &UdpSocket, level: i32, name: i32, value: i32) {
    // SAFETY: the descriptor is open, and the option is a number of that size.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<i32>() as u32)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Translates one packet of the TUN by the flows of this test. False when there is none.
fn step(queue: &mut TunQueue) -> bool {
    let mut packet = PacketBuf::new();
    if queue.recv(&mut packet).unwrap() != Received::Packet {
        return false;
    }
    let ports = |payload| match payload {
        Payload::Tcp(tcp) => Some((tcp.src, tcp.dst)),
        Payload::Udp(udp) => Some((udp.src, udp.dst)),
        Payload::Icmp(_) | Payload::Fragment | Payload::Other(_) => None,
    };
    match packet.parse() {
        Ok(View::V6(view)) => {
            let Some((port, _)) = ports(view.payload) else { return true };
            let flow = flow(port);
            let (src, dst) = (flow.src4, flow.dst4);
            let delta = Delta::v6_to_v4(&flow);
            let rewrite = Rewrite { src, dst, src_port: flow.port4, dst_port: flow.peer_port, delta };
            let context = v6_to_v4::Context { hop: Hop::Same, mtu4: 1500, id: 1, mss: None, tos: None };
            let plan = v6_to_v4::plan(&view, &packet, &rewrite, &context).unwrap();
            plan.apply(&mut packet);
        }
        Ok(View::V4(view)) => {
            let Some((_, port)) = ports(view.payload) else { return true };
            let flow = flow(port - 10_000);
            let (src, dst) = (flow.dst6, flow.src6);
            let delta = Delta::v6_to_v4(&flow).reversed();
            let rewrite = Rewrite { src, dst, src_port: flow.peer_port, dst_port: flow.port6, delta };
            let context = v4_to_v6::Context {
                hop: Hop::Same,
                mtu6: 1500,
                mtu4: 1500,
                lowest_ipv6_mtu: 1500,
                id: 1,
                mss: None,
                traffic_class: None,
            };
            let plan = v4_to_v6::plan(&view, &packet, &rewrite, &context).unwrap();
            plan.apply(&mut packet);
        }
        Err(_) => return true,
    }
    queue.send(&mut packet).unwrap();
    true
}

/// Looks for frames on a link that are longer than it allows.
struct Watch(Child);

impl Watch {
    fn over_mtu(netns: &Netns, link: &str) -> Self {
        let mut child = netns
            .run(|| {
                // 1514 is a full frame; `greater` means at least.
                Command::new("tcpdump")
                    .args(["-i", link, "-n", "-Q", "in", "-c", "1", "greater 1515"])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on")), "tcpdump does not begin");
        // It goes on to write there.
        thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    /// What was seen.
    fn end(mut self) -> String {
        sleep(Duration::from_millis(300));
        let over = self.0.try_wait().unwrap().is_some();
        if !over {
            self.0.kill().unwrap();
        }
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        if over { format!("{text} (tcpdump has ended)") } else { text }
    }
}

#[test]
fn nothing_is_wrong_with_what_sockets_receive() {
    alone(|| {
        let (net, queue) = Net::new();
        net.run(queue, |slow| {
            let mut port = 1000;
            // Offloads of the gateway's links, and of the hosts'.
            for (gateway, hosts) in [("on", "on"), ("off", "on"), ("off", "off"), ("on", "off")] {
                for link in ["in0", "out0"] {
                    sh(&format!("ethtool -K {link} tx {gateway} tso {gateway} gso {gateway} tx-udp-segmentation {gateway}"));
                }
                sh(&format!("ip netns exec client ethtool -K c0 tx {hosts}; ip netns exec server ethtool -K s0 tx {hosts}"));
                // What the gateway segments arrives in segments.
                let watches = (gateway == "off")
                    .then(|| [Watch::over_mtu(&net.client, "c0"), Watch::over_mtu(&net.server, "s0")]);
                for up in [true, false] {
                    net.stream(port, up);
                    // Without checksum offload some kernels refuse to segment UDP.
                    net.datagrams(port, up, hosts == "on");
                    port += 1;
                }
                for watch in watches.into_iter().flatten() {
                    let seen = watch.end();
                    assert!(seen.is_empty(), "gateway {gateway}, hosts {hosts}: {seen}");
                }
                if hosts == "on" {
                    // Super-packets stay whole.
                    for (sent, segments) in
                        [("sent_v6_to_v4", "segments_v6_to_v4"), ("sent_v4_to_v6", "segments_v4_to_v6")]
                    {
                        let counters = net.fast_path.counters();
                        assert!(net.counter(segments) > 4 * net.counter(sent), "{gateway} {counters:?}");
                    }
                }
                assert_eq!(net.checksum_errors(), Vec::<String>::new(), "gateway {gateway}, hosts {hosts}");
            }
            let counters = net.fast_path.counters();
            // Everything but the beginnings and ends of connections rode.
            let (rode, slow) = (net.counter("bytes_v6_to_v4") + net.counter("bytes_v4_to_v6"), slow.load(Ordering::Relaxed));
            assert!(rode > 8 * BYTES as u64, "{counters:?}");
            assert!(slow < 100, "{slow} packets came up: {counters:?}");
        });
    });
}

#[test]
fn neighbours_are_asked_for() {
    alone(|| {
        let (net, _queue) = Net::new();
        let flow = flow(1000);
        let server = net.server.run(|| UdpSocket::bind((SERVER, flow.peer_port)).unwrap()).unwrap();
        let client = net.client.run(|| UdpSocket::bind((CLIENT, flow.port6)).unwrap()).unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        }
        sh("ip neigh flush all; ip -6 neigh flush all");
        assert!(!sh("ip neigh show dev out0").contains("lladdr"));
        let mut buffer = [0; 100];
        client.send_to(b"ask", (SERVER6, flow.peer_port)).unwrap();
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"ask"[..], (POOL, flow.port4).into()));
        sh("ip -6 neigh flush all");
        server.send_to(b"answer", from).unwrap();
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"answer"[..], (SERVER6, flow.peer_port).into()));
        assert_eq!(
            (net.counter("sent_v6_to_v4"), net.counter("sent_v4_to_v6"), net.counter("up_route")),
            (1, 1, 0)
        );
    });
}
