//! What the `sampan` commands can ask a running gateway: JSON over HTTP on a Unix socket.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/health` | [`TranslatorHealth`], at once: no worker is asked |
//! | `GET /v1/sessions`, `GET /v1/bib` | [`Page`] of rows; `addr6`, `addr4`, `port`, `protocol`, `unit`, `cursor`, `limit` |
//! | `GET /v1/drops` | list of [`DropRow`] |
//! | `POST /v1/reload` | [`ReloadView`], or 422 with [`Refusal`]; `lang` |
//! | `POST /v1/stop` | 202; `flush` |
//!
//! Names and types here are read by scripts: add fields, never change one.

mod ask;
mod server;

use serde::{Deserialize, Serialize};

use super::health::{Ailment, TranslatorHealth};
use super::problem::{Problem, ProblemView};
use crate::nat64::settings::{BibRow, RowFilter, SessionRow};
use crate::text::Lang;

pub use ask::{AskError, ask};
pub use server::{BindError, BindFault, Listener, bind, serve};

/// Largest number of rows in one page.
pub const MAX_PAGE: usize = 1_000;

/// The running gateway, as the admin socket sees it. Every method may block for a moment; none runs on the thread
/// that serves the socket.
pub trait Backend: Send + Sync + 'static {
    /// The state of everything.
    fn status(&self) -> Status;

    /// Whether the translator works.
    fn health(&self) -> TranslatorHealth;

    /// At most `limit` sessions that match, from `cursor` on.
    fn sessions(&self, filter: &RowFilter, cursor: Option<Cursor>, limit: usize) -> Page<SessionRow>;

    /// At most `limit` BIB entries that match, from `cursor` on.
    fn bib(&self, filter: &RowFilter, cursor: Option<Cursor>, limit: usize) -> Page<BibRow>;

    /// Every drop counter, zeros included.
    fn drops(&self) -> Vec<DropRow>;

    /// Takes over the changed file, or refuses it and changes nothing.
    fn reload(&self) -> Result<ReloadReport, Vec<Problem>>;

    /// Begins to stop. With `flush`, device and routes go too.
    fn stop(&self, flush: bool);
}

/// Where the next page begins. Opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A string, because many JSON readers round large numbers.
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Some rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// The state of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running program.
    pub version: String,
    /// Seconds since it is ready.
    pub uptime_s: u64,
    /// Whether it does its work.
    pub health: Health,
    /// Whether the translator does, as DNS64 and router advertisements have it.
    #[serde(default)]
    pub translator: TranslatorHealth,
    /// Path of the configuration.
    pub config: String,
    /// Name of the TUN device.
    pub tun: String,
    /// Translation prefixes.
    pub pool6: Vec<String>,
    /// Ranges of the pool and their use.
    pub pool4: Vec<Pool4Status>,
    /// Sessions now.
    pub sessions: ByProtocol,
    /// Most sessions possible.
    pub sessions_limit: u64,
    /// BIB entries now.
    pub bib: ByProtocol,
    /// Subscribers that hold a block now.
    pub subscribers: u64,
    /// Most subscribers possible.
    pub subscribers_limit: u64,
    /// One entry for each worker.
    pub workers: Vec<WorkerStatus>,
    /// The DNS64, if there is one.
    pub dns64: Option<DnsStatus>,
    /// The fast path.
    #[serde(default)]
    pub fastpath: FastStatus,
    /// The stateless translator, if it is that one.
    #[serde(default)]
    pub siit: Option<SiitStatus>,
}

/// The fast path. What it has carried is in addition to what the workers count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastStatus {
    /// Whether there is one.
    pub on: bool,
    /// Why not, by a name that is the same in every language.
    pub code: String,
    /// The same in English.
    pub why: String,
    /// The same in Vietnamese.
    pub why_vi: String,
    /// Interfaces towards the clients.
    pub inside: String,
    /// Interfaces towards IPv4.
    pub outside: String,
    /// Flows that it carries now.
    pub flows: u64,
    /// Most flows possible.
    pub flows_limit: u64,
    /// Rules made since the start.
    pub installed: u64,
    /// Flows that found no room since the start.
    pub refused: u64,
    /// What became of all packets that its programs have seen since its maps were made, in a fixed order.
    pub counters: Vec<Counter>,
}

/// The stateless translator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiitStatus {
    /// Number of explicit address mappings.
    pub mappings: u64,
    /// IPv4 addresses of nodes under the prefix.
    pub translatable4: Vec<String>,
    /// IPv4 sources for ICMP errors of IPv6 routers.
    pub icmp6_pool4: Vec<String>,
}

/// Whether the gateway does its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// Why it is not `ok`, one sentence each, in English.
    pub reasons: Vec<String>,
    /// The same in Vietnamese.
    #[serde(default)]
    pub reasons_vi: Vec<String>,
}

impl Health {
    /// Takes in something that is wrong; the worst decides.
    pub fn worsen(&mut self, state: HealthState, reason: &Ailment) {
        self.state = self.state.max(state);
        self.reasons.push(reason.say(Lang::En));
        self.reasons_vi.push(reason.say(Lang::Vi));
    }

