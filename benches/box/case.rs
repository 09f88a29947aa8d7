//! The cases: one laboratory each, client – gateway – server on two cables, all alive at the same time.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::{GW_OUTSIDE, Plan, SERVER, SERVER6};
use sampan::lab::tool::{Output, Tool, until};
use sampan::lab::{Lab, LabError, Options, Translator};
use serde::Serialize;

use crate::cpu::{self, Softirq};
use crate::svg::Group;

/// Ports of the traffic tools' servers.
const ECHO: u16 = 7007;
const CONNECT: u16 = 7008;
const GSO: u16 = 7009;
const OFFER: u16 = 7010;

/// The addresses of the network with many flows; it is behind the client.
const NETWORK: &str = "2001:db8:6:100::/64";
/// And who of it speaks in the tests: this many addresses with [`FLOWS_OF_ONE`] flows each, 100,000 flows.
const SPEAKERS: u32 = 12_500;
const FLOWS_OF_ONE: u16 = 8;
/// More pool addresses for many flows: some of those that RFC 6890 sets aside for measurements.
const POOL4: &str = "198.18.0.0/23";

/// How long a traffic tool may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// What stands in the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Kernel IPv6 forwarding
    Forward,
    /// Kernel NAT44, nftables masquerade
    Nat44,
    /// Debian's tayga (stateless), with nftables masquerade for the N:1 part
    Tayga,
    /// Sampan with the fast path
    Fast,
    /// Sampan over TUN alone, default number of workers
    Sampan,
    /// Sampan over TUN, one worker
    Sampan1,
    /// Sampan with the fast path, one worker
    Fast1,
    /// Sampan with the fast path and 1,000 flows on it
    #[value(name = "fast-1k")]
    #[serde(rename = "fast-1k")]
    Fast1k,
    /// Sampan with the fast path and 100,000 flows on it
    #[value(name = "fast-100k")]
    #[serde(rename = "fast-100k")]
    Fast100k,
    /// Sampan with the fast path and 1,000,000 flows on it
    #[value(name = "fast-1m")]
    #[serde(rename = "fast-1m")]
    Fast1m,
    /// Sampan over TUN with 1,000,000 sessions
    #[value(name = "sampan-1m")]
    #[serde(rename = "sampan-1m")]
    Sampan1m,
    /// Another program of Sampan, from --against
    #[value(skip)]
    Against,
}

/// Flows of a network behind the client.
#[derive(Clone, Copy, Debug)]
struct Flows {
    hosts: u32,
    of_each: u16,
}

/// CPU time by role, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    /// Of the client's processes.
    pub client: f64,
    /// Of the gateway's process.
    pub gateway: f64,
    /// Of the server's processes.
    pub server: f64,
    /// Of the kernel's softirq threads.
    pub ksoftirqd: f64,
}

/// A case that is up. The groups come last: they can go only when the laboratory's processes are gone.
pub struct Stand {
    /// Which case.
    pub case: Case,
    lab: Lab,
    tools: PathBuf,
    client: cpu::Group,
    gateway: cpu::Group,
    server: cpu::Group,
}

impl Case {
    /// All of them but the one of another program.
    pub const ALL: [Self; 11] = [
        Self::Forward,
        Self::Nat44,
        Self::Tayga,
        Self::Fast,
        Self::Fast1m,
        Self::Sampan,
        Self::Fast1,
        Self::Sampan1,
        Self::Fast1k,
        Self::Fast100k,
        Self::Sampan1m,
    ];
    /// The base point.
    pub const BASE: [Self; 6] =
        [Self::Forward, Self::Nat44, Self::Tayga, Self::Fast, Self::Fast1m, Self::Sampan];

