//! Sends router advertisements: the translation prefixes while the translator works, and the resolvers.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control::Stop;
use super::error::StartError;
use super::now;
use crate::addr::Prefix6;
use crate::control::advertise::Schedule;
use crate::control::plan::RaPlan;
use crate::io::ra::{Heard, Opened, RaSocket};
use crate::wire::nd::{ALL_NODES, Advertisement, is_solicitation};

/// Other routers of a link whose prefixes are remembered; who comes later is not compared.
const ROUTERS: usize = 16;
/// Before the next try of what could not be sent or heard.
const AGAIN: Duration = Duration::from_secs(3);

/// Open sockets and what is to be said, not yet at work.
pub struct Prepared {
    sockets: Vec<Opened>,
    plan: RaPlan,
}

impl Prepared {
    /// Opens the sockets of a plan. Call it while still privileged.
    pub fn open(plan: &RaPlan) -> Result<Self, StartError> {
        let mut sockets = Vec::new();
        for interface in &plan.interfaces {
            let fail =
                |e: std::io::Error| StartError::Ra { interface: interface.clone(), reason: e.to_string() };
            sockets.push(Opened::new(interface).map_err(fail)?);
        }
        Ok(Self { sockets, plan: plan.clone() })
    }

    /// Advertises until `stop` says so. The tasks end when the last word has been said.
    pub fn start(
        self,
        up: &watch::Receiver<bool>,
        stop: &watch::Sender<Stop>,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let Self { sockets, plan } = self;
        let mut tasks = Vec::new();
        for socket in sockets {
            let sender = Sender {
                socket: socket.start()?,
                schedule: Schedule::new(now(), plan.min_interval, plan.max_interval),
                plan: plan.clone(),
                others: BTreeMap::new(),
                complained: false,
            };
            tasks.push(tokio::spawn(sender.run(up.clone(), stop.subscribe())));
        }
        Ok(tasks)
    }
}

/// What another router has said: the prefixes that hold, and those that are taken back.
type Sets = [Vec<Prefix6>; 2];

struct Sender {
    socket: RaSocket,
    schedule: Schedule,
    plan: RaPlan,
    others: BTreeMap<Ipv6Addr, Sets>,
    /// Whether a failure to send has been told.
    complained: bool,
}

impl Sender {
    async fn run(mut self, mut up: watch::Receiver<bool>, mut stop: watch::Receiver<Stop>) {
        loop {
            let pause = self.schedule.next().since(now());
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    let is_up = *up.borrow_and_update();
                    self.send(&said(&self.plan, is_up));
                }
                heard = self.socket.hear() => match heard {
                    Ok(heard) => self.heard(&heard, *up.borrow()),
                    Err(error) => {
                        tracing::warn!(interface = self.socket.interface(), "router advertisements: {error}");
                        tokio::time::sleep(AGAIN).await;
                    }
                },
                // Who tells has ended when there is an error, and so does this.
                changed = up.changed() => match changed {
                    Ok(()) => self.schedule.changed(now()),
                    Err(_) => return,
                },
                () = told_to(&mut stop) => break,
            }
        }
        let how = *stop.borrow();
        if how == Stop::Flush {
            // RFC 4861 §6.2.5: one last time, and no sooner after the one before than the others.
            tokio::time::sleep(self.schedule.earliest(now()).since(now())).await;
            self.send(&nothing(&self.plan));
        }
    }

    fn send(&mut self, advertisement: &Advertisement) {
        let sent = self.socket.identity().and_then(|identity| {
            let whole = Advertisement { link_layer: identity.link_layer, ..advertisement.clone() };
            self.socket.send(identity.link_local, &whole.write(identity.link_local, ALL_NODES))
        });
        match sent {
            Ok(()) => self.complained = false,
            Err(error) if self.complained => {
                tracing::debug!(interface = self.socket.interface(), "no router advertisement: {error}");
            }
            Err(error) => {
                self.complained = true;
                tracing::warn!(interface = self.socket.interface(), "no router advertisement: {error}");
            }
        }
        self.schedule.sent(now(), rand::random());
        if self.complained {
            // Soon, but not at once.
            self.schedule.changed(now());
        }
    }

    fn heard(&mut self, heard: &Heard, is_up: bool) {
        if is_solicitation(&heard.bytes, heard.src, heard.hop_limit) {
            self.schedule.solicited(now(), rand::random());
        } else if let Some(other) = Advertisement::read(&heard.bytes, heard.src, heard.hop_limit)
            && self.socket.identity().is_ok_and(|own| own.link_local != heard.src)
        {
            self.compare(heard.src, &other, is_up);
        }
    }

    /// RFC 8781 §5.2: says once when another router tells other prefixes.
    fn compare(&mut self, router: Ipv6Addr, other: &Advertisement, is_up: bool) {
        let sets = other.pref64_sets();
        if self.others.get(&router) == Some(&sets)
            || (self.others.len() >= ROUTERS && !self.others.contains_key(&router))
        {
            return;
        }
        let ours = said(&self.plan, is_up).pref64_sets();
        if sets != ours && !other.pref64.is_empty() {
            tracing::warn!(
                interface = self.socket.interface(),
                %router,
                "another router advertises other translation prefixes: {:?}, taken back {:?}; ours are {:?}, taken back {:?}",
                sets[0], sets[1], ours[0], ours[1],
            );
        }
        self.others.insert(router, sets);
    }
}

/// Waits for the end.
async fn told_to(stop: &mut watch::Receiver<Stop>) {
    // Fails only when the daemon is gone, and that is an end too.
    let _ = stop.wait_for(|how| *how != Stop::No).await;
}

/// What is told while this box runs. Without a translator its prefixes are taken back; DNS goes on, for names that do not need it.
fn said(plan: &RaPlan, is_up: bool) -> Advertisement {
    let lifetime = if is_up { plan.pref64_lifetime } else { 0 };
    Advertisement {
        managed: plan.managed,
        other: plan.other,
        router_lifetime: plan.router_lifetime,
        link_layer: None,
        resolvers: plan.resolvers.clone(),
        resolvers_lifetime: plan.resolvers_lifetime,
        pref64: plan.pref64.iter().map(|prefix| (*prefix, lifetime)).collect(),
    }
}

/// What is told when this box goes for good: everything is taken back.
fn nothing(plan: &RaPlan) -> Advertisement {
    Advertisement { router_lifetime: 0, resolvers_lifetime: 0, ..said(plan, false) }
}
