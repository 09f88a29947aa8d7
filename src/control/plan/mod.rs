//! The checked plan: what the operator wanted, with every default filled in and every contradiction refused.
//!
//! [`check`] needs nothing but the text; [`host`] compares the plan with the machine it shall run on.

mod dns;
mod dns_policy;
mod fastpath;
mod health;
pub mod host;
mod nat64;
mod ports;
mod ra;
mod siit;
mod static_bib;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::{self, At, Level, Reader};
use super::problem::{Fault, Places, Problem, Problems};
use crate::addr::Prefix4;
use crate::dns64;
use crate::io::dns_net::{Over, Upstream};
use crate::nat64::policy::{Assignment, PortPolicy, Quotas};
use crate::nat64::settings::{
    Classes, Filtering, Fragments, Hops, Key, Limits, Mtu, Pool4, Pool4Range, Settings, StaticEntry, Timers,
    Unit,
};
use crate::xlat::mss;
use crate::xlat::pref64::Pref64;

pub use fastpath::FastPlan;
pub use health::HealthPlan;
pub use ra::RaPlan;
pub use siit::SiitPlan;

/// Where the configuration is when nothing else is said.
pub const DEFAULT_CONFIG: &str = "/etc/sampan/sampan.toml";
/// Where the admin socket is when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/sampan/admin.sock";
/// The same for a DNS64 that runs by itself.
pub const DEFAULT_DNS64_SOCKET: &str = "/run/sampan/dns64.sock";
/// Largest number of workers.
pub const MAX_WORKERS: u16 = 64;

/// Everything that `sampan run` shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The translator.
    pub translator: TranslatorPlan,
    /// The fast path of the stateful one.
    pub fastpath: FastPlan,
    /// The DNS64, if there is one.
    pub dns64: Option<DnsPlan>,
    /// By what the translator counts as working.
    pub health: HealthPlan,
    /// Router advertisements, if there are any.
    pub ra: Option<RaPlan>,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// The same of a DNS64 that runs by itself.
    pub dns64_socket: PathBuf,
    /// Name of the TUN device.
    pub tun_name: String,
    /// How much is logged.
    pub log_level: Level,
}

/// One of the two translators.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub enum TranslatorPlan {
    /// Stateful.
    Nat64(Box<Nat64Plan>),
    /// Stateless.
    Siit(SiitPlan),
}

/// The stateful translator. [`Nat64Plan::settings`] makes the engine's settings of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat64Plan {
    /// Translation prefixes, at least one.
    pub pool6: Vec<Pref64>,
    /// The shared addresses, at least one range, disjoint.
    pub pool4: Vec<Pool4Plan>,
    /// Ports in one block.
    pub block_size: u16,
    /// How blocks come to subscribers.
    pub assignment: Assignment,
    /// Journal of the leased blocks.
    pub journal: PathBuf,
    /// How ports are chosen and given back.
    pub ports: PortPolicy,
    /// Who may have how much.
    pub quotas: Quotas,
    /// Prefix length that is one subscriber.
    pub subscriber_len: u8,
    /// File with the secret of the keyed hashes; made when it is missing.
    pub key_file: PathBuf,
    /// Number of workers, if the operator chose it.
    pub workers: Option<u16>,
    /// Who may answer a mapping.
    pub filtering: Filtering,
    /// Lifetimes.
    pub timers: Timers,
    /// The organisations served.
    pub units: Vec<Unit>,
    /// Non-global destinations that may be reached.
    pub allow: Vec<Allowed>,
    /// Whether clients reach the addresses of the machine itself.
    pub reach_gateway: bool,
    /// Mappings by the operator.
    pub static_bib: Vec<StaticEntry>,
    /// Table sizes.
    pub limits: Limits,
    /// MTUs, as far as the operator chose them.
    pub mtu: MtuPlan,
    /// Whether the TCP segment size is limited to what fits the links.
    pub mss_clamp: bool,
    /// Octets that are written whatever the packet says.
    pub classes: Classes,
    /// Bounds of reassembly.
    pub fragments: Fragments,
    /// Source of the ICMPv6 errors that the gateway originates.
    pub icmp6_source: Option<Ipv6Addr>,
}

/// A range of the pool and how it reaches this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool4Plan {
    /// Addresses and ports.
    pub range: Pool4Range,
    /// How packets to it come here.
    pub mode: Pool4Mode,
}

/// How packets to a pool range come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pool4Mode {
    /// A router sends them.
    Routed,
    /// This machine answers ARP for them on an interface.
    OnLink {
        /// Name of the interface.
        interface: String,
    },
    /// This machine has the address itself; the range's ports are the pool's.
    Shared,
}

