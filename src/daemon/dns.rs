//! The DNS64's thread: sockets bound while privileged, served on a runtime of its own, so that packets and names
//! never wait for each other.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use super::control::Stop;
use super::error::StartError;
use crate::control::diff::DnsChange;
use crate::control::plan::DnsPlan;
use crate::dns64;
use crate::io::dns_net::{Bound, Change, Config, Limits, ListenSettings, Shared, bind, run};

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
        let limits = Limits { cache_bytes: plan.cache_bytes, ..Limits::default() };
        let listen = ListenSettings { addresses: plan.listen.clone(), ..ListenSettings::default() };
        let bound =
            bind(&listen, limits.udp_threads).map_err(|e| StartError::Dns { reason: e.to_string() })?;
        let config = Config {
            dns64: plan.settings.clone(),
            units: plan.units.len(),
            upstream: plan.upstream.clone(),
            groups: plan.groups.clone(),
            ..Config::default()
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
pub fn changes(change: &DnsChange) -> [Change; 3] {
    [
        Change::Upstream(change.upstream.clone()),
        Change::Groups(change.groups.clone()),
        Change::Dns64(dns64::Change::Replace(Box::new(change.settings.clone()))),
    ]
}
