//! What runs on the server: nginx with a page, NSD with a small zone, iperf3. All of it fictitious and in one place.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::error::LabError;
use super::plan::{DNS_UPSTREAM, SERVER, SERVER6};
use super::tool::{Tool, until};
use super::{Host, Lab};

/// A line of the portal's page that nothing else prints.
pub const PAGE_MARK: &str = "Sampan lab: provincial portal";
/// Bytes of `/big.bin`.
pub const BIG_FILE: usize = 4 * 1024 * 1024;
/// Ports of the iperf3 servers; each serves one client at a time.
pub const IPERF_PORTS: [u16; 2] = [5201, 5202];
/// How long a program may take until it serves; an emulated machine is slow.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(60);

/// Starts everything on the server and waits until it listens.
pub(super) fn start(lab: &mut Lab) -> Result<(), LabError> {
    let dir = lab.dir().to_owned();
    let server = lab.host("server")?.clone();
    write_web(&dir)?;
    write_zone(&dir)?;

    let nginx = Tool::new("nginx").args(["-p", &path(&dir, "web"), "-c", &path(&dir, "web/nginx.conf")]);
    lab.start_service(&server, "nginx", nginx)?;
    let nsd = Tool::new("nsd").args(["-d", "-c", &path(&dir, "dns/nsd.conf")]);
    lab.start_service(&server, "nsd", nsd)?;
    for port in IPERF_PORTS {
        let iperf = Tool::new("iperf3").args(["-s", "-p", &port.to_string()]);
        lab.start_service(&server, &format!("iperf3-{port}"), iperf)?;
    }

    wait_listening(&server, &dir, "nginx", (SERVER, 80).into())?;
    // NSD opens its ports before it has read its zones; only an answer shows that it is ready.
    if !until(START_PATIENCE, || answers(&server, DNS_UPSTREAM.into()))? {
        return Err(not_ready("nsd", &dir));
    }
    for port in IPERF_PORTS {
        wait_listening(&server, &dir, &format!("iperf3-{port}"), (SERVER, port).into())?;
    }
    Ok(())
}

/// Waits until a TCP port of a host is open, seen from that host itself.
pub(super) fn wait_listening(
    host: &Host,
    dir: &Path,
    service: &str,
    address: SocketAddr,
) -> Result<(), LabError> {
    let netns = host.netns();
    let open = until(START_PATIENCE, || {
        netns
            .run(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok())
            .unwrap_or(false)
    })?;
    if open { Ok(()) } else { Err(not_ready(service, dir)) }
}

/// Whether a DNS server answers a host's question for `portal.tinh.example AAAA` at all.
pub(super) fn answers(host: &Host, server: IpAddr) -> bool {
    const QUESTION: &[u8] =
        b"\x4c\x41\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06portal\x04tinh\x07example\x00\x00\x1c\x00\x01";
    let to = SocketAddr::new(server, 53);
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let asked = host.netns().run(|| {
        let socket = UdpSocket::bind(any).ok()?;
        // Connected, so that a port that is not open yet is an error at once.
        socket.connect(to).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        socket.send(QUESTION).ok()?;
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply).ok()?;
        // Same identifier, a response.
        (len >= 12 && reply.starts_with(b"\x4c\x41") && reply[2] & 0x80 != 0).then_some(())
    });
    matches!(asked, Ok(Some(())))
}

/// The error of a service that did not get ready, with its last words.
pub(super) fn not_ready(service: &str, dir: &Path) -> LabError {
    let log = dir.join(format!("{service}.log"));
    let said = fs::read_to_string(&log).unwrap_or_default();
    LabError::Step(format!("{service} did not start; its last words: {}", super::tool::tail(&said)))
}

