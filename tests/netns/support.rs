//! What all tests here share: a laboratory that shows the gateway's last words when a test fails, and short ways to
//! run tools in it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sampan::lab::{Host, Lab, LabError, Options, Translator};

/// The program under test.
pub const SAMPAN: &str = env!("CARGO_BIN_EXE_sampan");

/// A laboratory for one test.
pub struct TestLab(Lab);

impl TestLab {
    /// The network of the demonstration.
    pub fn up() -> Self {
        Self::with(|_| {})
    }

    /// The same with changes.
    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = options();
        change(&mut options);
        match Lab::up(options) {
            Ok(lab) => Self(lab),
            Err(error) => panic!("the laboratory does not come up: {error}"),
        }
    }

    /// Runs a command line on a host; it must succeed.
    pub fn on(&self, host: &str, argv: &[&str]) -> String {
        let out = self.try_on(host, argv);
        let (stdout, stderr) = (out.stdout.clone(), out.stderr.clone());
        out.check().unwrap_or_else(|error| panic!("on {host}: {error}\n{stdout}\n{stderr}"))
    }

    /// Runs a command line on a host, whatever comes of it.
    pub fn try_on(&self, host: &str, argv: &[&str]) -> sampan::lab::tool::Output {
        self.node(host).run(argv).unwrap_or_else(|error| panic!("on {host}: {error}"))
    }

    /// A host by name.
    pub fn node(&self, name: &str) -> Host {
        self.host(name).unwrap().clone()
    }

    /// Starts a program in the background on a host.
    pub fn start(&mut self, host: &str, name: &str, argv: &[&str]) {
        let host = self.node(host);
        let tool = host.tool(argv[0]).args(argv[1..].iter().copied());
        self.start_service(&host, name, tool).unwrap();
    }

    /// The address at which clients reach an IPv4 address.
    pub fn embed(&self, v4: Ipv4Addr) -> Ipv6Addr {
        self.options().pref64.embed(v4)
    }

    /// A UDP socket on a host, with a time limit for reading.
    pub fn udp(&self, host: &str, bind: impl Into<SocketAddr> + Send) -> UdpSocket {
        let socket = self.node(host).netns().run(|| UdpSocket::bind(bind.into())).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    }

    /// Kernel counters of a host, from `nstat`.
    pub fn counters(&self, host: &str) -> BTreeMap<String, u64> {
        parse_nstat(&self.on(host, &["nstat", "-asz"]))
    }

    /// Counters of checksum errors that are not zero, of all given hosts.
    pub fn checksum_errors(&self, hosts: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for host in hosts {
            let counters = self.counters(host);
            let checksums: Vec<_> =
                counters.into_iter().filter(|(name, _)| name.contains("CsumErrors")).collect();
            assert!(checksums.len() >= 4, "nstat on {host} shows no checksum counters");
            found.extend(
                checksums.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{host}: {name} {n}")),
            );
        }
        found
    }
}

/// Data that came over TCP, as the program that received it saw it.
#[derive(Debug)]
pub struct Stream {
    pub bytes: usize,
    /// The longest time in which nothing came, from the beginning to the end.
    pub longest_gap: Duration,
}

impl Stream {
    /// Longest gap of a stream that does not stall.
    pub const STALL: Duration = Duration::from_secs(1);

    /// Reads to the end, or until nothing has come for longer than a stall takes.
    pub fn read(mut from: impl Read, began: Instant) -> Self {
        let (mut bytes, mut longest_gap, mut last) = (0, Duration::ZERO, began);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from.read(&mut buffer);
            longest_gap = longest_gap.max(last.elapsed());
            last = Instant::now();
            match read {
                Ok(len) if len > 0 => bytes += len,
                Ok(_) | Err(_) => return Self { bytes, longest_gap },
            }
        }
    }

    /// At least so many bytes, without a stall.
    #[track_caller]
    pub fn flows(&self, bytes: usize, what: impl std::fmt::Display) {
        assert!(self.longest_gap <= Self::STALL, "{what}: it stalled: {self:?}");
        assert!(self.bytes >= bytes, "{what}: {self:?}, not {bytes} bytes");
    }
}

