//! Looks every second whether this box translates, and tells DNS64 and whoever else wants to know when that changes.
//! What is decided from it is decided in [`crate::control::health`].

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Clock};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};

use super::control::{Control, Mailbox, Stop};
use super::now;
use super::worker::{Request, Requests};
use crate::control::config::FastMode;
use crate::control::health::{Ailment, Machine, TranslatorHealth};
use crate::control::plan::{HealthPlan, Plan, TranslatorPlan};
use crate::dns64;
use crate::io::dns_net;
use crate::io::netfilter::{self, OnPath};
use crate::io::netlink::NetlinkError;
use crate::text::Lang;
use crate::xlat::canned::{Failure, PEER};

/// Between two looks, and how long anything may take to answer.
pub const PACE: Duration = Duration::from_secs(1);
/// Looks from one try of the outside targets to the next.
const TARGETS_EVERY: u32 = 5;
/// Looks from one reading of the firewall to the next.
const FIREWALL_EVERY: u32 = 10;

type Probe = oneshot::Receiver<Result<(), Failure>>;

/// What is known of the translator's health; everybody may read.
pub struct State {
    known: Mutex<Known>,
    up: watch::Sender<bool>,
}

struct Known {
    view: TranslatorHealth,
    since: Clock,
}

/// What one look has found.
#[derive(Default)]
pub struct Look {
    /// What speaks against the translator.
    pub failing: Vec<Ailment>,
    /// What is wrong besides.
    pub warnings: Vec<Ailment>,
}

impl Default for State {
    fn default() -> Self {
        let known = Known { view: TranslatorHealth::default(), since: Clock::now() };
        Self { known: Mutex::new(known), up: watch::Sender::new(true) }
    }
}