/// A non-global destination that may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The addresses.
    pub prefix: Prefix4,
    /// What they are, for people; may be empty.
    pub name: String,
}

/// MTUs, as far as the operator chose them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuPlan {
    /// IPv6 side; otherwise that of the interface.
    pub v6: Option<u16>,
    /// IPv4 side; otherwise that of the interface.
    pub v4: Option<u16>,
    /// `lowest-ipv6-mtu`.
    pub lowest_ipv6: u16,
}

/// The DNS64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPlan {
    /// Addresses to answer on, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Resolvers to ask, best first.
    pub upstream: Vec<Upstream>,
    /// Those of the other groups, from group 1 on.
    pub groups: Vec<Vec<Upstream>>,
    /// Names of the units, as the statistics number them.
    pub units: Vec<String>,
    /// Memory of the caches and of questions in flight, in bytes.
    pub cache_bytes: usize,
    /// TLS and HTTPS for clients, if there is any.
    pub tls: Option<TlsPlan>,
    /// Bounds of the connections of clients.
    pub connections: ConnectionsPlan,
    /// File with the authorities that vouch for resolvers, in place of the system's.
    pub upstream_ca: Option<PathBuf>,
    /// How many names the statistics keep.
    pub top_names: usize,
    /// How questions are decided, with the translator's own prefixes and allowed destinations.
    pub settings: dns64::Settings,
}

/// DNS over TLS and HTTPS for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// Addresses to answer on over TLS.
    pub listen: Vec<SocketAddr>,
    /// Addresses to answer on over HTTPS.
    pub https: Vec<SocketAddr>,
    /// Path of the requests over HTTPS.
    pub https_path: String,
    /// File with the certificate and its issuers.
    pub certificate: PathBuf,
    /// File with its private key.
    pub key: PathBuf,
}

#[cfg(test)]
impl TlsPlan {
    /// With these files and nowhere to answer.
    pub(crate) fn of_files(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Self { listen: Vec::new(), https: Vec::new(), https_path: String::new(), certificate, key }
    }
}

/// Bounds of the connections of DNS clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionsPlan {
    /// Of all clients together.
    pub most: usize,
    /// Of one client address.
    pub per_client: usize,
    /// One without a question for so long is closed.
    pub idle: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
}

impl DnsPlan {
    /// Every address that it answers on, with the path of the key that says so.
    pub fn listeners(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        let tls = self.tls.iter();
        let lists = [("dns64.listen", &self.listen)]
            .into_iter()
            .chain(tls.flat_map(|tls| [("dns64.tls.listen", &tls.listen), ("dns64.tls.https", &tls.https)]));
        lists
            .flat_map(|(key, list)| list.iter().zip(0..).map(move |(addr, i)| (format!("{key}[{i}]"), *addr)))
    }

    /// Whether a resolver is asked over TLS or HTTPS.
    pub fn asks_over_tls(&self) -> bool {
        self.groups.iter().chain([&self.upstream]).flatten().any(|upstream| upstream.over != Over::Udp)
    }
}

/// A plan, and what was noticed while it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The plan.
    pub plan: Plan,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
    /// Where each key stands, for later complaints.
    pub places: Places,
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Checked, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![Problem::of_file(Fault::Unreadable {
            file: path.display().to_string(),
            reason: error.to_string(),
        })]
    })?;
    check(&text)
}

/// Checks a configuration by itself. On failure every problem is returned, warnings included.
pub fn check(text: &str) -> Result<Checked, Vec<Problem>> {
    let mut reader = Reader::new(text);
    let file = reader.file::<config::File>();
    let mut problems = reader.problems;
    let plan = file.map(|file| build(&file, &mut problems));
    let failed = problems.any_error();
    let (found, places) = problems.into_sorted();
    match plan {
        Some(plan) if !failed => Ok(Checked { plan, warnings: found, places }),
        _ => Err(found),
    }
}

/// The admin socket of a configuration, whatever else may be wrong with it; the default when it names none.
pub fn admin_socket(path: &Path) -> PathBuf {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let file = Reader::new(&text).file::<config::File>().unwrap_or_default();
    let socket = file.admin.and_then(|at| at.value.socket).map(|at| at.value);
    socket.filter(|path| path.is_absolute()).unwrap_or_else(|| DEFAULT_SOCKET.into())
}

