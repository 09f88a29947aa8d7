//! The fast path: whether there is one, and what keeps it going.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use super::control::wanted;
use super::error::StartError;
use super::now;
use crate::addr::Prefix4;
use crate::control::config::FastMode;
use crate::control::plan::host::HostFacts;
use crate::control::plan::{FastPlan, Nat64Plan, Plan, TranslatorPlan};
use crate::faults;
use crate::io::fastpath::{self, Config, FastPath, Fault};
use crate::io::netfilter::{self, OnPath};
use crate::io::netlink::{self, EthernetLinks};
use crate::nat64::adopt::NotAdopted;
use crate::nat64::engine::Engine;
use crate::nat64::scope::{self, Scopes};
use crate::nat64::settings::{Filtering, Mtu, Unit};
use crate::text::Lang;

/// Set in the environment, it makes this machine look like one that cannot have a fast path.
const OVERRIDE: &str = "SAMPAN_NO_FASTPATH";
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);

faults! {
    /// Why there is no fast path, as far as this machine and its configuration say.
    pub enum Unwanted {
        Off
            en "fastpath.mode is \"off\""
                => "set fastpath.mode = \"auto\""
            vi "fastpath.mode là \"off\""
                => "đặt fastpath.mode = \"auto\"";
        Stateless
            en "the stateless translator has none"
                => "use [nat64] if established flows are to be faster"
            vi "bộ chuyển dịch không trạng thái không có đường nhanh"
                => "dùng [nat64] nếu cần các luồng đã thiết lập nhanh hơn";
        Forward { chain: String }
            en "the firewall chain {chain} filters forwarded packets and would not see those of the fast path"
                => "set fastpath.mode = \"on\" if it need not see them"
            vi "chuỗi tường lửa {chain} lọc gói chuyển tiếp và sẽ không thấy gói đi đường nhanh"
                => "đặt fastpath.mode = \"on\" nếu nó không cần thấy các gói đó";
        Conntrack { user: String }
            en "connection tracking is in use ({user}) and would not see the packets of the fast path"
                => "set fastpath.mode = \"on\" if it need not see them"
            vi "theo dõi kết nối đang được dùng ({user}) và sẽ không thấy gói đi đường nhanh"
                => "đặt fastpath.mode = \"on\" nếu nó không cần thấy các gói đó";
        Unknown { reason: String }
            en "the firewall of this machine cannot be read: {reason}"
                => "set fastpath.mode = \"on\" if no firewall needs to see forwarded packets"
            vi "không đọc được tường lửa của máy này: {reason}"
                => "đặt fastpath.mode = \"on\" nếu không có tường lửa nào cần thấy gói chuyển tiếp";
        NoInside
            en "no Ethernet interface has a global IPv6 address"
                => "name the interfaces of the clients in fastpath.inside"
            vi "không có giao diện Ethernet nào có địa chỉ IPv6 toàn cục"
                => "ghi các giao diện phía máy khách vào fastpath.inside";
        NoOutside
            en "no Ethernet interface has an IPv4 address"
                => "name the interfaces towards IPv4 in fastpath.outside"
            vi "không có giao diện Ethernet nào có địa chỉ IPv4"
                => "ghi các giao diện phía IPv4 vào fastpath.outside";
        SharedOutside { address: String, interface: String }
            en "pool4 shares {address}, and {interface}, which has it, is no interface of the fast path"
                => "name {interface} in fastpath.outside; it must be an Ethernet interface"
            vi "pool4 dùng chung {address}, mà {interface} mang địa chỉ đó không thuộc đường nhanh"
                => "ghi {interface} vào fastpath.outside; nó phải là giao diện Ethernet";
        ReversePath { value: u8 }
            en "net.ipv4.conf.all.rp_filter is {value}: what comes from an address that pool4 shares would be dropped on the TUN"
                => "sysctl -w net.ipv4.conf.all.rp_filter=0; each interface keeps its own filter, net.ipv4.conf.<name>.rp_filter"
            vi "net.ipv4.conf.all.rp_filter bằng {value}: gói từ địa chỉ mà pool4 dùng chung sẽ bị loại ở TUN"
                => "sysctl -w net.ipv4.conf.all.rp_filter=0; mỗi giao diện vẫn giữ bộ lọc riêng, net.ipv4.conf.<tên>.rp_filter";
    }
}

