//! The cases: one laboratory each, client – gateway – server on two cables, all alive at the same time.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::{GW_OUTSIDE, SERVER, SERVER6};
use sampan::lab::tool::{Output, Tool, until};
use sampan::lab::{Lab, LabError, Options, Translator};
use serde::Serialize;

use crate::cpu::{Group, Softirq};

/// Ports of the traffic tools' servers.
pub const ECHO: u16 = 7007;
const CONNECT: u16 = 7008;
const GSO: u16 = 7009;

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
    /// Another program of Sampan, from --against
    #[value(skip)]
    Against,
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
    client: Group,
    gateway: Group,
    server: Group,
}

impl Case {
    /// The name in options, tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Nat44 => "nat44",
            Self::Tayga => "tayga",
            Self::Fast => "fast",
            Self::Sampan => "sampan",
            Self::Sampan1 => "sampan1",
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
            Self::Sampan1 => "Sampan, 1 worker",
            Self::Against => "Sampan, --against",
        }
    }

    fn translator(self) -> Translator {
        match self {
            Self::Forward => Translator::Forward,
            Self::Nat44 => Translator::Nat44,
            Self::Tayga => Translator::Tayga,
            Self::Fast | Self::Sampan | Self::Sampan1 | Self::Against => Translator::Sampan,
        }
    }
}

impl Stand {
    /// Builds it. `program` is the Sampan of this case, `tools` the one that makes the traffic in all cases.
    pub fn up(case: Case, program: &Path, tools: &Path) -> Result<Self, LabError> {
        let id = format!("bench{}{}", std::process::id(), case.name());
        let group = |role: &str| Group::new(&format!("sampan-{id}-{role}"));
        let mut options = Options::new(&id, program);
        options.translator = case.translator();
        options.clients = 1;
        options.outside_routers = 0;
        options.workers = (case == Case::Sampan1).then_some(1);
        // One client makes the connections of many.
        options.nat64_extra = "ports = { max-blocks = 0 }\n".into();
        options.fast_path = match case {
            // And all of them have one address.
            Case::Fast => Some("mode = \"require\"\nmiss-rate = 0\n".into()),
            // A program of before the fast path knows no key of it.
            Case::Against => None,
            Case::Forward | Case::Nat44 | Case::Tayga | Case::Sampan | Case::Sampan1 => {
                Some("mode = \"off\"\n".into())
            }
        };
        let lab = Lab::up(options)?;
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
        Ok(stand)
    }

    /// Where the client finds the server.
    pub fn target(&self) -> IpAddr {
        match self.case {
            Case::Forward => SERVER6.into(),
            Case::Nat44 => SERVER.into(),
            Case::Tayga | Case::Fast | Case::Sampan | Case::Sampan1 | Case::Against => {
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
        self.lab.host("client1")?.tool("sh").args(all).limit(Duration::from_secs(30)).run()
    }

    /// Runs `sampan lab blast TOOL SERVER:PORT …` on the client.
    pub fn blast(&self, tool: &str, more: &[&str]) -> Result<Output, LabError> {
        let port = match tool {
            "connect" => CONNECT,
            "gso" => GSO,
            _ => ECHO,
        };
        let at = SocketAddr::new(self.target(), port).to_string();
        let args: Vec<_> =
            ["lab", "blast", tool, &at].iter().chain(more).map(|word| (*word).to_owned()).collect();
        self.client_runs(&self.tools.display().to_string(), &args)
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
        let status: serde_json::Value =
            serde_json::from_str(&self.lab.sampan(&["status", "--json"])?.check()?)
                .map_err(|e| LabError::Step(format!("sampan status --json: {e}")))?;
        let sum = |key: &str| -> u64 {
            let workers = status.get("workers").and_then(|w| w.as_array()).into_iter().flatten();
            workers.filter_map(|w| w.get(key)?.as_u64()).sum()
        };
        let received = sum("packets_in");
        Ok(Some((received, sum("passed") as f64 / (received as f64).max(1.0))))
    }

    fn serve(&mut self) -> Result<(), LabError> {
        let host = self.lab.host("server")?.clone();
        let own: IpAddr = if self.case == Case::Forward { SERVER6.into() } else { SERVER.into() };
        for (tool, port) in [("echo-server", ECHO), ("connect-server", CONNECT), ("gso-server", GSO)] {
            let at = SocketAddr::new(own, port).to_string();
            let program = Tool::new(self.tools.display().to_string()).args(["lab", "blast", tool, &at]);
            self.lab.start_service(&host, tool, program)?;
        }
        for service in ["iperf3-5201", "echo-server", "connect-server", "gso-server"] {
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
