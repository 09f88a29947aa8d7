//! RFC 7915 §4.4, §5.4, RFC 4443 §2.4, RFC 1812 §4.3.2: when the gateway speaks itself, and when it must not.

use std::time::Duration;

use crate::support::packet::SYN;
use crate::support::{Extension, Gateway, at, error, ip, other, settings, tcp, udp};
use crate::{CLIENT, SERVER, client, open_udp, server, server6};
use sampan::nat64::settings::Hops;

#[test]
fn d67_never_about_errors_groups_later_fragments_or_unspecified_sources() {
    for mut gateway in Gateway::each(&settings()) {
        let out = gateway.translate(&udp(client(4000), server6(&gateway, 53), b"q"));
        let about_error = error(ip(SERVER), out.src, 3, 3, 0, &out.bytes()).hops(1);
        assert_eq!(gateway.refuse(&about_error, "hop_limit"), None);
        let unspecified = other(ip("::"), gateway.y(ip(SERVER)), 132, &[0; 12]);
        assert_eq!(gateway.refuse(&unspecified, "unknown_protocol"), None);
        let group = other(ip("ff02::1"), gateway.y(ip(SERVER)), 132, &[0; 12]);
        assert_eq!(gateway.refuse(&group, "unknown_protocol"), None);
        let later = other(ip(CLIENT), gateway.y(ip(SERVER)), 132, &[0; 12])
            .extension(Extension::fragment(1232, false, 1))
            .hops(1);
        assert_eq!(gateway.send_raw(later.bytes(), Default::default()), []);
        gateway.advance(Duration::from_secs(2));
        assert_eq!((gateway.drops("fragment_timeout"), gateway.totals().held), (1, 0));
        for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let strange = other(ip(source), out.src, 47, &[0; 12]);
            assert_eq!(gateway.refuse(&strange, "unknown_protocol"), None, "{source}");
        }
    }
}

#[test]
fn d67_what_is_said_in_the_senders_family_from_our_address_with_as_much_as_fits() {
    let mut settings = settings();
    settings.icmp6_source = Some("2001:db8:6::1".parse().unwrap());
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        for len in [0, 30, 520, 548, 1000, 1232, 1400] {
            let data = vec![0xa5; len];
            let y = server6(&gateway, 53);
            for (packet, reason, want) in [
                (udp(client(4000), y, &data).hops(1), "hop_limit", (3, 0)),
                (other(ip(CLIENT), y.ip(), 132, &data), "unknown_protocol", (1, 4)),
                (
                    other(ip(CLIENT), y.ip(), 132, &data).extension(Extension::routing(0)),
                    "unknown_protocol",
                    (1, 4),
                ),
                (udp(client(4000), at(gateway.y(ip("10.0.0.1")), 53), &data), "not_allowed", (1, 1)),
                (udp(server(53), t, &data).hops(1), "hop_limit", (11, 0)),
                (other(ip(SERVER), t.ip(), 132, &data), "unknown_protocol", (3, 2)),
            ] {
                let told = gateway.refuse(&packet, reason).unwrap();
                let v6 = packet.src.is_ipv6();
                let (ours, most) = if v6 { (ip("2001:db8:6::1"), 1280 - 48) } else { (t.ip(), 576 - 28) };
                assert_eq!((told.src, told.dst, told.hops), (ours, packet.src, 64), "{reason}");
                let (kind, code, rest, quote) = told.icmp();
                assert_eq!((kind, code, rest), (want.0, want.1, 0));
                let sent = packet.bytes();
                assert_eq!(quote, &sent[..sent.len().min(most)], "{len} bytes, {reason}");
            }
        }
    }
}

