//! Two units behind one gateway: A floods, B works. Shared by the campaign `flood` and its small brother in `tests/netns`.
//!
//! A has quotas, B has a reserve and no quota of any kind. So a drop that a quota's counter counts is A's, and any other
//! drop is laid at B's door.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::{GW_INSIDE, Plan, SERVER, SERVER6, TUN};
use sampan::lab::{Host, Translator};
use serde_json::Value;

use super::support::TestLab;

/// What A may have.
pub const A_SESSIONS: u64 = 1_600;
pub const A_UNANSWERED: u64 = 1_200;
pub const A_PORTS: u64 = 1_000;
pub const A_NEW_PER_SECOND: u64 = 500;
/// B's flows of each kind.
pub const FLOWS: u16 = 100;

/// Where the spray goes: addresses of the server's network that nobody answers for.
const SILENT4: &str = "203.0.113.128/25";
const SILENT6: &str = "2001:db8:4:fe::/121";
/// The server's side where packets are only forwarded.
const OUTSIDE6: &str = "2001:db8:4::/48";
const A_HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);
const B_HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1);
const PORT: u16 = 7200;
/// Counters of quotas, which only A has.
const QUOTAS: [&str; 4] = ["quota_ports", "quota_sessions", "quota_unanswered", "quota_rate"];
/// What the gateway's kernel says to multicast groups on the TUN; nobody here sends to one.
const CHATTER: &str = "illegal_destination";
/// How long a probe of the recovery waits for its answer.
const PROBE: Duration = Duration::from_millis(200);

/// What stands between the units and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Sampan as it comes.
    Sampan,
    /// Sampan with the fast path, or not at all.
    FastPath,
    /// The kernel, which forwards IPv6.
    Forward,
}

/// The laboratory with both units: A is `client1`, B is `client2`.
pub struct Ground {
    pub lab: TestLab,
    way: Way,
}

/// Everything that is counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Drops of the gateway by name.
    pub named: BTreeMap<String, u64>,
    /// Drops of queues by device, as the kernel counts them.
    pub queues: BTreeMap<String, u64>,
    /// Segments that B's side and the server sent again.
    pub retransmitted: u64,
    /// Packets that the gateway got from its LAN.
    pub from_lan: u64,
}

/// How much A has, and the gateway needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub at: Duration,
    pub sessions: u64,
    pub ports: u64,
    pub blocks: u64,
    pub rss_kib: u64,
}

impl Ground {
    pub fn new() -> Self {
        Self::with(Way::Sampan)
    }

    pub fn with(way: Way) -> Self {
        let lab = TestLab::with(|options| {
            options.translator = if way == Way::Forward { Translator::Forward } else { Translator::Sampan };
            if way == Way::FastPath {
                options.fast_path = Some("mode = \"require\"\n".into());
            }
            options.outside_routers = 0;
            options.workers = Some(2);
            // A's own hosts shall be served again as soon as its flood is over.
            options.nat64_extra = "when-full = \"mappings\"\n".into();
            options.config_extra = format!(
                "\n[[unit]]\nname = \"A\"\nprefixes = [\"2001:db8:a::/48\"]\nquota = {{ sessions = {A_SESSIONS}, \
                 unanswered = {A_UNANSWERED}, ports = {A_PORTS}, new-per-second = {A_NEW_PER_SECOND} }}\n\n\
                 [[unit]]\nname = \"B\"\nprefixes = [\"2001:db8:b::/48\"]\nquota = {{ reserve = 2000 }}\n"
            );
        });
        let gateway = lab.plan().gateway6;
        for (host, net, own, n) in
            [("client1", "2001:db8:a::/64", A_HOST, 1), ("client2", "2001:db8:b::/64", B_HOST, 2)]
        {
            let beyond = match way {
                Way::Forward => OUTSIDE6.to_owned(),
                Way::Sampan | Way::FastPath => lab.options().pref64.to_string(),
            };
            lab.on(host, &["ip", "addr", "add", &format!("{own}/128"), "dev", "eth0", "nodad"]);
            // Every address of the unit's network is this host's, and can be bound.
            lab.node(host).netns().sysctl(&[("ipv6/ip_nonlocal_bind", "1")]).unwrap();
            lab.on(host, &["ip", "-6", "route", "add", "local", net, "dev", "lo"]);
            let (via, own) = (gateway.to_string(), own.to_string());
            lab.on(host, &["ip", "-6", "route", "add", &beyond, "via", &via, "src", &own]);
            let client = Plan::client6(n).to_string();
            lab.on("gw", &["ip", "-6", "route", "add", net, "via", &client]);
        }
        let (silent, server): (_, IpAddr) = match way {
            Way::Forward => (SILENT6, SERVER6.into()),
            Way::Sampan | Way::FastPath => (SILENT4, SERVER.into()),
        };
        lab.on("gw", &["ip", "route", "add", silent, "via", &server.to_string()]);
        lab.on("server", &["ip", "route", "add", "blackhole", silent]);
        let mut ground = Self { lab, way };
        let (sampan, listen) = (ground.sampan(), SocketAddr::new(server, PORT));
        ground.lab.start("server", "flows", &[&sampan, "lab", "blast", "flows-server", &listen.to_string()]);
        let near = std::net::TcpStream::connect_timeout;
        let node = ground.lab.node("server");
        let listening = || node.netns().run(|| near(&listen, Duration::from_millis(200)).is_ok()).unwrap();
        assert!(sampan::lab::tool::until(Duration::from_secs(10), listening).unwrap());
        ground
    }