    /// The name in options, tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Nat44 => "nat44",
            Self::Tayga => "tayga",
            Self::Fast => "fast",
            Self::Sampan => "sampan",
            Self::Sampan1 => "sampan1",
            Self::Fast1 => "fast1",
            Self::Fast1k => "fast-1k",
            Self::Fast100k => "fast-100k",
            Self::Fast1m => "fast-1m",
            Self::Sampan1m => "sampan-1m",
            Self::Against => "against",
        }
    }

    /// The name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Forward => "kernel IPv6 forwarding",
            Self::Nat44 => "kernel NAT44",
            Self::Tayga => "tayga + masquerade",
            Self::Fast => "Sampan fast path",
            Self::Sampan => "Sampan over TUN",
            Self::Sampan1 => "TUN, 1 worker",
            Self::Fast1 => "fast path, 1 worker",
            Self::Fast1k => "fast path, 1 k flows",
            Self::Fast100k => "fast path, 100 k flows",
            Self::Fast1m => "fast path, 1 M flows",
            Self::Sampan1m => "TUN, 1 M sessions",
            Self::Against => "Sampan, --against",
        }
    }

    /// Whether it can carry the load of many flows: the network behind the client reaches the server, and the flows are
    /// there before they are measured.
    pub fn takes_many(self) -> bool {
        self == Self::Forward
            || self.flows().is_some_and(|flows| flows.number() >= SPEAKERS * u32::from(FLOWS_OF_ONE))
    }

    /// Its colour.
    pub fn group(self) -> Group {
        match self.translator() {
            Translator::Forward | Translator::Nat44 => Group::Kernel,
            Translator::Sampan => Group::Ours,
            Translator::Tayga | Translator::Nothing => Group::Other,
        }
    }

    fn translator(self) -> Translator {
        match self {
            Self::Forward => Translator::Forward,
            Self::Nat44 => Translator::Nat44,
            Self::Tayga => Translator::Tayga,
            Self::Fast
            | Self::Fast1
            | Self::Fast1k
            | Self::Fast100k
            | Self::Fast1m
            | Self::Sampan
            | Self::Sampan1
            | Self::Sampan1m
            | Self::Against => Translator::Sampan,
        }
    }

    fn rides(self) -> bool {
        matches!(self, Self::Fast | Self::Fast1 | Self::Fast1k | Self::Fast100k | Self::Fast1m)
    }

    /// What is installed before the first measurement.
    fn flows(self) -> Option<Flows> {
        match self {
            Self::Fast1k => Some(Flows { hosts: 125, of_each: FLOWS_OF_ONE }),
            Self::Fast100k => Some(Flows { hosts: SPEAKERS, of_each: FLOWS_OF_ONE }),
            Self::Fast1m | Self::Sampan1m => Some(Flows { hosts: 15_625, of_each: 64 }),
            Self::Forward
            | Self::Nat44
            | Self::Tayga
            | Self::Fast
            | Self::Fast1
            | Self::Sampan
            | Self::Sampan1
            | Self::Against => None,
        }
    }

    fn options(self, id: &str, program: &Path) -> Options {
        let mut options = Options::new(id, program);
        options.translator = self.translator();
        options.clients = 1;
        options.outside_routers = 0;
        options.workers = matches!(self, Self::Sampan1 | Self::Fast1).then_some(1);
        // One client makes the connections of many.
        options.nat64_extra = "ports = { max-blocks = 0 }\n".into();
        options.fast_path = if self.rides() {
            // And all of them have one address.
            Some("mode = \"require\"\nmiss-rate = 0\n".into())
        } else {
            // A program of before the fast path knows no key of it.
            (self != Self::Against).then(|| "mode = \"off\"\n".into())
        };
        if self.flows().is_some() {
            // They stay until the end, and connections come to them.
            options.nat64_extra +=
                "sessions = 2_000_000\nsubscribers = 65_536\ntimers = { udp-timeout = 14_400 }\n";
            options.config_extra = format!("\n[[nat64.pool4]]\nprefix = \"{POOL4}\"\n");
        }
        options
    }
}

impl Flows {
    fn number(self) -> u32 {
        self.hosts * u32::from(self.of_each)
    }
}

impl Stand {
    /// Builds it. `program` is the Sampan of this case, `tools` the one that makes the traffic in all cases.
    pub fn up(case: Case, program: &Path, tools: &Path) -> Result<Self, LabError> {
        let id = format!("bench{}{}", std::process::id(), case.name().replace('-', ""));
        let group = |role: &str| cpu::Group::new(&format!("sampan-{id}-{role}"));
        let lab = Lab::up(case.options(&id, program))?;
        if case == Case::Tayga {
            masquerade(&lab)?;
        }
        let mut stand = Self {
            case,
            lab,
            tools: tools.to_owned(),
            client: group("client")?,
            gateway: group("gateway")?,
            server: group("server")?,
        };
        stand.serve()?;
        stand.open_network()?;
        if let Some(flows) = case.flows() {
            stand.install(flows)?;
        }
        Ok(stand)
    }

