//! unbound and BIND on loopback: as upstreams, as DNS64 to compare with, and in the bench.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A resolver of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unbound,
    Bind,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::Bind => "bind",
        }
    }
}

/// The command line of a resolver with one thread that forwards everything to `upstream`; with a prefix it is a DNS64.
pub fn command(
    kind: Kind,
    addr: SocketAddr,
    upstream: SocketAddr,
    prefix: Option<&str>,
    dir: &Path,
) -> io::Result<Vec<String>> {
    let conf = dir.join(format!("{}-{}.conf", kind.name(), addr.port()));
    let (ip, port) = (addr.ip(), addr.port());
    let (up_ip, up_port) = (upstream.ip(), upstream.port());
    let (text, program): (_, &[&str]) = match kind {
        Kind::Unbound => {
            let modules = if prefix.is_some() { "dns64 iterator" } else { "iterator" };
            let dns64 = prefix.map(|prefix| format!("  dns64-prefix: {prefix}\n")).unwrap_or_default();
            let text = format!(
                "server:\n  directory: \"\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  do-daemonize: no\n  \
                 use-syslog: no\n  verbosity: 0\n  interface: {ip}@{port}\n  num-threads: 1\n  do-ip6: no\n  \
                 access-control: 127.0.0.0/8 allow\n  do-not-query-localhost: no\n  module-config: \"{modules}\"\n\
                 {dns64}  local-zone: \"test.\" nodefault\n  domain-insecure: \"test.\"\n  \
                 msg-cache-size: 128m\n  rrset-cache-size: 256m\n\
                 remote-control:\n  control-enable: no\n\
                 forward-zone:\n  name: \".\"\n  forward-addr: {up_ip}@{up_port}\n"
            );
            (text, &["unbound", "-d", "-c"])
        }
        Kind::Bind => {
            let dns64 = prefix
                .map(|prefix| format!("dns64 {prefix} {{ clients {{ any; }}; mapped {{ any; }}; }};"))
                .unwrap_or_default();
            let text = format!(
                "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; \
                 listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; recursion yes; \
                 allow-query {{ any; }}; forward only; forwarders port {up_port} {{ {up_ip}; }}; \
                 dnssec-validation no; max-cache-size 512m; empty-zones-enable no; {dns64} }};\ncontrols {{ }};\n\
                 logging {{ category default {{ null; }}; }};\n",
                dir = dir.display()
            );
            (text, &["named", "-f", "-n", "1", "-c"])
        }
    };
    fs::write(&conf, text)?;
    let path = conf.display().to_string();
    Ok(program.iter().map(ToString::to_string).chain([path]).collect())
}

/// A running server; it is stopped when dropped.
pub struct Running {
    pub addr: SocketAddr,
    child: Child,
}

impl Running {
    /// Starts a command, on one CPU if one is given, and waits until it answers a query for `ready`.
    pub fn start(command: &[String], addr: SocketAddr, cpu: Option<usize>, log: &Path) -> io::Result<Self> {
        let pin: Vec<_> =
            cpu.iter().flat_map(|cpu| ["taskset".into(), "-c".into(), cpu.to_string()]).collect();
        let argv: Vec<_> = pin.iter().chain(command).collect();
        let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let said = fs::File::create(log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()?;
        let running = Self { addr, child };
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.connect(addr)?;
        client.set_read_timeout(Some(Duration::from_millis(300)))?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            // An address of ready.test.; an answer means that its upstream is reached, too.
            let sent = client.send(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x05ready\x04test\0\0\x01\0\x01");
            let mut reply = [0; 512];
            if sent.is_ok() && client.recv(&mut reply).is_ok_and(|len| len > 12 && reply[3] & 0xf == 0) {
                return Ok(running);
            }
            sleep(Duration::from_millis(50));
        }
        let said = fs::read_to_string(log).unwrap_or_default();
        Err(io::Error::other(format!("{command:?} does not answer: {said}")))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