fn write_web(dir: &Path) -> Result<(), LabError> {
    let web = dir.join("web");
    make_dir(&web.join("logs"))?;
    make_dir(&web.join("files"))?;
    let at = web.display();
    let page = format!(
        "<!doctype html>\\n<title>{PAGE_MARK}</title>\\n<h1>Cổng thông tin tỉnh / {PAGE_MARK}</h1>\\n\
         <p>This server has IPv4 only. You reached it from $remote_addr.</p>\\n"
    );
    // One worker, everything inside the laboratory's directory, access log off so that long runs do not fill it.
    let conf = format!(
        "daemon off;\nuser www-data;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  charset utf-8;\n  default_type text/html;\n  sendfile on;\n  \
         client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/fastcgi;\n  \
         uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n  \
         server {{\n    listen 80 default_server;\n    listen [::]:80 default_server ipv6only=on;\n    \
         root {at}/files;\n    location = / {{ return 200 \"{page}\"; }}\n    \
         location = /whoami {{ default_type text/plain; return 200 \"$remote_addr\\n\"; }}\n  }}\n}}\n"
    );
    write(&web.join("nginx.conf"), conf)?;
    write(&web.join("files/big.bin"), pattern(BIG_FILE))
}

/// A zone with one name for every case that a DNS64 must tell apart.
fn write_zone(dir: &Path) -> Result<(), LabError> {
    let dns = dir.join("dns");
    make_dir(&dns)?;
    let soa =
        "@ IN SOA ns.tinh.example. hostmaster.tinh.example. 1 3600 600 86400 30\n@ IN NS ns.tinh.example.\n";
    let zone = format!(
        "$ORIGIN tinh.example.\n$TTL 300\n{soa}\
         ns       IN A     {DNS_UPSTREAM}\n\
         @        IN MX    10 mail\n\
         mail     IN A     203.0.113.25\n\
         portal   IN A     {SERVER}\n\
         speed    IN A     {SERVER}\n\
         short    20 IN A  {SERVER}\n\
         dual     IN A     {SERVER}\n\
         dual     IN AAAA  {SERVER6}\n\
         only6    IN AAAA  {SERVER6}\n\
         mapped   IN A     {SERVER}\n\
         mapped   IN AAAA  ::ffff:203.0.113.9\n\
         www      IN CNAME portal\n\
         chain    IN CNAME step\n\
         step     IN CNAME portal\n\
         private  IN A     10.1.2.3\n\
         loop     IN A     127.0.0.1\n\
         many     IN A     {SERVER}\n\
         many     IN A     203.0.113.81\n\
         many     IN A     203.0.113.82\n\
         text     IN TXT   \"no address here\"\n\
         large    IN TXT   {large}\n",
        large = vec![format!("\"{}\"", "x".repeat(250)); 12].join(" "),
    );
    let reverse = format!(
        "$ORIGIN 113.0.203.in-addr.arpa.\n$TTL 300\n{soa}80 IN PTR portal.tinh.example.\n\
         53 IN PTR ns.tinh.example.\n"
    );
    write(&dns.join("tinh.zone"), zone)?;
    write(&dns.join("reverse.zone"), reverse)?;
    let at = dns.display();
    // `broken.example` has no zone file: every question about it ends in SERVFAIL. Large answers are sent to whoever
    // takes them, so that there are fragments to see.
    let conf = format!(
        "server:\n  ip-address: {DNS_UPSTREAM}\n  username: \"\"\n  zonesdir: \"{at}\"\n  database: \"\"\n  \
         pidfile: \"{at}/nsd.pid\"\n  xfrdfile: \"{at}/xfrd.state\"\n  xfrdir: \"{at}\"\n  \
         zonelistfile: \"{at}/zone.list\"\n  server-count: 1\n  rrl-ratelimit: 0\n  \
         ipv4-edns-size: 4096\n  verbosity: 1\nremote-control:\n  control-enable: no\n\
         zone:\n  name: tinh.example\n  zonefile: tinh.zone\n\
         zone:\n  name: 113.0.203.in-addr.arpa\n  zonefile: reverse.zone\n\
         zone:\n  name: broken.example\n  zonefile: missing.zone\n"
    );
    write(&dns.join("nsd.conf"), conf)
}

/// Bytes that a swapped or lost piece would change.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).step_by(8).flat_map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes()).collect()
}

pub(super) fn make_dir(dir: &Path) -> Result<(), LabError> {
    let doing = format!("make {}", dir.display());
    fs::create_dir_all(dir).map_err(LabError::io(doing.clone()))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(LabError::io(doing))
}

pub(super) fn write(file: &Path, content: impl AsRef<[u8]>) -> Result<(), LabError> {
    fs::write(file, content).map_err(LabError::io(format!("write {}", file.display())))
}

pub(super) fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}