impl State {
    /// Follows the state from now on: true is up.
    pub fn follow(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// The state for people and machines.
    pub fn view(&self) -> TranslatorHealth {
        let known = self.known();
        TranslatorHealth { since_s: known.since.elapsed().as_secs(), ..known.view.clone() }
    }

    /// Takes in a look, and the change that it has led to, if any.
    pub fn note(&self, look: &Look, change: Option<bool>, dns: Option<&dns_net::Shared>) {
        let say = |what: &[Ailment], lang| what.iter().map(|ailment| ailment.say(lang)).collect::<Vec<_>>();
        let failing = say(&look.failing, Lang::En);
        if let Some(up) = change {
            if up {
                tracing::info!("the translator works again");
            } else {
                tracing::error!("the translator is down: {}", failing.join("; "));
            }
            if let Some(dns) = dns {
                let health = if up { dns64::Health::Up } else { dns64::Health::Down };
                dns.apply([dns_net::Change::Dns64(dns64::Change::Health(health))]);
            }
        }
        let mut known = self.known();
        let view = &mut known.view;
        (view.failing, view.failing_vi) = (failing, say(&look.failing, Lang::Vi));
        let warnings = say(&look.warnings, Lang::En);
        for warning in warnings.iter().filter(|warning| !view.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        (view.warnings, view.warnings_vi) = (warnings, say(&look.warnings, Lang::Vi));
        if let Some(up) = change {
            view.up = up;
            view.changes += 1;
            known.since = Clock::now();
            self.up.send_replace(up);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // A panic while it was held left whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after the health of a gateway until it stops.
pub async fn watch(control: Arc<Control>) {
    let mut watcher = Watcher {
        probes: control.contacts.iter().map(|_| None).collect(),
        had_internet: false,
        looks: 0,
        dead_targets: Vec::new(),
        bypassed: None,
        control,
    };
    let mut machine = Machine::default();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let plan = watcher.control.running().plan.clone();
        let look = watcher.look(&plan).await;
        let control = &watcher.control;
        // Workers that were told to end do not answer.
        if *control.stop.borrow() != Stop::No {
            return;
        }
        let change = machine.observe(now(), look.failing.is_empty(), plan.health.patience);
        control.health.note(&look, change, control.dns.as_deref());
    }
}

struct Watcher {
    control: Arc<Control>,
    /// For each worker the probe that it has not answered yet.
    probes: Vec<Option<Probe>>,
    /// Whether there has been a route to the Internet since the start.
    had_internet: bool,
    looks: u32,
    /// The outside targets, when none of them answered the last time.
    dead_targets: Vec<SocketAddr>,
    /// What the fast path passes by, where it should pass nothing by.
    bypassed: Option<Ailment>,
}

impl Watcher {
    async fn look(&mut self, plan: &Plan) -> Look {
        let mut look = Look::default();
        let try_targets = self.looks.is_multiple_of(TARGETS_EVERY) && !plan.health.targets.is_empty();
        self.looks = self.looks.wrapping_add(1);
        let control = self.control.clone();
        let (workers, kernel, targets) = tokio::join!(
            probe_all(&control, &mut self.probes),
            timeout(PACE, ask_kernel(&control, plan, &mut self.had_internet)),
            async { if try_targets { Some(dead(&plan.health.targets).await) } else { None } }
        );
        look.failing.extend(workers);
        match kernel {
            Ok(Ok(failing)) => look.failing.extend(failing),
            // That we cannot see does not mean that nothing is there.
            Ok(Err(error)) => look.warnings.push(Ailment::Kernel { reason: error.to_string() }),
            Err(_) => look.warnings.push(Ailment::Kernel { reason: "no answer".into() }),
        }
        if let Some(dead) = targets {
            self.dead_targets = dead;
        }
        self.dead_targets.retain(|target| plan.health.targets.contains(target));
        if !self.dead_targets.is_empty() {
            let list: Vec<_> = self.dead_targets.iter().map(ToString::to_string).collect();
            let counts = plan.health.targets_count;
            let found = if counts { &mut look.failing } else { &mut look.warnings };
            found.push(Ailment::Targets { list: list.join(", ") });
        }
        // At the start there was nothing: what there is now came later.
        let minds = plan.fastpath.mode == FastMode::Auto && control.fast.is_ok();
        if minds && self.looks.is_multiple_of(FIREWALL_EVERY) {
            self.bypassed = bypassed().await;
        }
        look.warnings.extend(self.bypassed.clone());
        look
    }
}

/// What the kernel's firewall would have to see and does not.
async fn bypassed() -> Option<Ailment> {
    // Long rule sets take a while.
    match tokio::task::spawn_blocking(netfilter::on_path).await {
        Ok(Ok(None)) => None,
        Ok(Ok(Some(OnPath::Forward { chain }))) => Some(Ailment::Forward { chain }),
        Ok(Ok(Some(OnPath::Conntrack { user }))) => Some(Ailment::Conntrack { user }),
        Ok(Err(error)) => Some(Ailment::Kernel { reason: error.to_string() }),
        Err(error) => Some(Ailment::Kernel { reason: error.to_string() }),
    }
}

/// Has every worker translate a canned packet, and waits for no answer longer than [`PACE`]. A worker that still owes
/// one is not asked again.
async fn probe_all(control: &Control, probes: &mut [Option<Probe>]) -> Vec<Ailment> {
    let deadline = tokio::time::Instant::now() + PACE;
    for (worker, probe) in probes.iter_mut().enumerate().filter(|(_, probe)| probe.is_none()) {
        *probe = control.probe(worker);
    }
    let mut failing = Vec::new();
    for (worker, slot) in probes.iter_mut().enumerate() {
        let Some(probe) = slot else {
            failing.push(Ailment::Worker { worker });
            continue;
        };
        match timeout_at(deadline, probe).await {
            Err(_) => failing.push(Ailment::Worker { worker }),
            Ok(answer) => {
                *slot = None;
                match answer {
                    Ok(Ok(())) => {}
                    Ok(Err(Failure::Refused(reason))) => {
                        failing.push(Ailment::Translation { worker, reason: reason.name().into() });
                    }
                    Ok(Err(Failure::Wrong)) => {
                        failing.push(Ailment::Translation { worker, reason: "wrong bytes".into() });
                    }
                    // It has ended with the probe in its box.
                    Err(_) => failing.push(Ailment::Worker { worker }),
                }
            }
        }
    }
    failing
}

impl Control {
    /// Asks a worker to translate a canned packet. `None` when its box is full.
    fn probe(&self, worker: usize) -> Option<Probe> {
        let answer = match &self.contacts.get(worker)?.mailbox {
            Mailbox::Nat64(requests) => post(requests, |engine| engine.canned()),
            Mailbox::Siit(requests) => post(requests, |siit| siit.canned()),
        };
        self.exchange.wake(worker as u16);
        answer
    }
}

fn post<T: 'static>(
    requests: &Requests<T>,
    probe: impl FnOnce(&mut T) -> Result<(), Failure> + Send + 'static,
) -> Option<Probe> {
    let (answer, answered) = oneshot::channel();
    let request: Request<T> = Box::new(move |translator, _| {
        // Fails only when nobody waits any more.
        let _ = answer.send(probe(translator));
    });
    requests.push(request).ok().map(|()| answered)
}

/// Device and routes, as the kernel has them.
async fn ask_kernel(
    control: &Control,
    plan: &Plan,
    had_internet: &mut bool,
) -> Result<Vec<Ailment>, NetlinkError> {
    let (netlink, tun) = (&control.netlink, control.tun);
    let mut failing = Vec::new();
    if !netlink.is_up(tun).await? {
        failing.push(Ailment::Device { name: plan.tun_name.clone() });
    }
    let prefixes = match &plan.translator {
        TranslatorPlan::Nat64(nat64) => nat64.pool6.clone(),
        TranslatorPlan::Siit(siit) => vec![siit.prefix],
    };
    for prefix in prefixes {
        // The first address: hosts with more special routes are elsewhere.
        let first = IpAddr::V6(prefix.prefix().addr());
        if netlink.link_towards(first).await? != Some(tun) {
            failing.push(Ailment::Pool6 { prefix: prefix.to_string() });
        }
    }
    failing.extend(egress(control, &plan.health, had_internet).await?);
    Ok(failing)
}

/// Whether IPv4 leads out. The whole table is read only where there is no route to the Internet, for it may be long.
async fn egress(
    control: &Control,
    plan: &HealthPlan,
    had_internet: &mut bool,
) -> Result<Option<Ailment>, NetlinkError> {
    let (netlink, tun) = (&control.netlink, control.tun);
    if let Some(wanted) = &plan.egress {
        for addr in wanted {
            if netlink.link_towards((*addr).into()).await?.is_none_or(|link| link == tun) {
                return Ok(Some(Ailment::Egress { to: addr.to_string() }));
            }
        }
        return Ok(None);
    }
    if netlink.link_towards(PEER.into()).await?.is_some_and(|link| link != tun) {
        *had_internet = true;
        return Ok(None);
    }
    if *had_internet {
        return Ok(Some(Ailment::Egress { to: "0.0.0.0/0".into() }));
    }
    Ok((!netlink.leads_out4(tun).await?).then_some(Ailment::NoEgress))
}

/// All targets, when none of them answers. A refused connection is an answer.
async fn dead(targets: &[SocketAddr]) -> Vec<SocketAddr> {
    let answers = join_all(targets.iter().map(|target| async move {
        match timeout(PACE, TcpStream::connect(target)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        }
    }))
    .await;
    if answers.contains(&true) { Vec::new() } else { targets.to_vec() }
}
