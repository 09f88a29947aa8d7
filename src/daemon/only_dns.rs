//! `run --only dns64`: the DNS64 by itself, beside a gateway of its own or without any. It asks that gateway's socket
//! every second for the health of the translator, so that the two can be restarted one by one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant as Clock;

use hyper::{Method, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::control::Stop;
use super::health::{Look, PACE, State};
use super::{StartError, certificate, dns, handle_signals, now, privileges};
use crate::control::admin::{self, Backend, Cursor, DropRow, HealthState, Page, ReloadReport, Status, ask};
use crate::control::diff::{self, Change};
use crate::control::health::{Ailment, Remote, TranslatorHealth};
use crate::control::plan::Plan;
use crate::control::plan::host::HostFacts;
use crate::control::problem::Problem;
use crate::io::dns_net;
use crate::nat64::settings::{BibRow, RowFilter, SessionRow};

/// The service as the commands see it.
struct Control {
    dns: Arc<dns_net::Shared>,
    health: State,
    plan: Mutex<Plan>,
    config: PathBuf,
    since: Clock,
    stop: watch::Sender<Stop>,
}

/// Runs until it is told to stop.
pub async fn compose(plan: Plan, config: &Path) -> Result<(), StartError> {
    let Some(dns_plan) = &plan.dns64 else { return Err(StartError::NoDns64) };
    let admin = super::bind_admin(&plan.dns64_socket)?;
    let dns = dns::Prepared::bind(dns_plan)?;
    let who = privileges::drop_all().map_err(|reason| StartError::Privileges { reason })?;
    let (stop, mut stopped) = watch::channel(Stop::No);
    let (failed, mut failures) = mpsc::channel(1);
    let dns = dns.start(&stop, &failed)?;
    let control = Arc::new(Control {
        dns: dns.shared.clone(),
        health: State::default(),
        config: config.to_owned(),
        since: Clock::now(),
        stop: stop.clone(),
        plan: Mutex::new(plan),
    });
    let (end_admin, mut admin_ended) = watch::channel(false);
    let serving = tokio::spawn(admin::serve(admin, control.clone(), async move {
        // Fails only when the sender is gone, and that is an end too.
        let _ = admin_ended.wait_for(|ended| *ended).await;
    }));
    handle_signals(&control)?;
    tokio::spawn(follow(control.clone()));
    let watched = control.clone();
    let tls = move || watched.plan().dns64.as_ref().and_then(|dns64| dns64.tls.clone());
    tokio::spawn(certificate::watch(control.dns.clone(), tls));
    tracing::info!(%who, "ready: only DNS64");
    // Fails where there is no systemd, which is fine.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let failure = tokio::select! {
        _ = stopped.wait_for(|s| *s != Stop::No) => None,
        failure = failures.recv() => failure,
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(Stop::Keep);
    // A panic in there has been reported by itself.
    let _ = dns.thread.join();
    end_admin.send_replace(true);
    // Its clients get a moment for their last answer.
    let _ = timeout(PACE, serving).await;
    tracing::info!("stopped");
    failure.map_or(Ok(()), Err)
}

/// Goes by what the gateway says.
async fn follow(control: Arc<Control>) {
    let (socket, named) = {
        let plan = control.plan();
        (plan.health.gateway.clone().unwrap_or(plan.admin_socket.clone()), plan.health.gateway.is_some())
    };
    let mut remote = Remote::new(now(), named);
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = timeout(PACE, ask_gateway(&socket)).await.ok().flatten();
        let grace = control.plan().health.restart_grace;
        let change = remote.observe(now(), answer, grace);
        let mut look = Look::default();
        let silent = || Ailment::Gateway { socket: socket.display().to_string() };
        match answer {
            Some(true) => {}
            Some(false) => look.failing.push(Ailment::Told),
            None if remote.is_up() && remote.is_expected() => look.warnings.push(silent()),
            None if remote.is_up() => {}
            None => look.failing.push(silent()),
        }
        control.health.note(&look, change, Some(&control.dns));
    }
}

/// What a gateway says of its translator; `None` is no answer.
async fn ask_gateway(socket: &Path) -> Option<bool> {
    match ask(socket, Method::GET, "/v1/health").await {
        Ok((StatusCode::OK, body)) => {
            serde_json::from_slice::<TranslatorHealth>(&body).ok().map(|health| health.up)
        }
        Ok(_) | Err(_) => None,
    }
}

impl Control {
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        // A panic while it was held left a whole value: it is replaced in one assignment.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Control {
    fn status(&self) -> Status {
        let plan = self.plan().clone();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.since.elapsed().as_secs(),
            config: self.config.display().to_string(),
            dns64: plan.dns64.as_ref().map(|plan| dns::status(&self.dns, plan)),
            translator: self.health.view(),
            ..Status::default()
        };
        status.health.follow(&status.translator);
        // This half works; the other one has a state of its own.
        status.health.state = status.health.state.min(HealthState::Degraded);
        status
    }

    fn health(&self) -> TranslatorHealth {
        self.health.view()
    }

    fn sessions(&self, _: &RowFilter, _: Option<Cursor>, _: usize) -> Page<SessionRow> {
        Page { rows: Vec::new(), next: None }
    }

    fn bib(&self, _: &RowFilter, _: Option<Cursor>, _: usize) -> Page<BibRow> {
        Page { rows: Vec::new(), next: None }
    }

    fn drops(&self) -> Vec<DropRow> {
        Vec::new()
    }

    fn reload(&self) -> Result<ReloadReport, Vec<Problem>> {
        let mut plan = self.plan();
        let reload = diff::reload(&plan, &self.config, &HostFacts::read())?;
        let mut changed = Vec::new();
        for change in &reload.changes {
            match change {
                Change::Dns64(change) => self.dns.apply(dns::changes(change)),
                Change::Health(_) => {}
                // For the gateway, which is told by itself.
                Change::Nat64(_) | Change::Siit(_) => continue,
            }
            changed.push(change.key().to_owned());
        }
        changed.extend(dns::renew(&self.dns, reload.certificates).into_iter().map(str::to_owned));
        *plan = reload.checked.plan;
        tracing::info!(changes = changed.len(), "configuration reloaded");
        Ok(ReloadReport { changed, warnings: reload.checked.warnings })
    }

    fn stop(&self, _: bool) {
        self.stop.send_replace(Stop::Keep);
    }
}