impl Plan {
    /// The number of workers on a machine with `cpus` CPUs.
    pub fn workers(&self, cpus: usize) -> u16 {
        let chosen = match &self.translator {
            TranslatorPlan::Nat64(nat64) => nat64.workers,
            TranslatorPlan::Siit(siit) => siit.workers,
        };
        chosen.unwrap_or_else(|| u16::try_from(cpus).unwrap_or(MAX_WORKERS).clamp(1, MAX_WORKERS))
    }

    /// MTUs, as far as the operator chose them.
    pub fn mtu(&self) -> MtuPlan {
        match &self.translator {
            TranslatorPlan::Nat64(nat64) => nat64.mtu,
            TranslatorPlan::Siit(siit) => siit.mtu,
        }
    }

    /// Whether clients reach the addresses of the machine itself.
    pub fn reach_gateway(&self) -> bool {
        match &self.translator {
            TranslatorPlan::Nat64(nat64) => nat64.reach_gateway,
            TranslatorPlan::Siit(siit) => siit.reach_gateway,
        }
    }

    /// Source of the ICMPv6 errors that the gateway originates, if the operator chose it.
    pub fn icmp6_source(&self) -> Option<Ipv6Addr> {
        match &self.translator {
            TranslatorPlan::Nat64(nat64) => nat64.icmp6_source,
            TranslatorPlan::Siit(siit) => siit.icmp6_source,
        }
    }

    /// The stateful translator, if it is that one.
    pub fn nat64(&self) -> Option<&Nat64Plan> {
        match &self.translator {
            TranslatorPlan::Nat64(nat64) => Some(nat64),
            TranslatorPlan::Siit(_) => None,
        }
    }

    /// The addresses that the pool shares with this machine, with its ports.
    pub fn shared(&self) -> Vec<(Ipv4Addr, RangeInclusive<u16>)> {
        self.nat64().map(Nat64Plan::shared).unwrap_or_default()
    }

    /// The stateless translator, if it is that one.
    pub const fn siit(&self) -> Option<&SiitPlan> {
        match &self.translator {
            TranslatorPlan::Nat64(_) => None,
            TranslatorPlan::Siit(siit) => Some(siit),
        }
    }
}

impl Nat64Plan {
    /// The engine's settings, with what only the daemon knows.
    pub fn settings(&self, key: Key, mtu: Mtu, hops: Hops) -> Settings {
        Settings {
            pool6: self.pool6.clone(),
            pool4: Pool4 { ranges: self.ranges(), block_size: self.block_size, assignment: self.assignment },
            ports: self.ports,
            quotas: self.quotas,
            subscriber_len: self.subscriber_len,
            key,
            filtering: self.filtering,
            timers: self.timers.clone(),
            units: self.units.clone(),
            allow: self.allowed(),
            static_bib: self.static_bib.clone(),
            limits: self.limits,
            fragments: self.fragments,
            mtu,
            mss_clamp: self.mss_clamp.then(|| mss::fitting(mtu.v6, mtu.v4)),
            classes: self.classes,
            icmp6_source: self.icmp6_source,
            hops,
        }
    }

    /// The ranges of the pool.
    pub fn ranges(&self) -> Vec<Pool4Range> {
        self.pool4.iter().map(|pool| pool.range.clone()).collect()
    }

    /// Ports in one block of a range.
    pub fn block_size_of(&self, pool: &Pool4Plan) -> u16 {
        pool.range.block_size.unwrap_or(self.block_size)
    }

    /// Ports in the smallest block of the pool.
    pub fn smallest_block(&self) -> u16 {
        self.pool4.iter().map(|pool| self.block_size_of(pool)).min().unwrap_or(self.block_size)
    }

    /// The addresses that the pool shares with this machine, with its ports.
    pub fn shared(&self) -> Vec<(Ipv4Addr, RangeInclusive<u16>)> {
        let shared = self.pool4.iter().filter(|pool| pool.mode == Pool4Mode::Shared);
        shared.map(|pool| (pool.range.prefix.addr(), pool.range.ports.clone())).collect()
    }

    /// The non-global destinations that may be reached.
    pub fn allowed(&self) -> Vec<Prefix4> {
        self.allow.iter().map(|allowed| allowed.prefix).collect()
    }
}

impl MtuPlan {
    /// The MTUs, given those of the interfaces on both sides.
    pub fn resolve(self, v6: u16, v4: u16) -> Mtu {
        let v6 = self.v6.unwrap_or(v6).max(crate::nat64::settings::IPV6_MIN_MTU);
        Mtu { v6, v4: self.v4.unwrap_or(v4).max(68), lowest_ipv6: self.lowest_ipv6.min(v6) }
    }
}

