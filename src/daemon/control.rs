//! The running gateway as the admin socket sees it: asks the workers, adds up, reloads.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Clock};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::counters::{Counters, Totals};
use super::dns;
use super::fast::{Fast, WhyNot};
use super::health::State;
use super::ring::Exchange;
use super::worker::{Request, Requests};
use crate::addr::Prefix4;
use crate::control::admin::{
    Backend, ByProtocol, Counter, Cursor, DropRow, FastStatus, HealthState, Page, Pool4Status, ReloadReport,
    SiitStatus, Status, WorkerStatus,
};
use crate::control::diff::{self, Change};
use crate::control::health::{Ailment, TranslatorHealth};
use crate::control::plan::host::HostFacts;
use crate::control::plan::{Nat64Plan, Plan, Pool4Mode, Pool4Plan, TranslatorPlan};
use crate::control::problem::{Fault, Problem};
use crate::io::dns_net;
use crate::io::fastpath::Fault as FastFault;
use crate::io::netlink::{Netlink, Wanted};
use crate::nat64::engine::Engine;
use crate::nat64::pool4::Pool;
use crate::nat64::ride::Rides;
use crate::nat64::settings::{self, BibRow, Hops, Key, Mtu, RowFilter, SessionRow};
use crate::siit::{self, Siit};
use crate::text::Lang;
use crate::time::Instant;
use crate::verdict::DropReason;

/// How long a worker may take to answer. It answers between two batches, so this is only met by a stuck one.
const PATIENCE: Duration = Duration::from_secs(2);

/// What ends the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It runs.
    No,
    /// Leave the device and its routes for a successor.
    Keep,
    /// Take the device and its routes away.
    Flush,
}

/// One worker from outside.
pub struct Contact {
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// Its books.
    pub counters: Arc<Counters>,
}

/// The mailbox of a worker, by what it runs.
pub enum Mailbox {
    /// The stateful translator.
    Nat64(Arc<Requests<Engine>>),
    /// The stateless translator.
    Siit(Arc<Requests<Siit>>),
}

/// Everything the admin socket needs.
pub struct Control {
    /// The fast path, or why there is none.
    pub fast: Result<Arc<Fast>, WhyNot>,
    /// The DNS64, if there is one.
    pub dns: Option<Arc<dns_net::Shared>>,
    /// The workers.
    pub contacts: Vec<Contact>,
    /// To wake them.
    pub exchange: Arc<Exchange>,
    /// Whether the translator works.
    pub health: State,
    /// What runs now.
    pub running: Mutex<Running>,
    /// Where the configuration is.
    pub config: PathBuf,
    /// Whether the block journal is written as it should, if there is one.
    pub journal_healthy: Option<Arc<AtomicBool>>,
    /// Secret of the pool, if there is one.
    pub key: Option<Key>,
    /// Index of the TUN.
    pub tun: u32,
    /// When the gateway became ready.
    pub since: Clock,
    /// The runtime that netlink lives on.
    pub runtime: Handle,
    /// The connection to the kernel.
    pub netlink: Netlink,
    /// Tells everybody to end.
    pub stop: watch::Sender<Stop>,
}

/// What a reload replaces.
pub struct Running {
    /// The plan.
    pub plan: Plan,
    /// The pool of all workers, in stateful mode.
    pub pool: Option<Arc<Pool>>,
    /// Ranges that the plan has no more, while flows of theirs go on.
    pub kept: Vec<Pool4Plan>,
    /// The machine's own addresses that clients do not reach.
    pub own: Arc<[Ipv4Addr]>,
}

/// Packets that the fast path drops by itself: name, its counter, meaning.
const FAST_DROPS: &[(&str, &str, &str)] = &[
    (
        "fastpath_policed",
        "drop_policed",
        "more packets without a rule than one subscriber may send up to user space",
    ),
    ("fastpath_failed", "drop_failed", "the kernel could not rewrite the packet, for lack of memory"),
];

/// Between two looks at what changes by itself.
const LOOK: Duration = Duration::from_secs(5);
/// Before the first one: what the system does to new devices is done by then.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Takes the routes of ranges away whose last flow has ended, and follows the machine's own addresses. Never ends by
/// itself.
pub async fn look_after(control: Arc<Control>) {
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK;
        let control = control.clone();
        let looked = tokio::task::spawn_blocking(move || {
            control.follow_own_addresses();
            control.keep_accepting_local();
            control.drop_drained()
        });
        if let Ok(Err(problem)) = looked.await {
            tracing::error!("routes of drained pool addresses: {}", problem.view(Lang::En).message);
        }
    }
}

