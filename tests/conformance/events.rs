//! What the engines tell beside packets.

use std::time::Duration;

use sampan::nat64::event::{Event, Kind, Limit};
use sampan::nat64::policy::{Quota, Quotas};
use sampan::nat64::settings::{Pool4Range, Protocol, Settings};

use crate::support::{Gateway, at, ip, settings, udp};
use crate::{CLIENT, SERVER, client, open_udp, server6};

const ALL: [Kind; 5] = [Kind::Session, Kind::Binding, Kind::Block, Kind::Limit, Kind::Pool];

#[test]
fn h18_h20_sessions_mappings_and_blocks_are_told_from_beginning_to_end() {
    for mut gateway in Gateway::each(&settings()) {
        gateway.on_engines(|engine, _| engine.want_events(&ALL));
        let t = open_udp(&mut gateway, client(7));
        let told = gateway.events();
        let [Event::BlockLeased(block), Event::BindingCreated(binding), Event::SessionCreated(session)] =
            told[..]
        else {
            panic!("{told:?}")
        };
        assert!((block.first..block.first + block.size).contains(&t.port()) && block.addr == t.ip());
        assert_eq!((binding.protocol, binding.src6_port, binding.src4_port), (Protocol::Udp, 7, t.port()));
        assert_eq!((ip(CLIENT), t.ip()), (binding.src6.into(), binding.src4.into()));
        assert_eq!((session.binding, session.dst4_port), (binding, 53));
        assert_eq!(ip(SERVER), session.dst4);
        gateway.advance(Duration::from_secs(300));
        let wanted =
            [Event::SessionDeleted(session), Event::BindingDeleted(binding), Event::BlockReleased(block)];
        assert_eq!(gateway.events(), wanted);
    }
}

#[test]
fn h16_by_default_nobody_is_told_who_spoke_with_whom() {
    for mut gateway in Gateway::each(&settings()) {
        open_udp(&mut gateway, client(7));
        gateway.advance(Duration::from_secs(300));
        assert_eq!(gateway.events(), []);
    }
}

#[test]
fn h15_h36_limits_are_told_a_few_times_a_second_and_the_rest_is_counted() {
    let subscriber = Quota { ports: 1, ..Quota::default() };
    let quotas = Quotas { subscriber, ..Quotas::default() };
    let mut gateway = Gateway::new(Settings { quotas, ..settings() }, 1);
    open_udp(&mut gateway, client(7));
    for port in 0..1000 {
        gateway.refuse(&udp(client(2000 + port), server6(&gateway, 53), b"q"), "quota_ports");
    }
    let told = gateway.events();
    let Some(Event::LimitHit { limit: Limit::Ports, client }) = told.first() else { panic!("{told:?}") };
    assert_eq!(ip(CLIENT), *client);
    assert_eq!(told.len(), 10);
    let lost: u64 = gateway.engines().map(|e| e.events().lost()[Kind::Limit as usize]).sum();
    assert_eq!(lost, 990);
}

#[test]
fn h29_a_pool_that_runs_low_is_told_once() {
    let mut settings = settings();
    settings.pool4.ranges = vec![Pool4Range::new("198.51.100.0/32".parse().unwrap(), 1024..=1663)];
    for mut gateway in Gateway::each(&settings) {
        for host in 1..=9 {
            open_udp(&mut gateway, at(format!("2001:db8:1::{host}"), 1));
        }
        assert_eq!(gateway.events(), [Event::PoolLow { scope: 0, blocks: 10, leased: 8 }]);
    }
}

#[test]
fn a_reader_that_sleeps_loses_events_and_no_packet() {
    let mut settings = settings();
    settings.limits.sessions = 20_000;
    let mut gateway = Gateway::new(settings, 1);
    gateway.on_engines(|engine, _| engine.want_events(&[Kind::Binding]));
    for port in 0..6000 {
        open_udp(&mut gateway, client(2000 + port));
    }
    let lost: u64 = gateway.engines().map(|e| e.events().lost()[Kind::Binding as usize]).sum();
    let told = gateway.events().len() as u64;
    assert!(lost > 0 && lost + told == 6000, "{told} told, {lost} lost");
}
