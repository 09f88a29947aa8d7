//! DNS64 as `dig` sees it, on an IPv6-only client.

use std::net::Ipv4Addr;

use sampan::lab::plan::{DNS_UPSTREAM, SERVER, SERVER6};

use crate::support::TestLab;

/// What `dig` printed.
#[derive(Debug)]
pub struct Answer {
    pub status: String,
    flags: Vec<String>,
    /// (owner, TTL, type, data)
    pub records: Vec<(String, u32, String, String)>,
    edns: bool,
    pub text: String,
}

impl Answer {
    fn data(&self, wanted: &str) -> Vec<&str> {
        let mut data: Vec<_> = self
            .records
            .iter()
            .filter(|(_, _, kind, _)| kind == wanted)
            .map(|(_, _, _, d)| d.as_str())
            .collect();
        data.sort_unstable();
        data
    }

    fn types(&self) -> Vec<&str> {
        self.records.iter().map(|(_, _, kind, _)| kind.as_str()).collect()
    }

    fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }
}

pub fn dig(lab: &TestLab, args: &[&str]) -> Answer {
    let server = format!("@{}", lab.plan().gateway6);
    let mut argv = vec!["dig", &server, "+noall", "+comments", "+answer", "+tries=1", "+time=8"];
    argv.extend(args);
    read(lab.on("client1", &argv))
}

fn read(text: String) -> Answer {
    let between = |from: &str, to: &str| {
        text.split_once(from)
            .and_then(|(_, rest)| rest.split_once(to))
            .map(|(found, _)| found.trim().to_owned())
    };
    let records = text
        .lines()
        .filter(|line| !line.starts_with(';') && !line.trim().is_empty())
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[0].to_owned(), words[1].parse().unwrap(), words[3].to_owned(), words[4..].join(" "))
        })
        .collect();
    Answer {
        status: between("status: ", ",").unwrap_or_else(|| panic!("no status in {text}")),
        flags: between("flags: ", ";").unwrap_or_default().split(' ').map(str::to_owned).collect(),
        records,
        edns: text.contains("OPT PSEUDOSECTION"),
        text,
    }
}

fn text_of(lab: &TestLab, v4: Ipv4Addr) -> String {
    lab.embed(v4).to_string()
}

#[test]
fn names_with_ipv4_only_get_synthesised_addresses() {
    let lab = TestLab::up();
    let answer = dig(&lab, &["AAAA", "portal.tinh.example"]);
    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
    assert_eq!(answer.data("AAAA"), [text_of(&lab, SERVER)]);
    assert!(answer.flag("qr") && answer.flag("rd") && answer.flag("ra") && !answer.flag("ad"), "{answer:?}");

    let many = dig(&lab, &["AAAA", "many.tinh.example"]);
    let expected: Vec<_> = [80, 81, 82].map(|n| text_of(&lab, Ipv4Addr::new(203, 0, 113, n))).into();
    assert_eq!(many.data("AAAA"), expected);
}

/// RFC 6147 §5.1.7: no longer than the A record and than the zone's negative TTL (300 and 30 here; 20 where the A
/// record has 20).
#[test]
fn the_ttl_is_the_smaller_of_both() {
    let lab = TestLab::up();
    for (name, most) in [("portal.tinh.example", 30), ("short.tinh.example", 20)] {
        let answer = dig(&lab, &["AAAA", name]);
        let ttl = answer.records.first().map(|r| r.1).unwrap_or_else(|| panic!("{}", answer.text));
        assert!(ttl <= most && ttl + 5 >= most, "{name}: TTL {ttl}, expected {most}\n{}", answer.text);
    }
}

#[test]
fn real_ipv6_addresses_are_left_alone() {
    let lab = TestLab::up();
    for name in ["dual.tinh.example", "only6.tinh.example"] {
        let answer = dig(&lab, &["AAAA", name]);
        assert_eq!(answer.data("AAAA"), [SERVER6.to_string()], "{name}\n{}", answer.text);
    }
    // RFC 6147 §5.1.4: an IPv4-mapped AAAA is as good as none.
    let mapped = dig(&lab, &["AAAA", "mapped.tinh.example"]);
    assert_eq!(mapped.data("AAAA"), [text_of(&lab, SERVER)], "{}", mapped.text);
}

#[test]
fn alias_chains_are_kept_and_end_in_a_synthesised_address() {
    let lab = TestLab::up();
    let answer = dig(&lab, &["AAAA", "chain.tinh.example"]);
    assert_eq!(answer.types(), ["CNAME", "CNAME", "AAAA"], "{}", answer.text);
    assert_eq!(answer.data("CNAME"), ["portal.tinh.example.", "step.tinh.example."]);
    assert_eq!(answer.data("AAAA"), [text_of(&lab, SERVER)]);
    assert_eq!(answer.records[2].0, "portal.tinh.example.");
}