/// What a plan wants from the kernel.
pub fn wanted(plan: &Plan) -> Wanted {
    wanted_with(plan, &[])
}

/// The same, with ranges that are kept.
fn wanted_with(plan: &Plan, kept: &[Pool4Plan]) -> Wanted {
    let nat64 = match &plan.translator {
        TranslatorPlan::Nat64(nat64) => nat64,
        TranslatorPlan::Siit(siit) => {
            return Wanted { pool6: siit.routed6(), pool4: siit.routed4(), proxy: Vec::new() };
        }
    };
    // What this machine has is led to it, not to the TUN.
    let pool4 = || nat64.pool4.iter().chain(kept).filter(|pool| pool.mode != Pool4Mode::Shared);
    Wanted {
        pool6: nat64.pool6.iter().map(|p| p.prefix()).collect(),
        pool4: pool4().map(|p| p.range.prefix).collect(),
        proxy: pool4()
            .filter_map(|p| match &p.mode {
                Pool4Mode::Routed | Pool4Mode::Shared => None,
                Pool4Mode::OnLink { interface } => Some((p.range.prefix, interface.clone())),
            })
            .collect(),
    }
}

impl Control {
    /// Has a stateful worker do something between two batches. `None` when it does not answer.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        worker: usize,
        what: impl FnOnce(&mut Engine, Instant) -> R + Send + 'static,
    ) -> Option<R> {
        match &self.contacts.get(worker)?.mailbox {
            Mailbox::Nat64(requests) => self.put(worker, requests, what),
            Mailbox::Siit(_) => None,
        }
    }

    /// The same for a stateless worker.
    pub(super) fn ask_siit<R: Send + 'static>(
        &self,
        worker: usize,
        what: impl FnOnce(&mut Siit, Instant) -> R + Send + 'static,
    ) -> Option<R> {
        match &self.contacts.get(worker)?.mailbox {
            Mailbox::Nat64(_) => None,
            Mailbox::Siit(requests) => self.put(worker, requests, what),
        }
    }

    fn put<T: 'static, R: Send + 'static>(
        &self,
        worker: usize,
        requests: &Requests<T>,
        what: impl FnOnce(&mut T, Instant) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = sync_channel(1);
        let request: Request<T> = Box::new(move |translator, now| {
            // Fails only when nobody waits for the answer any more.
            let _ = answer.send(what(translator, now));
        });
        requests.push(request).ok()?;
        self.exchange.wake(worker as u16);
        answered.recv_timeout(PATIENCE).ok()
    }

    pub(super) fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        // A panic while it was held left a whole value: it is replaced in one assignment.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One page of a table: worker by worker, slot by slot. The cursor is both.
    fn page<R: Send + 'static>(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
        rows: impl Fn(&Engine, Instant, u32, usize) -> (Vec<R>, Option<u32>) + Clone + Send + 'static,
    ) -> Page<R> {
        let at = cursor.map_or(0, |c| c.0);
        let (mut worker, mut slot) = ((at >> 32) as usize, at as u32);
        let mut page = Page { rows: Vec::new(), next: None };
        while worker < self.contacts.len() {
            let (rows, room) = (rows.clone(), limit.saturating_sub(page.rows.len()));
            if room == 0 {
                page.next = Some(Cursor((worker as u64) << 32 | u64::from(slot)));
                break;
            }
            match self.ask(worker, move |engine, now| rows(engine, now, slot, room)) {
                Some((more, Some(next))) => {
                    page.rows.extend(more);
                    slot = next;
                }
                Some((more, None)) => {
                    page.rows.extend(more);
                    (worker, slot) = (worker + 1, 0);
                }
                None => (worker, slot) = (worker + 1, 0),
            }
        }
        page
    }

    fn apply(&self, change: &settings::Change, running: &mut Running, plan: &Plan) -> Result<(), Problem> {
        let pool = match change {
            settings::Change::Pool4(_) => match (plan.nat64(), &self.key, &running.pool) {
                (Some(nat64), Some(key), Some(pool)) => {
                    let settings = nat64.settings(*key, Mtu::default(), Hops::KernelForwards);
                    Some(Arc::new(Pool::new(&settings, Some(pool))))
                }
                // Only the stateful translator has a pool to change.
                (_, _, _) => None,
            },
            settings::Change::Units(_)
            | settings::Change::Ports(_)
            | settings::Change::Quotas(_)
            | settings::Change::Filtering(_)
            | settings::Change::Allow(_)
            | settings::Change::Timers(_)
            | settings::Change::Static(_) => None,
        };
        if let (Ok(fast), settings::Change::Units(units), Some(nat64)) =
            (&self.fast, change, running.plan.nat64())
        {
            fast.revoke(&nat64.units, units, nat64);
        }
        if let settings::Change::Filtering(filtering) = change {
            self.tell_fast_path(|fast| fast.set_filtering(&plan.fastpath, filtering));
        }
        for worker in 0..self.contacts.len() {
            let (change, pool) = (change.clone(), pool.clone());
            let done = self.ask(worker, move |engine, _| {
                engine.change(&change);
                if let Some(pool) = pool {
                    engine.set_pool(pool);
                }
            });
            if done.is_none() {
                return Err(no_answer(worker));
            }
        }
        if let Some(pool) = pool {
            let was = running.plan.nat64().map(|nat64| nat64.pool4.clone()).unwrap_or_default();
            let gone = was.into_iter().chain(running.kept.iter().cloned()).filter(|old| {
                let is_there = |new: &Nat64Plan| new.pool4.iter().any(|p| p.range.prefix == old.range.prefix);
                !plan.nat64().is_some_and(is_there) && is_draining(&pool, old)
            });
            let kept: Vec<_> = gone.collect();
            let wanted = wanted_with(plan, &kept);
            self.route(&wanted_with(&running.plan, &running.kept), &wanted)?;
            self.tell_fast_path(|fast| fast.set_pool4(wanted.pool4));
            (running.pool, running.kept) = (Some(pool), kept);
        }
        Ok(())
    }

    /// Takes the routes of kept ranges away that have no flow any more.
    fn drop_drained(&self) -> Result<(), Problem> {
        let mut running = self.running();
        let Some(pool) = running.pool.clone().filter(|_| !running.kept.is_empty()) else { return Ok(()) };
        let kept: Vec<_> = running.kept.iter().filter(|range| is_draining(&pool, range)).cloned().collect();
        if kept.len() < running.kept.len() {
            let wanted = wanted_with(&running.plan, &kept);
            self.route(&wanted_with(&running.plan, &running.kept), &wanted)?;
            self.tell_fast_path(|fast| fast.set_pool4(wanted.pool4));
            running.kept = kept;
        }
        Ok(())
    }

    /// Flows at addresses that the fast path does not hear of go through the TUN.
    fn tell_fast_path(&self, tell: impl FnOnce(&Fast) -> Result<(), FastFault>) {
        if let Ok(fast) = &self.fast
            && let Err(fault) = tell(fast)
        {
            tracing::warn!("the fast path goes by the settings of before: {fault}");
        }
    }

    /// What the gateway wants from the kernel now.
    pub fn wanted(&self) -> Wanted {
        let running = self.running();
        wanted_with(&running.plan, &running.kept)
    }

    fn apply_siit(
        &self,
        change: &siit::settings::Change,
        running: &Running,
        plan: &Plan,
    ) -> Result<(), Problem> {
        for worker in 0..self.contacts.len() {
            let change = change.clone();
            if self.ask_siit(worker, move |siit, _| siit.change(change)).is_none() {
                return Err(no_answer(worker));
            }
        }
        self.route(&wanted(&running.plan), &wanted(plan))
    }

    /// Goes from some routes to others.
    fn route(&self, before: &Wanted, after: &Wanted) -> Result<(), Problem> {
        let routed = self.netlink.apply(self.tun, after, before);
        self.runtime
            .block_on(routed)
            .map_err(|e| Problem::of_file(Fault::NotApplied { reason: e.to_string() }))
    }

    fn fast_status(&self) -> FastStatus {
        let counter = |(name, value): (&str, u64)| Counter { name: name.into(), value };
        match &self.fast {
            Ok(fast) => {
                let (flows_limit, inside, outside) = fast.size();
                FastStatus {
                    on: true,
                    inside,
                    outside,
                    flows_limit: flows_limit.into(),
                    counters: fast.counters().into_iter().map(counter).collect(),
                    ..FastStatus::default()
                }
            }
            Err(why) => FastStatus {
                code: why.code(),
                why: why.what(Lang::En),
                why_vi: why.what(Lang::Vi),
                ..FastStatus::default()
            },
        }
    }

    fn worker_status(&self, worker: usize, contact: &Contact) -> (WorkerStatus, Option<Tables>) {
        let totals = contact.counters.totals();
        let tables = match &contact.mailbox {
            Mailbox::Nat64(_) => self.ask(worker, |engine, _| Tables {
                sessions: by_protocol(engine.session_counts()),
                bib: by_protocol(engine.binding_counts()),
                subscribers: engine.subscribers().into(),
                rides: engine.rides_ended().unwrap_or_default(),
            }),
            // It has no tables, but it answers.
            Mailbox::Siit(_) => self.ask_siit(worker, |_, _| Tables::default()),
        };
        let status = WorkerStatus {
            worker: worker as u16,
            packets_in: totals.received,
            translated: totals.translated,
            absorbed: totals.absorbed,
            held: totals.held,
            returned: totals.returned,
            dropped: totals.dropped(),
            passed: totals.passed,
            taken: totals.taken,
            out_translated: totals.out_translated,
            out_pieces: totals.out_pieces,
            out_originated: totals.out_originated,
            sessions: tables.as_ref().map_or(0, |t| t.sessions.total()),
            bib: tables.as_ref().map_or(0, |t| t.bib.total()),
        };
        (status, tables)
    }
}