/// Why there is no fast path.
#[derive(Clone, Debug)]
pub enum WhyNot {
    /// It is not wanted, or not wanted here.
    Unwanted(Unwanted),
    /// It cannot be had.
    Fault(Fault),
}

impl From<Unwanted> for WhyNot {
    fn from(why: Unwanted) -> Self {
        Self::Unwanted(why)
    }
}

impl From<Fault> for WhyNot {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl WhyNot {
    /// What stands in its way.
    pub fn what(&self, lang: Lang) -> String {
        match self {
            Self::Unwanted(why) => why.what(lang),
            Self::Fault(fault) => fault.what(lang),
        }
    }

    /// What the operator can do about it.
    pub fn remedy(&self, lang: Lang) -> String {
        match self {
            Self::Unwanted(why) => why.remedy(lang),
            Self::Fault(fault) => fault.remedy(lang),
        }
    }

    /// A name for scripts.
    pub fn code(&self) -> String {
        match self {
            Self::Unwanted(why) => why.code(),
            Self::Fault(fault) => fault.code(),
        }
    }

    /// Whether the operator said so.
    pub const fn is_wanted(&self) -> bool {
        matches!(self, Self::Unwanted(Unwanted::Off | Unwanted::Stateless))
    }
}

/// The fast path of a running gateway.
pub struct Fast {
    path: FastPath,
    scopes: Arc<Scopes>,
    config: Mutex<Config>,
    workers: u16,
}

impl Fast {
    /// Loads and attaches it, if it is wanted, possible, and bypasses nothing that it should not. Otherwise nothing of
    /// an earlier one is left.
    pub fn open(
        plan: &Plan,
        links: EthernetLinks,
        tun_index: u32,
        mtu: Mtu,
        workers: u16,
    ) -> Result<Self, WhyNot> {
        let opened = Self::try_open(plan, links, tun_index, mtu, workers);
        let pins = pins(plan);
        // Rules that nobody attends to must not go on. Where there are none another gateway may have its programs.
        if opened.is_err()
            && pins.exists()
            && let Err(error) = fastpath::flush(&pins)
        {
            tracing::warn!("the eBPF maps of before cannot be removed: {error}");
        }
        opened
    }

    fn try_open(
        plan: &Plan,
        links: EthernetLinks,
        tun_index: u32,
        mtu: Mtu,
        workers: u16,
    ) -> Result<Self, WhyNot> {
        let nat64 = match &plan.translator {
            TranslatorPlan::Nat64(nat64) => nat64,
            TranslatorPlan::Siit(_) => return Err(Unwanted::Stateless.into()),
        };
        match plan.fastpath.mode {
            FastMode::Off => return Err(Unwanted::Off.into()),
            FastMode::Auto => bypasses_nothing()?,
            FastMode::On | FastMode::Require => {}
        }
        if std::env::var_os(OVERRIDE).is_some() {
            return Err(Fault::Override { reason: format!("{OVERRIDE} is set") }.into());
        }
        fastpath::probe()?;
        let config = config(plan, nat64, links, tun_index, mtu, workers)?;
        shared_reaches_us(&config)?;
        let path = fastpath::open(&config)?;
        let scopes = Arc::new(Scopes::new(|number| path.generation(number)));
        Ok(Self { path, scopes, config: Mutex::new(config), workers })
    }