#[test]
fn names_that_do_not_exist_and_servers_that_fail_are_reported_as_such() {
    let lab = TestLab::up();
    let missing = dig(&lab, &["AAAA", "nothing.tinh.example"]);
    assert_eq!((missing.status.as_str(), missing.records.len()), ("NXDOMAIN", 0), "{}", missing.text);
    let broken = dig(&lab, &["AAAA", "portal.broken.example"]);
    assert_eq!((broken.status.as_str(), broken.records.len()), ("SERVFAIL", 0), "{}", broken.text);
    let no_address = dig(&lab, &["AAAA", "text.tinh.example"]);
    assert_eq!((no_address.status.as_str(), no_address.records.len()), ("NOERROR", 0), "{}", no_address.text);
}

#[test]
fn private_and_loopback_ipv4_is_never_synthesised_by_default() {
    let lab = TestLab::up();
    for name in ["private.tinh.example", "loop.tinh.example"] {
        let answer = dig(&lab, &["AAAA", name]);
        assert_eq!((answer.status.as_str(), answer.records.len()), ("NOERROR", 0), "{name}\n{}", answer.text);
    }
}

#[test]
fn other_types_pass_unchanged() {
    let lab = TestLab::up();
    assert_eq!(dig(&lab, &["A", "portal.tinh.example"]).data("A"), [SERVER.to_string()]);
    assert_eq!(dig(&lab, &["MX", "tinh.example"]).data("MX"), ["10 mail.tinh.example."]);
    assert_eq!(dig(&lab, &["TXT", "text.tinh.example"]).data("TXT"), ["\"no address here\""]);
}

/// RFC 7050: how hosts discover the prefix. RFC 8880: the resolver knows these names itself.
#[test]
fn ipv4only_arpa_tells_the_prefix() {
    let lab = TestLab::up();
    let both = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
    let mut expected = both.map(|v4| text_of(&lab, v4));
    expected.sort();
    let answer = dig(&lab, &["AAAA", "ipv4only.arpa"]);
    assert_eq!(answer.data("AAAA"), expected, "{}", answer.text);
    assert_eq!(dig(&lab, &["A", "ipv4only.arpa"]).data("A"), both.map(|v4| v4.to_string()));
}

/// RFC 7050 §3, as a host does it: ask, look for the well-known addresses where RFC 6052 §2.2 puts them, and have the
/// prefix. Over UDP and over TCP; then RFC 8880 §7.2.1, the names of the addresses.
#[test]
fn k25_k29_discovery_of_the_prefix_over_udp_and_tcp() {
    // Prefix length, and where the four octets of the IPv4 address stand.
    const PLACES: [(u8, [usize; 4]); 6] = [
        (32, [4, 5, 6, 7]),
        (40, [5, 6, 7, 9]),
        (48, [6, 7, 9, 10]),
        (56, [7, 9, 10, 11]),
        (64, [9, 10, 11, 12]),
        (96, [12, 13, 14, 15]),
    ];
    let lab = TestLab::up();
    for words in [&[][..], &["+tcp"]] {
        let answer = dig(&lab, &[words, &["+nocdflag", "AAAA", "ipv4only.arpa"]].concat());
        assert!(answer.status == "NOERROR" && !answer.flag("ad") && !answer.flag("tc"), "{}", answer.text);
        let mut found = Vec::new();
        for address in answer.data("AAAA") {
            let octets = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
            for (len, places) in PLACES {
                let embedded = places.map(|at| octets[at]);
                if let [192, 0, 0, last @ (170 | 171)] = embedded {
                    let mut prefix = octets;
                    prefix[usize::from(len) / 8..].fill(0);
                    found.push((format!("{}/{len}", std::net::Ipv6Addr::from(prefix)), last));
                }
            }
            let name = dig(&lab, &[words, &["-x", address]].concat());
            assert_eq!(name.data("PTR"), ["ipv4only.arpa."], "{}", name.text);
        }
        found.sort_unstable();
        let prefix = lab.options().pref64.to_string();
        assert_eq!(found, [(prefix.clone(), 170), (prefix, 171)], "{}", answer.text);
    }
}

/// RFC 6147 §5.3.1: reverse look-ups of synthesised addresses lead to the IPv4 address's name.
#[test]
fn reverse_look_up_of_a_synthesised_address() {
    let lab = TestLab::up();
    let answer = dig(&lab, &["-x", &text_of(&lab, SERVER)]);
    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
    assert_eq!(answer.data("PTR"), ["portal.tinh.example."], "{}", answer.text);
}