/// How full the tables of one worker are.
#[derive(Default)]
struct Tables {
    sessions: ByProtocol,
    bib: ByProtocol,
    subscribers: u64,
    rides: Rides,
}

fn is_draining(pool: &Pool, range: &Pool4Plan) -> bool {
    pool.draining().any(|(addr, _)| range.range.prefix.contains(addr))
}

fn by_protocol([tcp, udp, icmp]: [u32; 3]) -> ByProtocol {
    ByProtocol { tcp: tcp.into(), udp: udp.into(), icmp: icmp.into() }
}

fn add(sum: &mut ByProtocol, more: ByProtocol) {
    sum.tcp += more.tcp;
    sum.udp += more.udp;
    sum.icmp += more.icmp;
}

fn no_answer(worker: usize) -> Problem {
    Problem::of_file(Fault::NotApplied { reason: format!("worker {worker} does not answer") })
}

impl Backend for Control {
    fn status(&self) -> Status {
        let (plan, pool, kept) = {
            let running = self.running();
            (running.plan.clone(), running.pool.clone(), running.kept.clone())
        };
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.since.elapsed().as_secs(),
            config: self.config.display().to_string(),
            tun: plan.tun_name.clone(),
            ..Status::default()
        };
        match &plan.translator {
            TranslatorPlan::Nat64(nat64) => nat64_status(nat64, &kept, pool.as_deref(), &mut status),
            TranslatorPlan::Siit(siit) => {
                let text = |prefixes: &[Prefix4]| prefixes.iter().map(ToString::to_string).collect();
                status.pool6.push(siit.prefix.to_string());
                status.siit = Some(SiitStatus {
                    mappings: siit.eam.rows().len() as u64,
                    translatable4: text(&siit.translatable4),
                    icmp6_pool4: text(&siit.icmp6_pool4),
                });
            }
        }
        if let (Some(dns), Some(plan)) = (&self.dns, &plan.dns64) {
            status.dns64 = Some(dns::status(dns, plan));
        }
        status.fastpath = self.fast_status();
        for (worker, contact) in self.contacts.iter().enumerate() {
            let (row, tables) = self.worker_status(worker, contact);
            match tables {
                Some(tables) => {
                    status.fastpath.flows += u64::from(tables.rides.flows);
                    status.fastpath.installed += tables.rides.installed;
                    status.fastpath.refused += tables.rides.refused;
                    add(&mut status.sessions, tables.sessions);
                    add(&mut status.bib, tables.bib);
                    status.subscribers += tables.subscribers;
                }
                None => {
                    status.health.worsen(HealthState::Failed, &Ailment::Stuck { worker });
                }
            }
            status.workers.push(row);
        }
        if self.journal_healthy.as_ref().is_some_and(|h| !h.load(Ordering::Relaxed)) {
            status.health.worsen(HealthState::Degraded, &Ailment::Journal);
        }
        status.translator = self.health.view();
        status.health.follow(&status.translator);
        status
    }

    fn health(&self) -> TranslatorHealth {
        self.health.view()
    }

    fn sessions(&self, filter: &RowFilter, cursor: Option<Cursor>, limit: usize) -> Page<SessionRow> {
        let filter = filter.clone();
        self.page(cursor, limit, move |engine, now, slot, room| engine.session_rows(now, &filter, slot, room))
    }

    fn bib(&self, filter: &RowFilter, cursor: Option<Cursor>, limit: usize) -> Page<BibRow> {
        let filter = filter.clone();
        self.page(cursor, limit, move |engine, _, slot, room| engine.bib_rows(&filter, slot, room))
    }

    fn drops(&self) -> Vec<DropRow> {
        let mut totals = Totals::default();
        for contact in &self.contacts {
            totals.add(&contact.counters.totals());
        }
        let row = |(reason, count): (&DropReason, u64)| DropRow {
            name: reason.name().into(),
            count,
            meaning: reason.meaning().into(),
        };
        let mut rows: Vec<_> = DropReason::ALL.iter().zip(totals.drops).map(row).collect();
        let counters = self.fast.as_ref().map(|fast| fast.counters()).unwrap_or_default();
        for (name, counter, meaning) in FAST_DROPS {
            let count = counters.iter().find(|(n, _)| n == counter).map_or(0, |(_, value)| *value);
            rows.push(DropRow { name: (*name).into(), count, meaning: (*meaning).into() });
        }
        rows
    }

    fn reload(&self) -> Result<ReloadReport, Vec<Problem>> {
        let mut running = self.running();
        let reload = diff::reload(&running.plan, &self.config, &HostFacts::read())?;
        for change in &reload.changes {
            match change {
                Change::Nat64(change) => {
                    self.apply(change, &mut running, &reload.checked.plan).map_err(|p| vec![p])?;
                }
                Change::Siit(change) => {
                    self.apply_siit(change, &running, &reload.checked.plan).map_err(|p| vec![p])?;
                }
                Change::Dns64(change) => {
                    if let Some(dns) = &self.dns {
                        dns.apply(dns::changes(change));
                    }
                }
                // Whoever looks after it reads the plan at every look.
                Change::Health(_) => {}
            }
        }
        let renewed = self.dns.as_ref().map(|dns| dns::renew(dns, reload.certificates)).unwrap_or_default();
        running.plan = reload.checked.plan;
        let changed: Vec<_> =
            reload.changes.iter().map(Change::key).chain(renewed).map(str::to_owned).collect();
        tracing::info!(changes = changed.len(), "configuration reloaded");
        Ok(ReloadReport { changed, warnings: reload.checked.warnings })
    }

    fn stop(&self, flush: bool) {
        self.stop.send_replace(if flush { Stop::Flush } else { Stop::Keep });
    }
}