    /// Where the client finds the server.
    pub fn target(&self) -> IpAddr {
        match self.case.translator() {
            Translator::Forward => SERVER6.into(),
            Translator::Nat44 => SERVER.into(),
            Translator::Tayga | Translator::Sampan | Translator::Nothing => {
                self.lab.options().pref64.embed(SERVER).into()
            }
        }
    }

    /// Runs a program on the client, its CPU time counted.
    pub fn client_runs(&self, program: &str, args: &[String]) -> Result<Output, LabError> {
        // The shell enters the group and becomes the program.
        let door = self.client.door().display().to_string();
        let enter = ["-c", "echo $$ >\"$0\" && exec \"$@\"", &door, program].map(str::to_owned);
        let all = enter.into_iter().chain(args.iter().cloned());
        self.lab.host("client1")?.tool("sh").args(all).limit(PATIENCE).run()
    }

    /// Runs `sampan lab blast TOOL SERVER:PORT …` on the client.
    pub fn blast(&self, tool: &str, more: &[&str]) -> Result<Output, LabError> {
        self.client_runs(&self.tools.display().to_string(), &self.blast_words(tool, more))
    }

    /// One small packet on the way at a time. Both ends have one CPU together: whether the scheduler puts them on one or
    /// on two makes a difference of ten times, and none of it is the gateway's.
    pub fn one_at_a_time(&self, seconds: u32) -> Result<Output, LabError> {
        let load = ["--ports", "1", "--outstanding", "1", "--seconds", &seconds.to_string()];
        let mut words = vec!["-c".to_owned(), "0".to_owned(), self.tools.display().to_string()];
        words.extend(self.blast_words("spread", &load));
        self.bind_echo("0")?;
        let output = self.client_runs("taskset", &words);
        self.bind_echo("0-1023")?;
        output
    }

    fn bind_echo(&self, cpus: &str) -> Result<(), LabError> {
        let pid = self.lab.service_pid("echo-server").map_or_else(String::new, |pid| pid.to_string());
        Tool::new("taskset").args(["-a", "-p", "-c", cpus, &pid]).run()?.check().map(drop)
    }