#[test]
fn tcp_edns_and_truncation() {
    let lab = TestLab::up();
    let tcp = dig(&lab, &["+tcp", "AAAA", "portal.tinh.example"]);
    assert_eq!(tcp.data("AAAA"), [text_of(&lab, SERVER)], "{}", tcp.text);

    assert!(dig(&lab, &["+edns=0", "AAAA", "portal.tinh.example"]).edns);
    assert!(!dig(&lab, &["+noedns", "AAAA", "portal.tinh.example"]).edns);

    // 3,000 bytes do not fit into 512: truncated over UDP, whole over TCP, and `dig` follows by itself.
    let cut = dig(&lab, &["+noedns", "+ignore", "TXT", "large.tinh.example"]);
    assert!(cut.flag("tc"), "{}", cut.text);
    for args in [&["+noedns"][..], &["+tcp"], &["+bufsize=1232"]] {
        let whole = dig(&lab, &[args, &["TXT", "large.tinh.example"]].concat());
        assert!(!whole.flag("tc"));
        assert_eq!(whole.data("TXT").concat().matches('x').count(), 3000, "{args:?}");
    }
}

/// A large answer over UDP, from a server that is asked directly by its synthesised address: it comes in IPv4 fragments,
/// which the gateway puts together and cuts again into IPv6 fragments.
#[test]
fn e01_a_large_answer_over_udp_arrives_in_fragments() {
    let lab = TestLab::up();
    let server = format!("@{}", lab.embed(DNS_UPSTREAM));
    let before = [lab.counters("client1"), lab.counters("server")];
    let answer = read(lab.on(
        "client1",
        &[
            "dig",
            &server,
            "+noall",
            "+comments",
            "+answer",
            "+tries=1",
            "+time=3",
            "+norecurse",
            "+ignore",
            "+bufsize=4096",
            "TXT",
            "large.tinh.example",
        ],
    ));
    assert!(!answer.flag("tc"), "{}", answer.text);
    assert_eq!(answer.data("TXT").concat().matches('x').count(), 3000, "{}", answer.text);
    let after = [lab.counters("client1"), lab.counters("server")];
    let grew = |i: usize, name: &str| after[i][name] - before[i][name];
    // One datagram of 3,000 bytes: three pieces on each side.
    assert_eq!((grew(1, "IpFragOKs"), grew(1, "IpFragCreates")), (1, 3), "the server did not cut");
    assert_eq!((grew(0, "Ip6ReasmOKs"), grew(0, "Ip6ReasmReqds")), (1, 3), "the client got no pieces");
    assert_eq!(grew(0, "TcpActiveOpens"), 0, "it was asked over TCP");
}

/// A query from outside the allowed prefixes gets no service.
#[test]
fn strangers_are_refused() {
    let lab = TestLab::up();
    let stranger = "2001:db8:bad::1";
    lab.on("client2", &["ip", "addr", "add", &format!("{stranger}/128"), "dev", "eth0", "nodad"]);
    lab.on("gw", &["ip", "route", "add", &format!("{stranger}/128"), "dev", "lan0"]);
    let server = format!("@{}", lab.plan().gateway6);
    let out = lab.try_on(
        "client2",
        &["dig", "-b", stranger, &server, "+tries=1", "+time=2", "AAAA", "portal.tinh.example"],
    );
    let served = out.stdout.contains("status: NOERROR") || out.stdout.contains(&text_of(&lab, SERVER));
    assert!(!served, "{}", out.stdout);
    // The same question from an allowed address is answered, so it was the address that mattered.
    let own = dig(&lab, &["AAAA", "portal.tinh.example"]);
    assert_eq!(own.data("AAAA"), [text_of(&lab, SERVER)]);
}

#[test]
fn dig_output_is_read() {
    let answer = read(
        ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1\n;; flags: qr rd ra; QUERY: 1\n\n\
         ;; OPT PSEUDOSECTION:\n; EDNS: version: 0\n;; ANSWER SECTION:\n\
         a.example.\t30\tIN\tCNAME\tb.example.\nb.example. 20 IN AAAA 2001:db8::1\n"
            .into(),
    );
    assert_eq!(answer.status, "NOERROR");
    assert!(answer.edns && answer.flag("ra") && !answer.flag("tc"));
    assert_eq!(answer.types(), ["CNAME", "AAAA"]);
    assert_eq!(answer.data("AAAA"), ["2001:db8::1"]);
}