#[test]
fn d67_the_rate_is_bounded_and_what_was_kept_back_is_counted() {
    let mut settings = settings();
    settings.limits.icmp_errors_per_second = 10;
    let mut gateway = Gateway::new(settings, 1);
    let packet = other(ip(CLIENT), gateway.y(ip(SERVER)), 132, &[0; 12]);
    let told = |gateway: &mut Gateway, n: u32| {
        (0..n).filter(|_| gateway.refuse(&packet, "unknown_protocol").is_some()).count()
    };
    // How many of the ten is left to chance, so that nobody can count what others were told.
    let first = told(&mut gateway, 100);
    assert!((5..=10).contains(&first), "{first}");
    gateway.advance(Duration::from_millis(300));
    let second = told(&mut gateway, 100);
    assert!((2..=3).contains(&second), "{second}");
    gateway.advance(Duration::from_secs(3600));
    let third = told(&mut gateway, 100);
    assert!((5..=10).contains(&third), "{third}");
    assert_eq!(gateway.suppressed_notices(), 300 - (first + second + third) as u64);
    assert_eq!(gateway.drops("unknown_protocol"), 300);
}

#[test]
fn b24_errors_can_be_switched_off() {
    let mut settings = settings();
    settings.limits.icmp_errors_per_second = 0;
    for mut gateway in Gateway::each(&settings) {
        let packet = other(ip(CLIENT), gateway.y(ip(SERVER)), 132, &[0; 12]);
        assert_eq!(gateway.refuse(&packet, "unknown_protocol"), None);
        gateway.advance(Duration::from_secs(10));
        assert_eq!(gateway.refuse(&packet, "unknown_protocol"), None);
    }
}

#[test]
fn the_source_of_icmpv6_errors_can_be_chosen() {
    let mut settings = settings();
    settings.icmp6_source = Some("2001:db8::64".parse().unwrap());
    for mut gateway in Gateway::each(&settings) {
        let told = gateway.refuse(&udp(client(1), server6(&gateway, 53), b"q").hops(1), "hop_limit").unwrap();
        assert_eq!((told.src, told.dst, told.hops), (ip("2001:db8::64"), ip(CLIENT), 64));
    }
}

#[test]
fn behind_a_kernel_the_kernel_speaks_about_hops_and_we_only_about_zero() {
    let mut settings = settings();
    settings.hops = Hops::KernelForwards;
    for mut gateway in Gateway::each(&settings) {
        let packet = udp(client(1), server6(&gateway, 53), b"q");
        assert_eq!(gateway.translate(&packet.clone().hops(1)).hops, 2);
        assert_eq!(gateway.refuse(&packet.hops(0), "hop_limit").unwrap().icmp().0, 3);
        let t = open_udp(&mut gateway, client(1));
        assert_eq!(gateway.translate(&udp(server(53), t, b"a").hops(1)).hops, 2);
    }
}

#[test]
fn units_refuse_strangers_and_say_so() {
    let mut settings = settings();
    settings.units = vec![sampan::nat64::settings::Unit {
        name: "Sở Thông tin".into(),
        prefixes: vec!["2001:db8:1::/48".parse().unwrap()],
        ..sampan::nat64::settings::Unit::default()
    }];
    for mut gateway in Gateway::each(&settings) {
        gateway.translate(&udp(client(1), server6(&gateway, 53), b"q"));
        let stranger = tcp(at("2001:db8:2::1", 1), server6(&gateway, 80), SYN, b"");
        let told = gateway.refuse(&stranger, "source_not_served").unwrap();
        assert_eq!(told.icmp(), (1, 1, 0, &stranger.bytes()[..]));
        assert_eq!(gateway.sessions(), [0, 1, 0]);
        assert_eq!(gateway.session_rows(&Default::default())[0].unit.as_deref(), Some("Sở Thông tin"));
    }
}

#[test]
fn a_device_that_refuses_is_counted() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        gateway.refuse_output(true);
        assert_eq!(gateway.refuse(&udp(client(4000), server6(&gateway, 53), b"q"), "device_write"), None);
        assert_eq!(gateway.refuse(&udp(server(53), t, b"a"), "device_write"), None);
        assert_eq!(gateway.refuse(&udp(server(53), t, &[0; 1400]), "device_write"), None);
        let told = gateway.refuse(&udp(client(4000), server6(&gateway, 53), b"q").hops(1), "hop_limit");
        assert_eq!(told, None);
        gateway.refuse_output(false);
        open_udp(&mut gateway, client(4000));
    }
}