    /// Takes in the health of the translator. What fails for a moment does not count yet.
    pub fn follow(&mut self, translator: &TranslatorHealth) {
        let wrong = !translator.failing.is_empty() || !translator.warnings.is_empty();
        let state = match (translator.up, wrong) {
            (false, _) => HealthState::Failed,
            (true, true) => HealthState::Degraded,
            (true, false) => HealthState::Ok,
        };
        self.state = self.state.max(state);
        self.reasons.extend(translator.failing.iter().chain(&translator.warnings).cloned());
        self.reasons_vi.extend(translator.failing_vi.iter().chain(&translator.warnings_vi).cloned());
    }
}

/// Health in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Everything works.
    #[default]
    Ok,
    /// Something does not, but packets are translated.
    Degraded,
    /// Packets are not translated.
    Failed,
}

/// A range of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool4Status {
    /// The addresses.
    pub prefix: String,
    /// The ports.
    pub ports: String,
    /// `routed`, or `onlink` and the interface; behind it `draining` for a range that the configuration has no more.
    pub mode: String,
    /// Blocks in the range.
    pub blocks: u64,
    /// Blocks that subscribers hold.
    pub blocks_leased: u64,
}

/// A number for each protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByProtocol {
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP queries.
    pub icmp: u64,
}

impl ByProtocol {
    /// All together.
    pub const fn total(self) -> u64 {
        self.tcp.saturating_add(self.udp).saturating_add(self.icmp)
    }
}

/// What became of the packets of one worker. Every packet that it received or took is counted once in `translated`,
/// `absorbed`, `held`, `returned`, `dropped` or `passed`; every packet that went out once in `returned` or one of the `out_`
/// counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: u16,
    /// Packets from the device.
    pub packets_in: u64,
    /// Left as their translation.
    pub translated: u64,
    /// Became part of another one, as fragments do.
    pub absorbed: u64,
    /// Wait now for the rest of their datagram.
    pub held: u64,
    /// Were the machine's, and handed back to it.
    pub returned: u64,
    /// Refused for a named reason.
    pub dropped: u64,
    /// Given to the worker that owns them.
    pub passed: u64,
    /// Taken from other workers.
    pub taken: u64,
    /// Translations sent.
    pub out_translated: u64,
    /// Pieces of translations sent.
    pub out_pieces: u64,
    /// ICMP errors of our own sent.
    pub out_originated: u64,
    /// Sessions it owns.
    pub sessions: u64,
    /// BIB entries it owns.
    pub bib: u64,
}

/// The state of the DNS64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Addresses it answers on, over UDP and TCP.
    pub listen: Vec<String>,
    /// Addresses it answers on over TLS.
    #[serde(default)]
    pub tls: Vec<String>,
    /// Addresses it answers on over HTTPS.
    #[serde(default)]
    pub https: Vec<String>,
    /// Resolvers it asks.
    pub upstream: Vec<String>,
    /// Its counters, in a fixed order.
    pub counters: Vec<Counter>,
    /// How questions ended, by unit; the last row is the clients of no unit.
    #[serde(default)]
    pub units: Vec<DnsUnit>,
    /// The names that were asked most, where the operator has them kept.
    #[serde(default)]
    pub names: Vec<DnsName>,
}

/// How the questions of a unit ended, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsUnit {
    /// Its name; `None` is all clients of no unit.
    pub unit: Option<String>,
    /// Names with real IPv6 addresses.
    pub native: u64,
    /// Names with IPv4 only, reached through the translator.
    pub synthesised: u64,
    /// Names with IPv4 only that is not translated.
    pub ipv4_only: u64,
    /// Could not be answered.
    pub failed: u64,
    /// Everything else: other types, names that do not exist, bad queries.
    pub other: u64,
}

/// A name that is asked often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsName {
    /// How its questions ended: `native`, `synthesised`, `ipv4_only` or `failed`.
    pub class: String,
    /// The name.
    pub name: String,
    /// Questions since the start, or since names are kept; rather too many than too few.
    pub count: u64,
}

/// A named number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Name, the same in every language.
    pub name: String,
    /// Value since the start.
    pub value: u64,
}

/// A drop counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Name, the same in every language.
    pub name: String,
    /// Packets dropped for this reason since the start.
    pub count: u64,
    /// What the reason is, in English.
    pub meaning: String,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Paths of the keys that changed; empty when the file says what already runs.
    pub changed: Vec<String>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
}

/// What a reload did, in one language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadView {
    /// Paths of the keys that changed; empty when the file says what already runs.
    pub changed: Vec<String>,
    /// What is probably not meant.
    pub warnings: Vec<ProblemView>,
}

impl ReloadReport {
    /// The report in words.
    pub fn view(&self, lang: Lang) -> ReloadView {
        let warnings = self.warnings.iter().map(|problem| problem.view(lang)).collect();
        ReloadView { changed: self.changed.clone(), warnings }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// At least one.
    pub problems: Vec<ProblemView>,
}
