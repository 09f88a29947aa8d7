//! Layer 6: the only place that composes, reads the clock, starts threads and drops privileges.
//!
//! [`run`] goes through these steps in order: look at the machine, key, TUN, routes, sockets, privileges away, threads,
//! ready. Nothing is started before everything is there, so that a gateway either works or says why not.

mod certificate;
mod control;
pub mod counters;
mod dns;
mod error;
mod fast;
mod health;
mod journal;
mod key;
mod notices;
mod only_dns;
mod own;
mod privileges;
mod ra;
pub mod ring;
mod stateful;
pub mod worker;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::control::{Contact, Control, Mailbox, Running, Stop, wanted};
use self::counters::{Counters, Totals};
pub use self::error::StartError;
use self::fast::{Fast, WhyNot};
use self::ring::Exchange;
use self::stateful::{Prepared, Stateful};
use self::worker::{Requests, Translator, Worker};
use crate::control::admin::{self, Backend, BindFault};
use crate::control::config::FastMode;
use crate::control::plan::{Nat64Plan, Plan, SiitPlan, TranslatorPlan};
use crate::io::netlink::{self, EthernetLinks, Netlink, NetlinkError, Wanted};
use crate::io::steering::{self, Notes};
use crate::io::tun::{self, TunQueue};
use crate::io::{fastpath, heap, random};
use crate::nat64::settings::{Hops, Key, Mtu};
use crate::siit::{self, Siit};
use crate::text::{Both, Lang};
use crate::time::Instant;
use crate::xlat::mss;

/// How long an idle worker sleeps before it looks at its timers.
const NAP: Duration = Duration::from_millis(250);
/// How long a worker lets packets of a bulk flow gather. Adds this much to the delay of flows that share the worker.
const PAUSE: Duration = Duration::from_micros(200);

/// Which part of a plan runs in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    All,
    /// The DNS64; the translator runs elsewhere, or nowhere.
    Dns64,
    /// The translator; the DNS64 runs elsewhere, or nowhere.
    Translator,
}

/// Runs the gateway, or a part of it, until it is told to stop.
pub fn run(plan: Plan, config: &Path, part: Part) -> Result<(), StartError> {
    heap::map_large_blocks();
    if part != Part::Dns64 {
        check_forwarding()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError::System { reason: e.to_string() })?;
    match part {
        Part::Dns64 => runtime.block_on(only_dns::compose(plan, config)),
        Part::All | Part::Translator => runtime.block_on(compose(plan, config, part)),
    }
}

/// Takes away what a gateway that does not run any more has left: device and routes.
pub fn flush(plan: &Plan) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError::System { reason: e.to_string() })?;
    runtime.block_on(async {
        let netlink = connect()?;
        netlink.apply_proxy(&Wanted::default(), &wanted(plan)).await.map_err(network)?;
        let pins = fast::pins(plan);
        fastpath::flush(&pins).map_err(|e| fast::not_flushed(&pins, &e))?;
        tun::remove(&plan.tun_name).map_err(|e| StartError::Tun { reason: e.to_string() })
    })
}

/// Removes what a gateway without powers over files could not remove itself when it was told to leave nothing behind.
pub fn remove_pins(plan: &Plan) -> Result<(), StartError> {
    let pins = fast::pins(plan);
    fastpath::remove_pins(&pins).map_err(|e| fast::not_flushed(&pins, &e))
}

/// The fast path, or why there is none, which is said once. Where the operator insists on it, that is the end.
fn open_fast_path(
    plan: &Plan,
    links: EthernetLinks,
    tun: u32,
    mtu: Mtu,
    workers: u16,
) -> Result<Result<Fast, WhyNot>, StartError> {
    let opened = Fast::open(plan, links, tun, mtu, workers);
    let reason = |why: &WhyNot| Both::of(|lang| why.what(lang));
    let remedy = |why: &WhyNot| Both::of(|lang| why.remedy(lang));
    if let (Err(why), Some((address, _))) = (&opened, plan.shared().first()) {
        let (address, reason, remedy) = (address.to_string(), reason(why), remedy(why));
        return Err(StartError::SharedAddress { address, reason, remedy });
    }
    match &opened {
        Ok(fast) => {
            let (flows, inside, outside) = fast.size();
            tracing::info!(flows, mib = fast.bytes() / (1 << 20), inside, outside, "fast path");
        }
        Err(why) if plan.fastpath.mode == FastMode::Require => {
            return Err(StartError::Fastpath { reason: reason(why), remedy: remedy(why) });
        }
        Err(why) if why.is_wanted() => tracing::info!("no fast path: {}", why.what(Lang::En)),
        Err(why) => {
            tracing::warn!("no fast path, everything goes through the TUN: {}", why.what(Lang::En));
        }
    }
    Ok(opened)
}