fn build(file: &config::File, problems: &mut Problems) -> Plan {
    let tun = file.tun.as_ref().and_then(|at| at.value.name.as_ref());
    let tun_name = interface_name(tun, problems).unwrap_or_else(|| "nat64".into());
    let (translator, shared) = translator(file, &tun_name, problems);
    let fastpath = fastpath::build(file.fastpath.as_ref(), &translator, &tun_name, problems);
    let dns64 = file.dns64.as_ref().map(|at| dns::build(&at.value, &shared, problems));
    let health = health::build(file.health.as_ref(), problems);
    let ra = file.ra.as_ref().map(|at| ra::build(&at.value, &translator, &tun_name, problems));
    let admin = file.admin.as_ref().map(|at| at.value.clone()).unwrap_or_default();
    let admin_socket = socket(admin.socket.as_ref(), DEFAULT_SOCKET, problems);
    let dns64_socket = socket(admin.dns64_socket.as_ref(), DEFAULT_DNS64_SOCKET, problems);
    if let Some(at) = admin.dns64_socket.as_ref().filter(|_| dns64_socket == admin_socket) {
        let value = dns64_socket.display().to_string();
        problems.error(&at.path, Fault::Duplicate { value, at: "admin.socket".into() });
    }
    let level = file.log.as_ref().and_then(|at| at.value.level.as_ref());
    let log_level = level.map(|at| at.value).unwrap_or_default();
    Plan { translator, fastpath, dns64, health, ra, admin_socket, dns64_socket, tun_name, log_level }
}

/// The translator that the file asks for, and what the DNS64 shares with it.
fn translator(file: &config::File, tun_name: &str, problems: &mut Problems) -> (TranslatorPlan, dns::Shared) {
    let units = file.unit.as_ref();
    if let Some(at) = &file.siit {
        if file.nat64.is_some() {
            problems.error("siit", Fault::TwoTranslators);
        }
        let siit = siit::build(&at.value, problems);
        let shared = dns::Shared {
            units: units.map(|at| nat64::units(at, &[siit.prefix], 128, problems)).unwrap_or_default(),
            pool6: vec![siit.prefix],
            pool4: siit.routed4(),
            allow: siit.allowed(),
        };
        return (TranslatorPlan::Siit(siit), shared);
    }
    if file.nat64.is_none() && !problems.complained_at("nat64") {
        problems.error("nat64", Fault::Missing { key: "nat64".into(), example: "[nat64]".into() });
    }
    let section = file.nat64.as_ref().map(|at| at.value.clone()).unwrap_or_default();
    let nat64 = nat64::build(&section, units, tun_name, problems);
    let shared = dns::Shared {
        units: nat64.units.clone(),
        pool6: nat64.pool6.clone(),
        // The address of this machine may be asked and may answer.
        pool4: nat64
            .pool4
            .iter()
            .filter(|pool| pool.mode != Pool4Mode::Shared)
            .map(|pool| pool.range.prefix)
            .collect(),
        allow: nat64.allowed(),
    };
    (TranslatorPlan::Nat64(Box::new(nat64)), shared)
}

fn socket(at: Option<&At<PathBuf>>, default: &str, problems: &mut Problems) -> PathBuf {
    let path = absolute(at, default, problems);
    if let Some(at) = at.filter(|at| at.value.as_os_str().len() > 107) {
        problems.error(&at.path, Fault::SocketPathLong { value: at.value.display().to_string() });
    }
    path
}

fn absolute(at: Option<&At<PathBuf>>, default: &str, problems: &mut Problems) -> PathBuf {
    let Some(at) = at else { return default.into() };
    if !at.value.is_absolute() || at.value.as_os_str().as_encoded_bytes().contains(&0) {
        problems.error(
            &at.path,
            Fault::NotAbsolute { value: crate::text::shown(&at.value.display().to_string(), 80) },
        );
    }
    at.value.clone()
}

fn interface_name(at: Option<&At<String>>, problems: &mut Problems) -> Option<String> {
    let at = at?;
    let name = at.value.as_str();
    let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%');
    if name.is_empty()
        || name.len() > 15
        || name.contains(odd)
        || matches!(name, "." | ".." | "lo" | "all" | "default")
    {
        problems.error(&at.path, Fault::InterfaceName { value: crate::text::shown(name, 40) });
    }
    Some(at.value.clone())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_dns;
#[cfg(test)]
mod tests_health;
#[cfg(test)]
mod tests_inbound;
