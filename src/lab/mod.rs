//! Layer 5: the laboratory. A whole network in namespaces of one machine: IPv6-only clients, the gateway, an IPv4
//! router and an IPv4-only server, with real software on it.
//!
//! One topology code serves the demonstration (`sampan lab demo`), training (`lab up`, `lab exec`), `tests/netns`
//! and `benches/box`. Everything carries the laboratory's id in its name, lives in its namespaces and in
//! `/run/sampan-lab/ID`, and is removed when the [`Lab`] is dropped, unless it is told to stay.
//!
//! Rooms: [`options`] what is asked for → [`plan`] hosts, cables, addresses → this file builds and removes it →
//! [`services`] on the server, [`gateway`] in the middle; [`netns`], [`tool`], [`state`], [`interrupt`] do the
//! chores; [`demo`] shows it in [`text`]'s languages, [`blast`] makes measured traffic, [`cli`] is the command.

pub mod blast;
pub mod cli;
pub mod demo;
pub mod error;
pub mod gateway;
pub mod interrupt;
pub mod netns;
pub mod options;
pub mod plan;
pub mod services;
pub mod state;
pub mod text;
pub mod tool;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

pub use error::LabError;
use netns::Netns;
pub use options::{Cable, Options, PoolMode, Translator};
pub use plan::Plan;
use plan::{HostPlan, Role};
use state::{Owner, State};
use tool::{Output, Place, Tool};

/// A host of a laboratory that is up.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    place: Place,
}

impl Host {
    /// Its name: `client1`, `gw`, `server`…
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> Netns {
        self.place.netns.clone().unwrap_or_else(|| Netns::named(&self.name))
    }

    /// A program to run here.
    pub fn tool(&self, program: &str) -> Tool {
        Tool::new(program).at(&self.place)
    }

    /// Runs a command line here, up to 60 s.
    pub fn run(&self, argv: &[&str]) -> Result<Output, LabError> {
        let (program, args) = argv.split_first().ok_or_else(|| LabError::Options("nothing to run".into()))?;
        self.tool(program).args(args.iter().copied()).limit(Duration::from_secs(60)).run()
    }
}

/// A laboratory that is up; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    state: State,
    plan: Plan,
    dir: PathBuf,
    hosts: Vec<Host>,
    services: Vec<(String, Child)>,
    stays: bool,
}

impl Lab {
    /// Builds it and starts everything on it. If anything fails, nothing is left.
    pub fn up(options: Options) -> Result<Self, LabError> {
        let mut lab = Self::wire(options)?;
        services::start(&mut lab)?;
        gateway::start(&mut lab)?;
        Ok(lab)
    }

    /// Builds the network only: hosts, cables, addresses, routes.
    pub fn wire(options: Options) -> Result<Self, LabError> {
        options.check()?;
        check_machine(&options)?;
        interrupt::watch()?;
        let plan = Plan::new(&options);
        let state = State { options, owner: Some(Owner::this()) };
        let dir = state.create()?;
        let hosts = hosts(&plan, &state.options.id, &dir);
        let lab = Self { state, plan, dir, hosts, services: Vec::new(), stays: false };
        lab.build()?;
        Ok(lab)
    }

    /// A laboratory that is up already and stays up when the value is dropped.
    pub fn open(id: &str) -> Result<Self, LabError> {
        let state = State::load(id)?;
        let plan = Plan::new(&state.options);
        let dir = state::dir(id);
        let hosts = hosts(&plan, id, &dir);
        Ok(Self { state, plan, dir, hosts, services: Vec::new(), stays: true })
    }

    /// Leaves it running without an owner.
    pub fn stay(mut self) -> Result<(), LabError> {
        self.state.owner = None;
        self.state.save()?;
        self.stays = true;
        Ok(())
    }

    /// Removes everything and says if something could not be removed.
    pub fn down(mut self) -> Result<(), LabError> {
        self.stays = true;
        self.remove()
    }

    /// What it was built from.
    pub fn options(&self) -> &Options {
        &self.state.options
    }

