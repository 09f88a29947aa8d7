//! Rows of the checklist that no other room of these tests has a natural place for.

use std::net::{IpAddr, SocketAddr};

use crate::support::packet::{ACK, SYN};
use crate::support::{
    Gateway, L4, Packet, at, echo_reply, echo_request, error, ip, other, settings, tcp, udp,
};
use crate::{CLIENT, SERVER, client, open_udp, server, server6};

#[test]
fn a07_the_mapping_is_the_same_in_every_instance() {
    let seen: Vec<IpAddr> = Gateway::each(&settings())
        .into_iter()
        .chain(Gateway::each(&settings()))
        .map(|mut gateway| gateway.translate(&udp(client(4000), server6(&gateway, 53), b"q")).dst)
        .collect();
    assert_eq!(seen, [ip(SERVER); 8]);
}

#[test]
fn a16_the_local_use_prefix_is_nothing_special_unless_configured() {
    let mut settings = settings();
    settings.pool6 = vec!["64:ff9b::/96".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        assert_eq!(gateway.refuse(&udp(client(1), at("64:ff9b:1::9", 53), b"q"), "not_pool6"), None);
    }
    settings.pool6 = vec!["64:ff9b:1::/96".parse().unwrap()];
    settings.allow = vec!["10.0.0.0/8".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        let out = gateway.translate(&udp(client(1), at("64:ff9b:1::10.0.0.1", 53), b"q"));
        assert_eq!(out.dst, ip("10.0.0.1"));
    }
}

#[test]
fn a21_checksums_are_right_under_a_checksum_neutral_prefix_too() {
    let mut settings = settings();
    settings.pool6 = vec!["64:ff9b::/96".parse().unwrap()];
    for mut gateway in Gateway::each(&settings) {
        // `translate` has etherparse recompute the checksum.
        let out = gateway.translate(&tcp(client(1), at("64:ff9b::8.8.8.8", 80), SYN, b""));
        gateway.translate(&tcp(at("8.8.8.8", 80), out.source(), SYN | ACK, b""));
    }
}

#[test]
fn a22_a23_two_prefixes_each_session_answers_from_its_own() {
    let mut settings = settings();
    settings.pool6.push("2001:db8:65::/96".parse().unwrap());
    for mut gateway in Gateway::each(&settings) {
        for prefix in ["2001:db8:64::", "2001:db8:65::"] {
            let to = at(format!("{prefix}203.0.113.10"), 53);
            let out = gateway.translate(&udp(client(4000), to, b"q"));
            assert_eq!(out.destination(), server(53));
        }
        // Both have the same (T,t) and the same peer: the answer goes back where the flow began last.
        assert_eq!(gateway.bindings(), 1);
        let to = at("2001:db8:65::203.0.113.10", 54);
        let out = gateway.translate(&udp(client(4000), to, b"q"));
        let back = gateway.translate(&udp(server(54), out.source(), b"a"));
        assert_eq!(back.source(), to);
    }
}

#[test]
fn a26_the_rules_about_addresses_hold_for_the_embedded_address() {
    for mut gateway in Gateway::each(&settings()) {
        for refused in ["10.1.2.3", "192.168.1.1", "198.18.0.1"] {
            let to = SocketAddr::new(gateway.y(ip(refused)), 80);
            assert!(gateway.refuse(&udp(client(1), to, b"q"), "not_allowed").is_some(), "{refused}");
        }
        let to = SocketAddr::new(gateway.y(ip("127.0.0.1")), 80);
        assert!(gateway.refuse(&udp(client(1), to, b"q"), "illegal_destination").is_some());
    }
}

#[test]
fn b14_the_vectors_of_rfc_7915_appendix_a() {
    let mut settings = settings();
    settings.pool6 = vec!["2001:db8:100::/40".parse().unwrap()];
    settings.allow = vec!["198.51.100.0/24".parse().unwrap()];
    settings.pool4.ranges[0].prefix = "192.0.2.33/32".parse().unwrap();
    let host4 = "2001:db8:1c6:3364:2::";
    for mut gateway in Gateway::each(&settings) {
        let out = gateway.translate(&udp(client(1), at(host4, 80), b"q"));
        assert_eq!((out.src, out.dst), (ip("192.0.2.33"), ip("198.51.100.2")));
        let back = gateway.translate(&udp(at("198.51.100.2", 80), out.source(), b"a"));
        assert_eq!(back.src, ip(host4));
    }
}