    /// The server as the units reach it.
    fn server(&self) -> Ipv6Addr {
        match self.way {
            Way::Forward => SERVER6,
            Way::Sampan | Way::FastPath => self.lab.embed(SERVER),
        }
    }

    fn sampan(&self) -> String {
        self.lab.options().sampan.display().to_string()
    }

    fn blast(&self, host: &str, limit: f64, args: &[String]) -> Value {
        let tool = self.lab.node(host).tool(&self.sampan()).args(["lab", "blast"]).args(args.iter().cloned());
        let out = tool.limit(Duration::from_secs_f64(limit + 30.0)).run().unwrap().check().unwrap();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// A floods; rate 0 is as fast as it can.
    pub fn flood(&self, rate: f64, seconds: f64, seed: u64) -> Value {
        let spray: sampan::addr::Prefix4 = SILENT4.parse().unwrap();
        let spray6 = match self.way {
            Way::Forward => SILENT6.to_owned(),
            Way::Sampan | Way::FastPath => {
                format!("{}/{}", self.lab.embed(spray.addr()), 96 + spray.len())
            }
        };
        let args = format!(
            "flood {} --from 2001:db8:a::/64 --spray {spray6} --rate {rate:.0} --seconds {seconds} --seed {seed}",
            self.server()
        );
        self.blast("client1", seconds, &args.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    /// B works.
    pub fn work(&self, rate: u16, seconds: f64) -> Value {
        let server = SocketAddr::from((self.server(), PORT));
        let args = format!("flows {server} --udp {FLOWS} --tcp {FLOWS} --rate {rate} --seconds {seconds}");
        self.blast("client2", seconds, &args.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    /// B fetches a page: how long it took, or what went wrong.
    pub fn page(&self) -> Result<f64, String> {
        let url = format!("http://[{}]/", self.lab.embed(SERVER));
        let out = self
            .lab
            .try_on("client2", &["curl", "-s", "-m", "5", "-w", "\n%{http_code} %{time_total}", &url]);
        let (page, last) = out.stdout.rsplit_once('\n').unwrap_or_default();
        match last.split_once(' ') {
            Some(("200", seconds)) if page.contains(sampan::lab::services::PAGE_MARK) => {
                seconds.parse().map_err(|_| last.to_owned())
            }
            _ => Err(format!("{:?}: {last}", out.status)),
        }
    }

    /// How long it takes until a host that the gateway has never seen gets an answer; `None` after the limit.
    pub fn recovery(&self, host: &str, limit: Duration) -> Option<Duration> {
        let began = Instant::now();
        let server = SocketAddr::from((self.server(), PORT));
        let net = if host == "client1" { A_HOST } else { B_HOST };
        let host = self.lab.node(host);
        let mut number = 0x5eed_0000_0000_0000_u128;
        while began.elapsed() < limit {
            number += 1;
            let new = Ipv6Addr::from_bits(net.to_bits() | number);
            let ask = || {
                let socket =
                    std::net::UdpSocket::bind((new, 0)).expect("any address of the unit can be bound");
                socket.set_read_timeout(Some(PROBE))?;
                // Not connected: an error that the gateway sends back is an answer that does not come.
                socket.send_to(&[0; 16], server)?;
                socket.recv_from(&mut [0; 16])
            };
            if host.netns().run(ask).unwrap().is_ok() {
                return Some(began.elapsed());
            }
        }
        None
    }

    /// How much A has of what it has a quota of, and what the gateway's memory is.
    pub fn sample(&self, since: Instant) -> Sample {
        let rows = |table: &str| {
            let said = self.json(&[table, "--unit", "A", "--json", "--all"]);
            said["rows"].as_array().expect("rows").len() as u64
        };
        let status = self.json(&["status", "--json"]);
        let leased = status["pool4"].as_array().expect("pools").iter().map(|p| &p["blocks_leased"]);
        Sample {
            at: since.elapsed(),
            sessions: rows("sessions"),
            ports: rows("bib"),
            blocks: leased.map(|n| n.as_u64().expect("a number")).sum(),
            rss_kib: self.rss_kib(),
        }
    }

    /// Memory of the gateway's process.
    pub fn rss_kib(&self) -> u64 {
        let pid = self.lab.service_pid(GATEWAY).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Everything that is counted, now.
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        if self.way != Way::Forward {
            let rows = self.json(&["drops", "--json", "--all"]);
            books.named.extend(rows.as_array().expect("rows").iter().map(|row| {
                (row["name"].as_str().expect("a name").to_owned(), row["count"].as_u64().expect("a count"))
            }));
        }
        for host in self.lab.hosts() {
            for (device, counters) in devices(host) {
                let [received, rx_drops, tx_drops] = counters;
                if host.name() == "gw" && device == GW_INSIDE {
                    books.from_lan = received;
                }
                let key = if device == TUN { TUN.into() } else { format!("{}.{device}", host.name()) };
                books.queues.insert(key, rx_drops + tx_drops);
            }
        }
        let again = |host: &str| self.lab.counters(host)["TcpRetransSegs"];
        books.retransmitted = again("client2") + again("server");
        books
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.lab.sampan(args).unwrap().check().unwrap();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

impl Books {
    /// What has come since `before`; zeros are left out.
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let rows = now.iter().map(|(k, n)| (k.clone(), n - then.get(k).copied().unwrap_or(0)));
            rows.filter(|(_, n)| *n > 0).collect()
        };
        Self {
            named: less(&self.named, &before.named),
            queues: less(&self.queues, &before.queues),
            retransmitted: self.retransmitted - before.retransmitted,
            from_lan: self.from_lan - before.from_lan,
        }
    }

    /// Packets that a full queue or ring refused, anybody's.
    pub fn overflowed(&self) -> u64 {
        let own = ["ring_full", "device_write"].iter().filter_map(|name| self.named.get(*name));
        self.queues.values().chain(own).sum()
    }

    /// Named drops that are neither A's quotas nor the gateway's own multicast: at worst B's.
    pub fn not_by_quota(&self) -> BTreeMap<String, u64> {
        self.named
            .iter()
            .filter(|(k, _)| !QUOTAS.contains(&k.as_str()) && *k != CHATTER)
            .map(|(k, n)| (k.clone(), *n))
            .collect()
    }

    /// Drops by A's quotas.
    pub fn by_quota(&self) -> u64 {
        QUOTAS.iter().filter_map(|name| self.named.get(*name)).sum()
    }
}

/// Packets received, and drops on the way in and out, of each device of a host.
fn devices(host: &Host) -> Vec<(String, [u64; 3])> {
    let text = host.netns().run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let row = |line: &str| {
        let (device, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().flat_map(str::parse).collect();
        let [_, packets, _, rx_drop, rx_fifo, .., tx_drop, tx_fifo, _, _, _] = numbers[..] else {
            return None;
        };
        Some((device.trim().to_owned(), [packets, rx_drop + rx_fifo, tx_drop + tx_fifo]))
    };
    text.lines().filter_map(row).filter(|(device, _)| device != "lo").collect()
}