    /// Gives every engine its part, and has them take over the flows that were carried on: all at the same time, each its
    /// own, because no new flow works before that is done.
    pub fn board(&self, engines: &mut [Engine]) -> io::Result<()> {
        let mirrors = self.path.mirrors(self.workers);
        for (engine, mirror) in engines.iter_mut().zip(mirrors) {
            engine.set_mirror(mirror, self.scopes.clone());
        }
        let books = thread::scope(|scope| {
            let mut threads = Vec::new();
            for engine in engines {
                let thread = thread::Builder::new().name("adopt".into());
                threads.push(thread.spawn_scoped(scope, || self.adopt(engine))?);
            }
            let join = |thread: ScopedJoinHandle<'_, _>| {
                thread.join().map_err(|_| io::Error::other("a thread that takes over flows panicked"))
            };
            threads.into_iter().map(join).collect::<io::Result<Vec<[u32; 5]>>>()
        })?;
        let [adopted, forbidden, over, port, full] =
            books.iter().fold([0; 5], |all, own| std::array::from_fn(|i| all[i] + own[i]));
        if adopted + forbidden + over + port + full > 0 {
            tracing::info!(adopted, forbidden, over, port, full, "flows that were carried on");
        }
        Ok(())
    }

    /// Has an engine take over its flows; how many it took, and how many it refused for each reason.
    fn adopt(&self, engine: &mut Engine) -> [u32; 5] {
        let (now, mut books) = (now(), [0; 5]);
        for record in self.path.records() {
            let count = match engine.adopt(now, record.handle, &record.rule, &record.seen) {
                Ok(()) => &mut books[0],
                Err(NotAdopted::Elsewhere) => continue,
                Err(NotAdopted::Forbidden) => &mut books[1],
                Err(NotAdopted::Over) => &mut books[2],
                Err(NotAdopted::Port) => &mut books[3],
                Err(NotAdopted::Full) => &mut books[4],
            };
            *count += 1;
        }
        books
    }

    /// A sign of life.
    pub fn beat(&self) {
        self.path.heartbeat(now());
    }

    /// Units are about to change: what that takes away ends at once.
    pub fn revoke(&self, was: &[Unit], is: &[Unit], nat64: &Nat64Plan) {
        for number in scope::revoked(was, is, &nat64.ranges(), &nat64.pool6) {
            self.path.set_generation(number, self.scopes.generation(number).wrapping_add(1));
            self.scopes.renew(number);
        }
    }

    /// The pool has changed: these addresses are ours now.
    pub fn set_pool4(&self, pool4: Vec<Prefix4>) -> Result<(), Fault> {
        self.update(|config| config.pool4 = pool4)
    }

    /// Filtering has changed.
    pub fn set_filtering(&self, plan: &FastPlan, filtering: &Filtering) -> Result<(), Fault> {
        self.update(|config| config.miss_rate = miss_rate(plan, filtering))
    }

    fn update(&self, change: impl FnOnce(&mut Config)) -> Result<(), Fault> {
        let mut config = self.config();
        let mut new = config.clone();
        change(&mut new);
        self.path.update(&new)?;
        *config = new;
        Ok(())
    }

    /// Flows there is room for, and the interfaces.
    pub fn size(&self) -> (u32, String, String) {
        let config = self.config();
        (self.path.flows(), config.inside.join(", "), config.outside.join(", "))
    }

    /// Bytes of its tables.
    pub fn bytes(&self) -> usize {
        self.path.bytes()
    }

    /// What became of all packets that its programs saw.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.path.counters()
    }

    /// Takes it out of the kernel, as far as this process still may; `sampan stop --flush` does the rest.
    pub fn end(&self) {
        if let Err(error) = self.path.detach_and_unpin() {
            tracing::info!("the eBPF maps are left to `sampan stop --flush`: {error}");
        }
    }

    fn config(&self) -> std::sync::MutexGuard<'_, Config> {
        // A panic while it was held left a whole value: it is replaced in one assignment.
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says to the programs that somebody lives. Never ends by itself.
pub async fn keep_alive(fast: Arc<Fast>) {
    loop {
        tokio::time::sleep(BEAT).await;
        fast.beat();
    }
}