#[test]
fn b26_c23_packets_of_a_flow_leave_in_the_order_they_came() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        for n in 0..64_u8 {
            let up = udp(client(4000), server6(&gateway, 53), &[n]).bytes();
            let down = udp(server(53), t, &[n]).bytes();
            // Always the same queue, which with several workers is not the owner's for all of them.
            gateway.feed(0, up, Default::default());
            gateway.feed(0, down, Default::default());
        }
        let out = gateway.run();
        for v6 in [true, false] {
            let of_family = out.iter().filter(|o| (o.bytes[0] >> 4 == 6) == v6);
            let order: Vec<u8> = of_family.map(|o| *o.bytes.last().unwrap()).collect();
            assert_eq!(order, (0..64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn c13_e19_no_atomic_fragments_and_df_is_never_cleared() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        for df in [false, true] {
            let back = gateway.translate(&udp(server(53), t, &[1; 100]).df(df));
            assert!(back.extensions.is_empty());
        }
        // DF and too long: told, not cut.
        let told = gateway.refuse(&udp(server(53), t, &[1; 1460]).df(true), "packet_too_big").unwrap();
        assert_eq!((told.icmp().0, told.icmp().1, told.icmp().2), (3, 4, 1480));
    }
}

#[test]
fn c24_e20_each_side_has_its_own_mtu_and_the_first_piece_goes_first() {
    let mut settings = settings();
    (settings.mtu.v6, settings.mtu.v4, settings.mtu.lowest_ipv6) = (1400, 1300, 1280);
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        let told = gateway.refuse(&udp(client(4000), server6(&gateway, 53), &[1; 1340]), "packet_too_big");
        assert_eq!(told.unwrap().icmp().2, 1320);
        let told = gateway.refuse(&udp(server(53), t, &[1; 1360]).df(true), "packet_too_big");
        assert_eq!(told.unwrap().icmp().2, 1300);
        let out = gateway.send_raw(udp(server(53), t, &[1; 1360]).df(false).bytes(), Default::default());
        let offsets: Vec<_> = out
            .iter()
            .map(|o| sampan::wire::ipv6::parse(&o.bytes).unwrap().fragment.unwrap().offset)
            .collect();
        assert_eq!(offsets, [0, 1232]);
    }
}

#[test]
fn d01_d02_d22_d23_f51_echo_and_reply_both_ways() {
    for mut gateway in Gateway::each(&settings()) {
        let out = gateway.translate(&echo_request(ip(CLIENT), gateway.y(ip(SERVER)), 77, b"data"));
        let L4::Echo { reply: false, id, seq, .. } = out.l4 else { panic!("{out:?}") };
        let back = gateway.translate(&echo_reply(ip(SERVER), out.src, id, b"data"));
        assert!(matches!(back.l4, L4::Echo { reply: true, id: 77, seq: s, .. } if s == seq), "{back:?}");
        // The peer asks, the client replies.
        let asked = gateway.translate(&echo_request(ip(SERVER), out.src, id, b"?"));
        assert!(matches!(asked.l4, L4::Echo { reply: false, id: 77, .. }), "{asked:?}");
        let answer = gateway.translate(&echo_reply(ip(CLIENT), gateway.y(ip(SERVER)), 77, b"!"));
        assert!(matches!(answer.l4, L4::Echo { reply: true, id: i, .. } if i == id), "{answer:?}");
    }
}

#[test]
fn d26_informational_messages_are_dropped() {
    for mut gateway in Gateway::each(&settings()) {
        for kind in [130_u32, 138, 143, 155, 200] {
            let packet = error(ip(CLIENT), gateway.y(ip(SERVER)), kind as u8, 0, 0, &[0; 20]);
            assert_eq!(gateway.refuse(&packet, "icmp_type"), None);
        }
    }
}

