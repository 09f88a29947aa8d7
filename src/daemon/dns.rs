//! The DNS64's thread: sockets bound while privileged, served on a runtime of its own, so that packets and names
//! never wait for each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use super::control::Stop;
use super::error::StartError;
use crate::control::admin::{Counter, DnsName, DnsStatus, DnsUnit};
use crate::control::certificates::{self, Certificates};
use crate::control::diff::DnsChange;
use crate::control::plan::{ConnectionsPlan, DnsPlan};
use crate::control::problem::{Problem, Problems};
use crate::dns64::{self, Class};
use crate::io::dns_net::{Bound, Change, Config, Limits, ListenSettings, Shared, UnitRow, bind, run};
use crate::text::Both;

/// Open sockets and settings, not yet served.
pub struct Prepared {
    bound: Bound,
    shared: Arc<Shared>,
}

/// The running service.
pub struct Service {
    /// Its thread.
    pub thread: JoinHandle<()>,
    /// Its settings and counters.
    pub shared: Arc<Shared>,
}

impl Prepared {
    /// Opens the sockets of a plan.
    pub fn bind(plan: &DnsPlan) -> Result<Self, StartError> {
        let ConnectionsPlan { most, per_client, idle, handshake } = plan.connections;
        let limits = Limits {
            cache_bytes: plan.cache_bytes,
            tcp_connections: most,
            tcp_per_client: per_client,
            tcp_idle: idle,
            tls_handshake: handshake,
            ..Limits::default()
        };
        let tls = plan.tls.as_ref();
        let listen = ListenSettings {
            addresses: plan.listen.clone(),
            tls: tls.map(|tls| tls.listen.clone()).unwrap_or_default(),
            https: tls.map(|tls| tls.https.clone()).unwrap_or_default(),
        };
        let bound =
            bind(&listen, limits.udp_threads).map_err(|e| StartError::Dns { reason: e.to_string() })?;
        // Still with all powers, so that a key that only root may read will do until it changes.
        let mut problems = Problems::default();
        let certificates = certificates::read(plan, &mut problems);
        if let Some(error) = problems.into_sorted().0.into_iter().find(Problem::is_error) {
            return Err(StartError::Certificate { reason: Both::of(|lang| error.view(lang).message) });
        }
        let config = Config {
            dns64: plan.settings.clone(),
            units: plan.units.clone(),
            top_names: plan.top_names,
            upstream: plan.upstream.clone(),
            groups: plan.groups.clone(),
            trust: certificates.trust,
            certificate: certificates.own,
            https_path: tls.map(|tls| tls.https_path.clone()),
        };
        Ok(Self { bound, shared: Arc::new(Shared::new(config, limits)) })
    }

    /// Serves until `stop` says so.
    pub fn start(
        self,
        stop: &watch::Sender<Stop>,
        failed: &mpsc::Sender<StartError>,
    ) -> Result<Service, StartError> {
        let system = |e: std::io::Error| StartError::System { reason: e.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        let Self { bound, shared } = self;
        let (mut stopped, failed, serving) = (stop.subscribe(), failed.clone(), shared.clone());
        let thread = thread::Builder::new()
            .name("dns64".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let (end, ended) = watch::channel(false);
                    tokio::spawn(async move {
                        // Fails only when the daemon is gone, and that is an end too.
                        let _ = stopped.wait_for(|s| *s != Stop::No).await;
                        end.send_replace(true);
                    });
                    if let Err(e) = run(bound, serving, ended).await {
                        // Fails only when something else has failed first.
                        let _ = failed.try_send(StartError::Dns { reason: e.to_string() });
                    }
                });
            })
            .map_err(system)?;
        Ok(Service { thread, shared })
    }
}

/// A change of the plan in the words of the service.
pub fn changes(change: &DnsChange) -> [Change; 6] {
    [
        Change::Upstream(change.upstream.clone()),
        Change::Groups(change.groups.clone()),
        Change::HttpsPath(change.tls.as_ref().map(|tls| tls.https_path.clone())),
        Change::TopNames(change.top_names),
        Change::Units(change.units.clone()),
        Change::Dns64(dns64::Change::Replace(Box::new(change.settings.clone()))),
    ]
}

/// Takes over what the files of TLS hold. Says which keys that was about.
pub fn renew(shared: &Shared, new: Certificates) -> Vec<&'static str> {
    let old = shared.config();
    let (own, trust) = (new.own != old.certificate, new.trust != old.trust);
    if own || trust {
        shared.apply([Change::Certificate(new.own), Change::Trust(new.trust)]);
    }
    [(own, "dns64.tls.certificate"), (trust, "dns64.upstream-ca")]
        .into_iter()
        .filter_map(|(is_new, key)| is_new.then_some(key))
        .collect()
}

/// The service as `sampan status` shows it.
pub fn status(shared: &Shared, plan: &DnsPlan) -> DnsStatus {
    let text = |list: &[SocketAddr]| list.iter().map(ToString::to_string).collect();
    let tls = plan.tls.as_ref();
    let unit = |(unit, [native, synthesised, ipv4_only, failed, other]): UnitRow| DnsUnit {
        unit,
        native,
        synthesised,
        ipv4_only,
        failed,
        other,
    };
    let name =
        |(class, name, count): (Class, String, u64)| DnsName { class: class.name().into(), name, count };
    DnsStatus {
        listen: text(&plan.listen),
        tls: tls.map(|tls| text(&tls.listen)).unwrap_or_default(),
        https: tls.map(|tls| text(&tls.https)).unwrap_or_default(),
        upstream: plan.upstream.iter().map(ToString::to_string).collect(),
        counters: shared
            .snapshot()
            .into_iter()
            .map(|(name, value)| Counter { name: name.into(), value })
            .collect(),
        units: shared.statistics().into_iter().map(unit).collect(),
        names: shared.top_names().into_iter().map(name).collect(),
    }
}