    /// Its hosts, cables and addresses.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where its files and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The gateway's admin socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// All hosts, from the clients to the server.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Result<&Host, LabError> {
        self.hosts.iter().find(|host| host.name == name).ok_or_else(|| LabError::NoHost {
            name: name.escape_debug().to_string(),
            known: self.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Runs `sampan ARGS --socket …` against this gateway.
    pub fn sampan(&self, args: &[&str]) -> Result<Output, LabError> {
        let socket = self.socket().display().to_string();
        self.host("gw")?
            .tool(&self.options().sampan.display().to_string())
            .args(args.iter().copied())
            .args(["--socket", &socket])
            .run()
    }

    /// Starts a program in the background on a host; its words go to `NAME.log`.
    pub fn start_service(&mut self, host: &Host, name: &str, tool: Tool) -> Result<(), LabError> {
        let log = self.dir.join(format!("{name}.log"));
        let child = tool.at(&host.place).start(&log)?;
        self.services.push((name.into(), child));
        Ok(())
    }

    /// Whether a service that this value started has ended.
    pub fn service_ended(&mut self, name: &str) -> bool {
        self.services
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name)
            .is_none_or(|(_, child)| !matches!(child.try_wait(), Ok(None)))
    }

    /// The process number of a service.
    pub fn service_pid(&self, name: &str) -> Option<u32> {
        self.services.iter().rev().find(|(known, _)| known == name).map(|(_, child)| child.id())
    }

    /// Waits until a service has ended (after a test has asked it to).
    pub fn wait_service(&mut self, name: &str, limit: Duration) -> Result<bool, LabError> {
        tool::until(limit, || self.service_ended(name))
    }

    /// Starts the gateway again with the configuration in [`Lab::dir`]`/sampan.toml`.
    pub fn restart_gateway(&mut self) -> Result<(), LabError> {
        let gw = self.host("gw")?.clone();
        gateway::start_again(self, &gw)
    }

    fn build(&self) -> Result<(), LabError> {
        let resolver = format!("nameserver {}\noptions timeout:2 attempts:2\n", self.plan.gateway6);
        services::write(&self.dir.join("resolv.conf"), resolver)?;
        services::write(&self.dir.join("nsswitch.conf"), "hosts: files dns\n")?;
        for host in &self.hosts {
            interrupt::check()?;
            host.netns().create()?;
            // Before any device exists, so that addresses are usable at once.
            host.netns().sysctl(&[
                ("ipv6/conf/all/disable_ipv6", "0"),
                ("ipv6/conf/default/disable_ipv6", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
            ])?;
        }
        for plan in &self.plan.hosts {
            interrupt::check()?;
            let host = self.host(&plan.name)?;
            self.build_devices(plan, host)?;
        }
        for plan in &self.plan.hosts {
            interrupt::check()?;
            let host = self.host(&plan.name)?;
            self.configure(plan, host)?;
        }
        Ok(())
    }

    /// Makes the cables whose near end is here, and a switch's bridge.
    fn build_devices(&self, plan: &HostPlan, host: &Host) -> Result<(), LabError> {
        let queues = self.options().queues;
        let mut script = String::new();
        if plan.role == Role::Switch {
            script.push_str("link add br0 type bridge mcast_snooping 0 stp_state 0\n");
        }
        // Every device has an index of its own in the whole laboratory: where both ends of a veth pair have the same
        // one, the kernel takes up to a second to notice that the link is up, and a bridge waits for that.
        let cables = self.plan.cables.iter().zip((101u32..).step_by(2));
        for (cable, index) in cables.filter(|(cable, _)| cable.near.host == plan.name) {
            let peer = self.host(&cable.far.host)?.netns();
            script.push_str(&format!(
                "link add {near} index {index} numtxqueues {queues} numrxqueues {queues} mtu {mtu} type veth \
                 peer name {far} index {peer_index} netns {peer} numtxqueues {queues} numrxqueues {queues} mtu {mtu}\n",
                near = cable.near.device,
                far = cable.far.device,
                mtu = cable.mtu,
                peer = peer.name(),
                peer_index = index + 1,
            ));
        }
        ip_batch(host, script)
    }

    /// Addresses, links up, routes, forwarding.
    fn configure(&self, plan: &HostPlan, host: &Host) -> Result<(), LabError> {
        let mut script = String::from("link set lo up\n");
        if plan.role == Role::Switch {
            script.push_str("link set br0 up\n");
        }
        for end in self.plan.cables.iter().flat_map(|c| [&c.near, &c.far]).filter(|e| e.host == plan.name) {
            for address in &end.addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                script.push_str(&format!("addr add {address} dev {}{nodad}\n", end.device));
            }
            if plan.role == Role::Switch {
                script.push_str(&format!("link set {} master br0\n", end.device));
            }
            script.push_str(&format!("link set {} up\n", end.device));
        }
        for route in &plan.routes {
            script.push_str(&format!("route add {route}\n"));
        }
        let translated =
            matches!(self.options().translator, Translator::Sampan | Translator::Tayga | Translator::Nothing);
        if plan.role == Role::Client && translated {
            // Not even the loopback address: this client has no IPv4 at all.
            script.push_str("addr del 127.0.0.1/8 dev lo\n");
        }
        ip_batch(host, script)?;
        // Traceroute and Path MTU tests send bursts; what they look for must not be lost to a rate limit.
        host.netns().sysctl(&[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")])?;
        match plan.role {
            Role::Router | Role::Gateway => {
                host.netns().sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
            }
            Role::Client | Role::Switch | Role::Server => Ok(()),
        }
    }

    fn remove(&mut self) -> Result<(), LabError> {
        let result = remove_by_id(&self.state.options.id);
        for (_, child) in &mut self.services {
            // Their namespaces are empty now, so they have ended; this only collects them.
            let _ = tool::until(Duration::from_secs(1), || !matches!(child.try_wait(), Ok(None)));
        }
        result
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("sampan lab: could not remove everything: {error}");
        }
    }
}

/// Removes all of a laboratory, known only by its id: processes, namespaces (with their devices, routes and TUN),
/// files.
pub fn remove_by_id(id: &str) -> Result<(), LabError> {
    let namespaces = Netns::list(&format!("sampan-{id}-"));
    netns::end_processes(&namespaces);
    for netns in &namespaces {
        netns.delete()?;
    }
    state::remove(id)
}

fn hosts(plan: &Plan, id: &str, dir: &Path) -> Vec<Host> {
    plan.hosts
        .iter()
        .map(|host| {
            let files = if host.role == Role::Client {
                vec![
                    (dir.join("resolv.conf"), "/etc/resolv.conf"),
                    (dir.join("nsswitch.conf"), "/etc/nsswitch.conf"),
                ]
            } else {
                Vec::new()
            };
            let netns = Netns::named(format!("sampan-{id}-{}", host.name));
            Host { name: host.name.clone(), place: Place { netns: Some(netns), files } }
        })
        .collect()
}

fn ip_batch(host: &Host, script: String) -> Result<(), LabError> {
    if script.is_empty() {
        return Ok(());
    }
    let out = host.tool("ip").args(["-batch", "-"]).input(script.clone()).run()?;
    out.check().map(drop).map_err(|error| {
        LabError::Step(format!("{}: {error}; it was told: {}", host.name, script.trim().replace('\n', "; ")))
    })
}

/// What must be there before anything is tried.
fn check_machine(options: &Options) -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let needs_tun = matches!(options.translator, Translator::Sampan | Translator::Tayga);
    if needs_tun && !Path::new("/dev/net/tun").exists() {
        return Err(LabError::NoTun);
    }
    let common = ["ip", "nginx", "nsd", "iperf3", "dig", "curl", "ping", "traceroute"];
    match common.iter().chain(gateway::tools(options.translator)).find(|tool| tool::find(tool).is_none()) {
        Some(missing) => Err(LabError::MissingTool((*missing).into())),
        None => Ok(()),
    }
}