    fn blast_words(&self, tool: &str, more: &[&str]) -> Vec<String> {
        let port = match tool {
            "connect" => CONNECT,
            "gso" => GSO,
            "offer" => OFFER,
            _ => ECHO,
        };
        let at = SocketAddr::new(self.target(), port).to_string();
        ["lab", "blast", tool, &at].iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// Small UDP packets in a closed loop, by `hosts` of the network behind the client.
    pub fn spread(&self, hosts: u32, seconds: u32) -> Result<Output, LabError> {
        let (hosts, ports, seconds) =
            (hosts.min(SPEAKERS).to_string(), FLOWS_OF_ONE.to_string(), seconds.to_string());
        let load = ["--from", NETWORK, "--hosts", &hosts, "--ports", &ports, "--seconds", &seconds];
        self.blast("spread", &load)
    }

    /// CPU time used so far.
    pub fn cpu(&self, softirq: &Softirq) -> Result<Cpu, LabError> {
        Ok(Cpu {
            client: self.client.used()?.as_secs_f64(),
            gateway: self.gateway.used()?.as_secs_f64(),
            server: self.server.used()?.as_secs_f64(),
            ksoftirqd: softirq.used()?.as_secs_f64(),
        })
    }

    /// Gives Sampan's client another address. Without that it would come back within the four minutes that RFC 6146
    /// keeps a reset connection (TCP_TRANS), and meet old sessions instead of making new ones.
    pub fn renew_client(&self, round: u32) -> Result<(), LabError> {
        if self.case.translator() != Translator::Sampan {
            return Ok(());
        }
        let gateway = self.lab.plan().gateway6;
        let address = format!("2001:db8:6::1:{:x}", round + 1);
        let script = format!(
            "addr add {address}/64 dev eth0 nodad\nroute replace default via {gateway} src {address}\n"
        );
        let ip = self.lab.host("client1")?.tool("ip").args(["-batch", "-"]).input(script);
        ip.run()?.check().map(drop)
    }

    /// Sampan's own account of its packets: received, and the share of them that changed the worker.
    pub fn crossed(&self) -> Result<Option<(u64, f64)>, LabError> {
        if self.case.translator() != Translator::Sampan {
            return Ok(None);
        }
        let status = self.status()?;
        let received = of_workers(&status, "packets_in");
        Ok(Some((received, of_workers(&status, "passed") as f64 / (received as f64).max(1.0))))
    }

    /// How many flows there are at this moment, by Sampan's own account: those that ride where there is a fast path. An
    /// error when installed ones have gone.
    pub fn flows(&self) -> Result<Option<u64>, LabError> {
        if self.case.translator() != Translator::Sampan {
            return Ok(None);
        }
        let status = self.status()?;
        let at = if self.case.rides() { "/fastpath/flows" } else { "/sessions/udp" };
        let there = status.pointer(at).and_then(serde_json::Value::as_u64);
        let there = there.ok_or_else(|| LabError::Step(format!("sampan status --json has no {at}")))?;
        match self.case.flows() {
            Some(flows) if there < u64::from(flows.number()) => Err(LabError::Step(format!(
                "{}: {there} flows of {} are there",
                self.case.name(),
                flows.number()
            ))),
            _ => Ok(Some(there)),
        }
    }

    fn status(&self) -> Result<serde_json::Value, LabError> {
        serde_json::from_str(&self.lab.sampan(&["status", "--json"])?.check()?)
            .map_err(|e| LabError::Step(format!("sampan status --json: {e}")))
    }

    /// The network behind the client: all its addresses are the client's, and the gateway knows the way there.
    fn open_network(&self) -> Result<(), LabError> {
        let client = Plan::client6(1);
        for (host, route) in
            [("client1", format!("local {NETWORK} dev lo")), ("gw", format!("{NETWORK} via {client}"))]
        {
            let args = ["-6", "route", "add"].into_iter().chain(route.split(' '));
            self.lab.host(host)?.tool("ip").args(args).run()?.check()?;
        }
        Ok(())
    }

    /// Makes flows that stay: packets that the client's side sends twice and the server answers each time.
    fn install(&self, flows: Flows) -> Result<(), LabError> {
        let (hosts, ports) = (flows.hosts.to_string(), flows.of_each.to_string());
        let load = ["--from", NETWORK, "--hosts", &hosts, "--ports", &ports, "--seconds", "120"];
        for passes in ["2", "1", "1"] {
            self.blast("spread", &[&load[..], &["--passes", passes]].concat())?.check()?;
            if self.flows().is_ok() {
                return Ok(());
            }
        }
        self.flows().map(drop)
    }

    fn serve(&mut self) -> Result<(), LabError> {
        let host = self.lab.host("server")?.clone();
        let own: IpAddr = if self.case == Case::Forward { SERVER6.into() } else { SERVER.into() };
        for (tool, port) in
            [("echo-server", ECHO), ("connect-server", CONNECT), ("gso-server", GSO), ("offer-server", OFFER)]
        {
            let at = SocketAddr::new(own, port).to_string();
            let program = Tool::new(self.tools.display().to_string()).args(["lab", "blast", tool, &at]);
            self.lab.start_service(&host, tool, program)?;
        }
        for service in ["iperf3-5201", "echo-server", "connect-server", "gso-server", "offer-server"] {
            if let Some(pid) = self.lab.service_pid(service) {
                self.server.take(pid)?;
            }
        }
        if let Some(pid) = self.lab.service_pid(GATEWAY) {
            self.gateway.take(pid)?;
        }
        let listening = until(Duration::from_secs(10), || {
            let netns = host.netns();
            netns.run(|| TcpStream::connect((own, CONNECT)).is_ok()).unwrap_or(false)
        })?;
        // A first exchange through the gateway also resolves all neighbours.
        let deadline = Instant::now() + Duration::from_secs(10);
        while listening && Instant::now() < deadline {
            let said = self.blast("echo", &["--seconds", "0.1", "--outstanding", "8"])?.check()?;
            let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
            if report["lost"] == 0 && report["round_trips"].as_u64() > Some(0) {
                return Ok(());
            }
        }
        Err(LabError::Step(format!("{}: no packet comes through; see `sampan lab status`", self.case.name())))
    }
}

/// tayga alone gives every client an address of its own; many clients behind few addresses is what it leaves to the
/// kernel.
fn masquerade(lab: &Lab) -> Result<(), LabError> {
    let rules = format!(
        "table ip bench {{ chain post {{ type nat hook postrouting priority 100; oifname \"{GW_OUTSIDE}\" \
         masquerade; }}; }}"
    );
    lab.host("gw")?.tool("nft").args([rules]).run()?.check().map(drop)
}

fn of_workers(status: &serde_json::Value, key: &str) -> u64 {
    let workers = status.get("workers").and_then(|w| w.as_array()).into_iter().flatten();
    workers.filter_map(|w| w.get(key)?.as_u64()).sum()
}