/// Where the maps of a gateway are kept.
pub fn pins(plan: &Plan) -> PathBuf {
    if let Some(pins) = &plan.fastpath.pins {
        return pins.clone();
    }
    let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    let name = format!("sampan-{}-{number}", plan.tun_name);
    let usual = Path::new("/sys/fs/bpf");
    if fastpath::is_bpf_fs(usual) { usual.join(name) } else { Path::new("/run").join(name) }
}

/// What could not be removed.
pub fn not_flushed(pins: &Path, error: &io::Error) -> StartError {
    StartError::NotFlushed { path: pins.display().to_string(), reason: error.to_string() }
}

/// Where nobody may ride, everything comes up.
const fn miss_rate(plan: &FastPlan, filtering: &Filtering) -> u32 {
    if filtering.inbound_refresh { plan.miss_rate } else { 0 }
}

/// Design rule 9: a redirect bypasses netfilter and conntrack.
fn bypasses_nothing() -> Result<(), Unwanted> {
    match netfilter::on_path() {
        Ok(None) => Ok(()),
        Ok(Some(OnPath::Forward { chain })) => Err(Unwanted::Forward { chain }),
        Ok(Some(OnPath::Conntrack { user })) => Err(Unwanted::Conntrack { user }),
        Err(error) => Err(Unwanted::Unknown { reason: error.to_string() }),
    }
}

/// Packets to an address that is shared come by an interface that has a program, and those from it pass the TUN.
fn shared_reaches_us(config: &Config) -> Result<(), Unwanted> {
    if config.shared.is_empty() {
        return Ok(());
    }
    let addresses = HostFacts::without_sockets().addresses;
    for (addr, _) in &config.shared {
        // What the loopback has is reached by any interface.
        let at = addresses.iter().find(|host| host.addr == *addr && host.interface != "lo");
        if let Some(host) = at.filter(|host| !config.outside.contains(&host.interface)) {
            let (address, interface) = (addr.to_string(), host.interface.clone());
            return Err(Unwanted::SharedOutside { address, interface });
        }
    }
    match netlink::reverse_path_of_all() {
        0 => Ok(()),
        value => Err(Unwanted::ReversePath { value }),
    }
}

fn config(
    plan: &Plan,
    nat64: &Nat64Plan,
    links: EthernetLinks,
    tun_index: u32,
    mtu: Mtu,
    workers: u16,
) -> Result<Config, WhyNot> {
    let inside = plan.fastpath.inside.clone().unwrap_or(links.v6);
    let outside = plan.fastpath.outside.clone().unwrap_or(links.v4);
    if inside.is_empty() {
        return Err(Unwanted::NoInside.into());
    }
    if outside.is_empty() {
        return Err(Unwanted::NoOutside.into());
    }
    // The engines leave the last part of the identifications to the programs.
    let span = 65_536 / (u32::from(workers) + 1);
    Ok(Config {
        max_flows: plan.fastpath.max_flows,
        orphan_limit: plan.fastpath.orphan_limit,
        inside,
        outside,
        tun_index,
        pool6: nat64.pool6.iter().map(|prefix| prefix.prefix()).collect(),
        pool4: wanted(plan).pool4,
        shared: nat64.shared(),
        mtu6: mtu.v6,
        mtu4: mtu.v4,
        lowest_ipv6_mtu: mtu.lowest_ipv6,
        tos: nat64.classes.tos,
        traffic_class: nat64.classes.traffic_class,
        miss_rate: miss_rate(&plan.fastpath, &nat64.filtering),
        miss_burst: plan.fastpath.miss_burst,
        subscriber_len: nat64.subscriber_len,
        port_shift: nat64.smallest_block().ilog2() as u8,
        ident_base: (u32::from(workers) * span) as u16,
        ident_span: span as u16,
        pin_dir: pins(plan),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(super::Unwanted::CATALOGUE);
    }
}