#[test]
fn d44_d46_sizes_beyond_16_bits_and_lengths_of_the_result() {
    let mut settings = settings();
    (settings.mtu.v6, settings.mtu.v4) = (65_535, 65_535);
    for mut gateway in Gateway::each(&settings) {
        let t = open_udp(&mut gateway, client(4000));
        let seen = gateway.translate(&udp(server(53), t, &[9; 64]));
        let told = gateway.translate(&error(ip("2001:db8::99"), seen.src, 2, 0, 100_000, &seen.bytes()));
        assert_eq!(told.icmp().2, 65_515);
        // `parse` has refused anything whose length fields do not fit; the quote is the packet that was sent.
        assert_eq!(told.icmp().3.len(), 20 + 8 + 64);
    }
}

#[test]
fn d58_an_error_from_a_router_inside_comes_from_the_sessions_pool_address() {
    for mut gateway in Gateway::each(&settings()) {
        let t = open_udp(&mut gateway, client(4000));
        let seen = gateway.translate(&udp(server(53), t, b"a"));
        for router in ["2001:db8::99", CLIENT] {
            let told = gateway.translate(&error(ip(router), seen.src, 1, 0, 0, &seen.bytes()));
            assert_eq!((told.src, told.dst), (t.ip(), ip(SERVER)));
        }
    }
}

#[test]
fn e10_an_extension_header_behind_the_fragment_header_is_refused() {
    use crate::support::Extension;
    for mut gateway in Gateway::each(&settings()) {
        for more in [false, true] {
            let packet = udp(client(4000), server6(&gateway, 53), &[0; 8])
                .extension(Extension::fragment(0, more, 1))
                .extension(Extension::destination_options());
            assert_eq!(gateway.refuse(&packet, "extension_chain"), None);
        }
        // Authentication headers count as such: nothing behind them can be translated statefully.
        let packet = other(ip(CLIENT), gateway.y(ip(SERVER)), 51, &[17, 4, 0, 0, 0, 0, 0, 0]);
        assert!(gateway.refuse(&packet, "unknown_protocol").is_some());
    }
}

#[test]
fn d65_padding_behind_a_quote_does_not_reach_the_quoted_checksum() {
    for mut gateway in Gateway::each(&settings()) {
        let packet = udp(client(4000), server6(&gateway, 53), b"12345");
        let out = gateway.translate(&packet);
        let mut padded = out.bytes();
        padded.resize(128, 0);
        let told = gateway.translate(&error(ip(SERVER), out.src, 3, 3, 32 << 16, &padded));
        // The quote is exactly the client's packet: its own checksum holds, and there is nothing behind it.
        let quote = Packet::parse(told.icmp().3).unwrap();
        assert_eq!((quote.source(), quote.data()), (packet.source(), packet.data()));
    }
}

#[test]
fn a09_dns64_and_nat64_read_one_list_of_prefixes() {
    let text = "[nat64]\npool6 = [\"2001:db8:64::/96\", \"2001:db8:100::/40\"]\n\
                [[nat64.pool4]]\nprefix = \"198.51.100.0/28\"\n\
                [[nat64.allow]]\nprefix = \"10.0.0.0/8\"\n\
                [dns64]\nlisten = [\"[::1]:53\"]\nupstream = [\"192.0.2.53\"]\n";
    let plan = sampan::control::plan::check(text).unwrap().plan;
    let (nat64, dns64) = (plan.nat64().unwrap(), plan.dns64.as_ref().unwrap());
    let policy = &dns64.settings.policy;
    assert_eq!((&policy.prefixes, policy.prefixes.len()), (&nat64.pool6, 2));
    assert_eq!(policy.allow, nat64.allowed());
}

#[test]
fn c19_what_policy_refuses_is_told_except_errors_and_can_be_switched_off() {
    use sampan::nat64::settings::Filter;
    let mut settings = settings();
    settings.filtering.udp = Filter::AddressDependent;
    for limit in [1000, 0] {
        settings.limits.icmp_errors_per_second = limit;
        for mut gateway in Gateway::each(&settings) {
            let t = open_udp(&mut gateway, client(4000));
            let told = gateway.refuse(&udp(at("203.0.113.99", 53), t, b"?"), "filtered");
            assert_eq!(told.map(|p| (p.icmp().0, p.icmp().1)), (limit > 0).then_some((3, 13)));
            let about = error(ip("203.0.113.99"), t.ip(), 3, 3, 0, &udp(t, at("9.9.9.9", 1), b"").bytes());
            assert_eq!(gateway.refuse(&about, "no_session"), None);
        }
    }
}
