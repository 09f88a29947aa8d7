//! The IPv4 addresses of the machine itself, which clients do not reach by way of the prefix (O-05).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::control::{Control, Mailbox};
use crate::control::plan::Plan;
use crate::control::plan::host::HostFacts;
use crate::io::netlink;

/// IPv4 addresses that this machine has and `plan` keeps from clients, in order.
pub fn own_addresses(plan: &Plan) -> Arc<[Ipv4Addr]> {
    if plan.reach_gateway() {
        return Arc::default();
    }
    let of_host = HostFacts::without_sockets().addresses.into_iter();
    let mut own: Vec<_> = of_host
        .filter(|host| host.interface != plan.tun_name)
        .filter_map(|host| match host.addr {
            IpAddr::V4(addr) if !addr.is_loopback() => Some(addr),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .collect();
    own.sort_unstable();
    own.dedup();
    own.into()
}

impl Control {
    /// Tells the workers when the machine has got other addresses.
    pub(super) fn follow_own_addresses(&self) {
        let mut running = self.running();
        let own = own_addresses(&running.plan);
        if own == running.own {
            return;
        }
        for (worker, contact) in self.contacts.iter().enumerate() {
            let own = own.clone();
            let told = match &contact.mailbox {
                Mailbox::Nat64(_) => self.ask(worker, move |engine, _| engine.set_own_addresses(own)),
                Mailbox::Siit(_) => self.ask_siit(worker, move |siit, _| siit.set_own_addresses(own)),
            };
            // Looks again, and tells all of them, next time.
            if told.is_none() {
                return;
            }
        }
        running.own = own;
    }

    /// Where an address is shared, sets back what others have set on the TUN, as systemd does with new devices.
    pub(super) fn keep_accepting_local(&self) {
        let running = self.running();
        if running.plan.shared().is_empty() {
            return;
        }
        let tun = &running.plan.tun_name;
        match netlink::accept_local(tun, true) {
            Ok(false) => {}
            Ok(true) => tracing::info!("rp_filter and accept_local of {tun} were changed; set back"),
            Err(error) => tracing::error!("packets from a shared address do not pass {tun}: {error}"),
        }
    }
}