fn nat64_status(plan: &Nat64Plan, kept: &[Pool4Plan], pool: Option<&Pool>, status: &mut Status) {
    status.pool6 = plan.pool6.iter().map(ToString::to_string).collect();
    status.sessions_limit = plan.limits.sessions.into();
    status.subscribers_limit = plan.limits.subscribers.into();
    let usage: Vec<_> = pool.map(|pool| pool.usage_by_range().collect()).unwrap_or_default();
    for (range, (blocks, leased)) in plan.pool4.iter().zip(usage) {
        status.pool4.push(pool4_status(range, blocks, leased));
    }
    for range in kept {
        let draining = pool.into_iter().flat_map(Pool::draining);
        let leased =
            draining.filter(|(addr, _)| range.range.prefix.contains(*addr)).map(|(_, leased)| leased);
        let mut row = pool4_status(range, 0, leased.sum());
        row.mode.push_str(" draining");
        status.pool4.push(row);
    }
}

fn pool4_status(range: &Pool4Plan, blocks: u64, blocks_leased: u64) -> Pool4Status {
    Pool4Status {
        prefix: range.range.prefix.to_string(),
        ports: format!("{}-{}", range.range.ports.start(), range.range.ports.end()),
        mode: match &range.mode {
            Pool4Mode::Routed => "routed".into(),
            Pool4Mode::OnLink { interface } => format!("onlink {interface}"),
            Pool4Mode::Shared => "shared".into(),
        },
        blocks,
        blocks_leased,
    }
}