impl TestLab {
    /// A client fetches the large file from nginx by a literal address.
    pub fn download(&self, client: &str, from: Ipv6Addr) -> Stream {
        let fetch = move || {
            let began = Instant::now();
            let mut server = TcpStream::connect_timeout(&(from, 80).into(), Stream::STALL * 3).unwrap();
            server.set_read_timeout(Some(Stream::STALL * 3 / 2)).unwrap();
            server.write_all(b"GET /big.bin HTTP/1.0\r\nHost: portal.tinh.example\r\n\r\n").unwrap();
            Stream::read(server, began)
        };
        self.node(client).netns().run(fetch).unwrap()
    }

    /// A client sends so many bytes to a port of the server; what the server saw.
    pub fn upload(&self, client: &str, to: Ipv6Addr, port: u16, bytes: usize) -> Stream {
        let any = (Ipv4Addr::UNSPECIFIED, port);
        let listener = self.node("server").netns().run(|| TcpListener::bind(any)).unwrap().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.node(client).netns().run(|| {
                    let limit = Stream::STALL * 3;
                    let mut server = TcpStream::connect_timeout(&(to, port).into(), limit).unwrap();
                    server.set_write_timeout(Some(limit)).unwrap();
                    // What does not arrive is missed at the other end.
                    let _ = server.write_all(&vec![7; bytes]).and_then(|()| server.shutdown(Shutdown::Write));
                })
            });
            let (client, _) = listener.accept().unwrap();
            client.set_read_timeout(Some(Stream::STALL * 3 / 2)).unwrap();
            Stream::read(client, Instant::now())
        })
    }
}

/// Options of a test's laboratory, with a name that no other test has.
pub fn options() -> Options {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut options = Options::new(id, SAMPAN);
    options.translator = match std::env::var("SAMPAN_NETNS_TRANSLATOR").as_deref() {
        Err(_) | Ok("sampan") => Translator::Sampan,
        Ok("tayga") => Translator::Tayga,
        Ok(other) => panic!("SAMPAN_NETNS_TRANSLATOR={other} is neither sampan nor tayga"),
    };
    options
}

/// What a laboratory leaves, or nothing.
pub fn left_of(id: &str) -> Vec<String> {
    let mut left: Vec<_> = sampan::lab::netns::Netns::list(&format!("sampan-{id}-"))
        .iter()
        .map(|netns| netns.path().display().to_string())
        .collect();
    let dir = sampan::lab::state::dir(id);
    if dir.exists() {
        left.push(dir.display().to_string());
    }
    let needle = dir.display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&words).replace('\0', " ");
        if line.contains(&needle) {
            left.push(format!("process {}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    left
}

/// `LabError` as one line.
pub fn one_line(error: &LabError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "an error of several lines: {text}");
    text
}

/// Name and value of each line of `nstat`.
fn parse_nstat(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

/// An IPv4 address out of a text.
pub fn v4(text: &str) -> Ipv4Addr {
    text.trim().parse().unwrap_or_else(|_| panic!("not an IPv4 address: {text:?}"))
}

/// The IPv4 address inside a NAT64 address.
pub fn extract(lab: &TestLab, addr: IpAddr) -> Ipv4Addr {
    let IpAddr::V6(v6) = addr else { panic!("{addr} is not IPv6") };
    lab.options().pref64.extract(v6).unwrap_or_else(|| panic!("{v6} is not in the NAT64 prefix"))
}

impl Deref for TestLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl DerefMut for TestLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.0
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("--- last words of the gateway");
        eprintln!("{}", last_lines(&self.dir().join("gateway.log"), 40));
        if self.options().translator == Translator::Sampan {
            match self.sampan(&["drops"]) {
                Ok(out) => eprintln!("--- sampan drops\n{}{}", out.stdout, out.stderr),
                Err(error) => eprintln!("--- sampan drops: {error}"),
            }
        }
    }
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[test]
fn nstat_is_read() {
    let read = parse_nstat(
        "#kernel\nIpInReceives                    5                  0.0\nUdp6InCsumErrors 2 0.0\n",
    );
    assert_eq!(read.get("IpInReceives"), Some(&5));
    assert_eq!(read.get("Udp6InCsumErrors"), Some(&2));
    assert_eq!(read.len(), 2);
}