/// Has packets come to their owners' queues, where it matters and the kernel lets us.
fn steer(plan: &Plan, queues: &[TunQueue]) -> Option<Arc<Notes>> {
    let (TranslatorPlan::Nat64(nat64), [first, _, ..]) = (&plan.translator, queues) else { return None };
    match steering::attach(first, nat64.subscriber_len, nat64.smallest_block().ilog2() as u8) {
        Ok(notes) => Some(notes),
        Err(error) => {
            tracing::info!("packets come to any worker, which passes them on: {error}");
            None
        }
    }
}

async fn compose(plan: Plan, config: &Path, part: Part) -> Result<(), StartError> {
    // First of all: a second gateway must not get as far as the TUN of the first.
    let admin = bind_admin(&plan.admin_socket)?;
    let kind = match &plan.translator {
        TranslatorPlan::Nat64(nat64) => {
            let key = key::read_or_make(&nat64.key_file)?;
            // The pool asks neither for MTUs nor for hops.
            let settings = nat64.settings(key, Mtu::default(), Hops::KernelForwards);
            Kind::Nat64(nat64, key, Prepared::open(&settings, &nat64.journal))
        }
        TranslatorPlan::Siit(siit) => Kind::Siit(siit),
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let workers = plan.workers(cpus);
    let (queues, offloads) =
        tun::open(&plan.tun_name, workers).map_err(|e| StartError::Tun { reason: e.to_string() })?;
    let netlink = connect()?;
    let tun_index = netlink.set_up(&plan.tun_name).await.map_err(network)?;
    let shares = !plan.shared().is_empty();
    netlink::accept_local(&plan.tun_name, shares).map_err(network)?;
    let (links6, links4) = netlink.link_mtus(tun_index).await.map_err(network)?;
    // Errors of this kernel about packets from its own address would not come back to us.
    let mtu4 = if shares { links4.narrowest } else { links4.widest };
    let mtu = plan.mtu().resolve(links6.widest, mtu4);
    // A segment shall fit every link, the narrowest one too.
    let narrow = plan.mtu().resolve(links6.narrowest, links4.narrowest);
    let icmp6_source = match plan.icmp6_source() {
        Some(addr) => Some(addr),
        None => netlink.global_address6().await.map_err(network)?,
    };
    let dns = match &plan.dns64 {
        Some(plan) if part == Part::All => Some(dns::Prepared::bind(plan)?),
        Some(_) | None => None,
    };
    let ra = plan.ra.as_ref().map(ra::Prepared::open).transpose()?;
    netlink.apply(tun_index, &wanted(&plan), &Wanted::default()).await.map_err(network)?;
    let links = netlink.ethernet_links(tun_index).await.map_err(network)?;
    let fast = open_fast_path(&plan, links, tun_index, mtu, workers)?;
    let notes = steer(&plan, &queues);
    let who = privileges::drop_all().map_err(|reason| StartError::Privileges { reason })?;

    let (stop, mut stopped) = watch::channel(Stop::No);
    let (failed, mut failures) = mpsc::channel(1);
    let own = own::own_addresses(&plan);
    let mut stateful = None;
    let (crew, pool, key) = match kind {
        Kind::Nat64(nat64, key, prepared) => {
            let mut settings = nat64.settings(key, mtu, Hops::KernelForwards);
            settings.icmp6_source = icmp6_source;
            settings.mss_clamp = settings.mss_clamp.map(|_| mss::fitting(narrow.v6, narrow.v4));
            let mut made = prepared.start(&settings, workers, fast.as_ref().ok()).map_err(system)?;
            made.engines.iter_mut().for_each(|engine| engine.set_own_addresses(own.clone()));
            let Stateful { engines, pool, writer, streams, table_bytes } = made;
            tokio::spawn(notices::tell(streams));
            stateful = Some((writer, table_bytes));
            (Crew::start(queues, engines, &failed, notes, Mailbox::Nat64)?, Some(pool), Some(key))
        }
        Kind::Siit(siit) => {
            let mut settings = siit.settings(mtu, Hops::KernelForwards);
            settings.icmp6_source = icmp6_source;
            settings.mss_clamp = settings.mss_clamp.map(|_| mss::fitting(narrow.v6, narrow.v4));
            let mut translators = Vec::new();
            for worker in 0..workers {
                let seed = u64::from_ne_bytes(random().map_err(system)?);
                let place = siit::Place { worker, workers, seed };
                let mut siit = Siit::new(settings.clone(), place, now());
                siit.set_own_addresses(own.clone());
                translators.push(siit);
            }
            (Crew::start(queues, translators, &failed, None, Mailbox::Siit)?, None, None)
        }
    };
    let dns = match dns {
        Some(prepared) => Some(prepared.start(&stop, &failed)?),
        None => None,
    };
    let fast = fast.map(Arc::new);
    if let Ok(fast) = &fast {
        fast.beat();
        tokio::spawn(fast::keep_alive(fast.clone()));
    }
    let control = Arc::new(Control {
        fast,
        dns: dns.as_ref().map(|d| d.shared.clone()),
        health: health::State::default(),
        contacts: crew.contacts,
        exchange: crew.exchange.clone(),
        running: Mutex::new(Running { plan: plan.clone(), pool, kept: Vec::new(), own }),
        journal_healthy: stateful.as_ref().map(|(writer, _)| writer.is_healthy.clone()),
        config: config.to_owned(),
        key,
        tun: tun_index,
        since: Clock::now(),
        runtime: tokio::runtime::Handle::current(),
        netlink,
        stop: stop.clone(),
    });
    if let Some(shared) = control.dns.clone() {
        let control = control.clone();
        let tls = move || control.running().plan.dns64.as_ref().and_then(|dns| dns.tls.clone());
        tokio::spawn(certificate::watch(shared, tls));
    }
    // The socket is the last to go: when it is gone, everything else is.
    let (end_admin, mut admin_ended) = watch::channel(false);
    let serving = tokio::spawn(admin::serve(admin, control.clone(), async move {
        // Fails only when the sender is gone, and that is an end too.
        let _ = admin_ended.wait_for(|ended| *ended).await;
    }));
    handle_signals(&control)?;
    tokio::spawn(control::look_after(control.clone()));
    tokio::spawn(health::watch(control.clone()));
    let ra = ra.map(|ra| ra.start(&control.health.follow(), &stop)).transpose().map_err(system)?;
    tracing::info!(
        workers,
        tun = %plan.tun_name,
        udp_segmentation = offloads.udp,
        mtu6 = mtu.v6,
        mtu4 = mtu.v4,
        table_mib = stateful.as_ref().map_or(0, |(_, bytes)| *bytes) / (1 << 20),
        %who,
        "ready"
    );
    // Fails where there is no systemd, which is fine.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let failure = tokio::select! {
        _ = stopped.wait_for(|s| *s != Stop::No) => None,
        failure = failures.recv() => failure,
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let how = *stopped.borrow();
    stop.send_replace(if how == Stop::No { Stop::Keep } else { how });
    crew.running.store(false, Ordering::SeqCst);
    for worker in 0..workers {
        crew.exchange.wake(worker);
    }
    let mut left = Vec::new();
    for handle in crew.threads {
        // A worker that panicked has said so already; the others still end in order.
        left.extend(handle.join().ok());
    }
    if let Some((writer, _)) = stateful {
        writer.end();
    }
    if let Some(dns) = dns {
        // A panic in there has been reported by itself.
        let _ = dns.thread.join();
    }
    for task in ra.into_iter().flatten() {
        // A panic in there has been reported by itself.
        let _ = task.await;
    }
    if how == Stop::Flush {
        let wanted = control.wanted();
        control.netlink.apply_proxy(&Wanted::default(), &wanted).await.map_err(network)?;
        if let Ok(fast) = &control.fast {
            fast.end();
        }
        for queue in &left {
            queue.set_persistent(false).map_err(|e| StartError::Tun { reason: e.to_string() })?;
        }
    }
    end_admin.send_replace(true);
    // Its clients get a moment for their last answer.
    let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    let mut totals = Totals::default();
    for contact in &control.contacts {
        totals.add(&contact.counters.totals());
    }
    tracing::info!(
        received = totals.received,
        translated = totals.translated,
        dropped = totals.dropped(),
        "stopped"
    );
    match failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The socket for the commands. Who becomes another user later shares it with that user's group.
fn bind_admin(path: &Path) -> Result<admin::Listener, StartError> {
    privileges::as_group(|| admin::bind(path)).map_err(|e| {
        let (path, reason) = (e.path.display().to_string(), Both::of(|lang| e.fault.what(lang)));
        match e.fault {
            BindFault::Refused { .. } => StartError::AdminDirectory { path, reason },
            BindFault::InUse | BindFault::NotASocket => StartError::Admin { path, reason },
        }
    })
}

/// Which translator shall run, and the secret that one of them needs.
enum Kind<'a> {
    Nat64(&'a Nat64Plan, Key, Prepared),
    Siit(&'a SiitPlan),
}

/// The worker threads and what it takes to speak with them.
struct Crew {
    contacts: Vec<Contact>,
    exchange: Arc<Exchange>,
    threads: Vec<JoinHandle<TunQueue>>,
    running: Arc<AtomicBool>,
}

impl Crew {
    /// Starts a thread for each queue and its translator.
    fn start<T: Translator + Send + 'static>(
        queues: Vec<TunQueue>,
        translators: Vec<T>,
        failed: &mpsc::Sender<StartError>,
        notes: Option<Arc<Notes>>,
        mailbox: fn(Arc<Requests<T>>) -> Mailbox,
    ) -> Result<Self, StartError> {
        let workers = queues.len() as u16;
        let wakers = queues.iter().map(|q| Some(q.waker())).collect();
        let exchange = Arc::new(Exchange::new(wakers).with_notes(notes));
        let running = Arc::new(AtomicBool::new(true));
        let mut crew = Self {
            contacts: Vec::new(),
            exchange: exchange.clone(),
            threads: Vec::new(),
            running: running.clone(),
        };
        for ((number, queue), translator) in (0..workers).zip(queues).zip(translators) {
            let counters = Arc::new(Counters::default());
            let requests = Arc::new(Requests::default());
            let worker =
                Worker::new(number, translator, queue, exchange.clone(), counters.clone(), requests.clone());
            crew.contacts.push(Contact { mailbox: mailbox(requests), counters });
            let (running, failed) = (running.clone(), failed.clone());
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(number, worker, &running, &failed))
                .map_err(system)?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }
}

/// The life of a worker thread.
fn work<T: Translator>(
    number: u16,
    mut worker: Worker<TunQueue, T>,
    running: &AtomicBool,
    failed: &mpsc::Sender<StartError>,
) -> TunQueue {
    // Otherwise the kernel may make half as much again out of every pause; refused, that is what happens.
    let _ = nix::sys::prctl::set_timerslack(1000);
    while running.load(Ordering::Relaxed) {
        let result = match worker.turn(now()) {
            Ok(true) => Ok(()),
            // As network cards do it: the next packets of a bulk flow are taken together. Whoever sends them then does
            // not wake this thread for each, nor does this thread wake whoever receives them.
            Ok(false) if worker.is_bulk() => {
                thread::sleep(PAUSE);
                Ok(())
            }
            Ok(false) => worker.wait(NAP, running),
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            // Fails only when another worker has failed first.
            let _ = failed.try_send(StartError::WorkerFailed { worker: number, reason: e.to_string() });
            break;
        }
    }
    worker.close();
    worker.into_device()
}

/// The clock of the engines, of the programs in the kernel, and of whoever ran before: CLOCK_MONOTONIC.
fn now() -> Instant {
    // Every kernel has this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Instant::ZERO, |time| Instant::ZERO + Duration::from(time))
}

fn system(error: std::io::Error) -> StartError {
    StartError::System { reason: error.to_string() }
}

fn connect() -> Result<Netlink, StartError> {
    Netlink::connect()
        .map_err(|e| StartError::Network { reason: format!("cannot open a netlink socket: {e}") })
}

fn network(error: NetlinkError) -> StartError {
    StartError::Network { reason: error.to_string() }
}

/// Both families must be forwarded, or no packet ever reaches the TUN.
fn check_forwarding() -> Result<(), StartError> {
    for key in ["net.ipv6.conf.all.forwarding", "net.ipv4.ip_forward"] {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        match fs::read_to_string(path) {
            Ok(value) if value.trim() == "0" => return Err(StartError::Forwarding { key: key.into() }),
            Ok(_) => {}
            Err(_) => return Err(StartError::NoIpv6),
        }
    }
    Ok(())
}

/// SIGTERM and SIGINT stop and leave device and routes; SIGHUP reloads.
fn handle_signals(control: &Arc<impl Backend>) -> Result<(), StartError> {
    let listen = |kind| signal(kind).map_err(|e| StartError::System { reason: e.to_string() });
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = listen(kind)?;
        let control = control.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                control.stop(false);
            }
        });
    }
    let mut hangups = listen(SignalKind::hangup())?;
    let control = control.clone();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let control = control.clone();
            let reloaded = tokio::task::spawn_blocking(move || control.reload()).await;
            if let Ok(Err(problems)) = reloaded {
                for problem in problems {
                    let view = problem.view(Lang::En);
                    tracing::error!(path = view.path, line = view.line, "not reloaded: {}", view.message);
                }
            }
        }
    });
    Ok(())
}
