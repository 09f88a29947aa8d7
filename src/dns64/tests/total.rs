//! The whole decision table: every AAAA outcome with every A outcome under every policy, state of the translator and
//! kind of client. What must come back is worked out by a second, slow reading of RFC 6147 over plain values
//! ([`expected`]); it shares nothing with the room but the inputs.

use std::collections::BTreeMap;

use hickory_proto::rr::rdata::NS;

use super::*;

const NATIVE: &str = "2001:db8::1";
const MAPPED: &str = "::ffff:192.0.2.9";
const IN_OWN: &str = "2001:db8:64::c629:4";

/// What one record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    A([u8; 4]),
    Aaaa(Ipv6Addr),
    /// From `x.example.` to `y.example.`.
    Alias,
    Signature,
}

/// Owner, TTL, data.
type Line = (&'static str, u32, Data);

/// An answer of the upstream; silence and garbage are `None`.
#[derive(Clone, Debug, Default)]
struct Said {
    rcode: u16,
    lines: Vec<Line>,
    /// TTL and MINIMUM of the SOA.
    soa: Option<(u32, u32)>,
    /// An NS record and its address.
    extra: bool,
    bogus: bool,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    mode: Mode,
    on_error: OnError,
    exclude: Exclude,
    prefixes: Prefixes,
    health: Option<WhenDown>,
    client: Client,
    aaaa: &'a Option<Said>,
    a: &'a Option<Said>,
}

/// Which AAAA records count as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exclude {
    Mapped,
    Nothing,
    MappedAndOwn,
}

/// What is translated, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefixes {
    /// None configured; everything allowed.
    None,
    Own,
    OwnAllowed,
    Two,
    WellKnownAndOwnAllowed,
    /// 198.41.0.0/24 has another prefix, 199.9.0.0/16 none.
    Ranges,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Client {
    edns: bool,
    dnssec_ok: bool,
    checking_disabled: bool,
    wants_ad: bool,
    trusted: bool,
}

/// What must come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Expected {
    rcode: u16,
    lines: Vec<Line>,
    soa: Option<(u32, u32)>,
    extra: bool,
    codes: Vec<u16>,
    authentic: bool,
    outcome: &'static str,
}

fn aaaa_outcomes() -> Vec<Option<Said>> {
    let aaaa = |owner, addr: &str| (owner, 300, Data::Aaaa(addr.parse().unwrap()));
    let alias = ("x", 300, Data::Alias);
    let signed = |owner| (owner, 300, Data::Signature);
    let negative = Said { soa: Some((60, 30)), ..Said::default() };
    let with = |lines: &[Line]| Said { lines: lines.to_vec(), ..Said::default() };
    vec![
        None,
        Some(Said { rcode: 3, ..negative.clone() }),
        Some(Said { rcode: 3, lines: vec![alias], ..negative.clone() }),
        Some(Said { rcode: 2, ..Said::default() }),
        Some(Said { rcode: 5, ..Said::default() }),
        Some(Said { rcode: 2, bogus: true, ..Said::default() }),
        Some(negative.clone()),
        Some(Said::default()),
        Some(Said { lines: vec![alias], ..negative }),
        Some(with(&[aaaa("x", NATIVE), signed("x")])),
        Some(with(&[alias, aaaa("y", NATIVE)])),
        Some(with(&[aaaa("x", MAPPED)])),
        Some(with(&[aaaa("x", IN_OWN)])),
        Some(with(&[aaaa("x", MAPPED), aaaa("x", IN_OWN), aaaa("x", NATIVE), signed("x")])),
        Some(with(&[alias, aaaa("y", MAPPED), signed("y")])),
    ]
}

fn a_outcomes() -> Vec<Option<Said>> {
    let a = |owner, ttl, addr| (owner, ttl, Data::A(addr));
    let alias = ("x", 300, Data::Alias);
    let global = [198, 41, 0, 4];
    let with = |lines: &[Line]| Some(Said { lines: lines.to_vec(), ..Said::default() });
    let negative = Said { soa: Some((50, 20)), ..Said::default() };
    vec![
        None,
        Some(Said { rcode: 3, ..negative.clone() }),
        Some(Said { rcode: 3, lines: vec![alias], ..negative.clone() }),
        Some(Said { rcode: 2, ..Said::default() }),
        Some(Said { rcode: 5, ..Said::default() }),
        Some(Said { rcode: 2, bogus: true, ..Said::default() }),
        Some(negative.clone()),
        Some(Said { lines: vec![alias], ..negative }),
        Some(Said { lines: vec![a("x", 3600, global)], extra: true, ..Said::default() }),
        with(&[a("x", 20, global), a("x", 7200, [199, 9, 14, 201])]),
        Some(Said { lines: vec![a("x", 3600, [10, 1, 2, 3])], extra: true, ..Said::default() }),
        with(&[a("x", 3600, [10, 1, 2, 3]), a("x", 3600, global), ("x", 300, Data::Signature)]),
        with(&[alias, a("y", 3600, global), ("y", 300, Data::Signature)]),
        with(&[a("x", 0, global)]),
    ]
}

fn clients() -> [Client; 7] {
    let none = Client { trusted: true, ..Client::default() };
    let edns = Client { edns: true, ..none };
    let dnssec = Client { dnssec_ok: true, ..edns };
    [
        none,
        edns,
        dnssec,
        Client { wants_ad: true, ..none },
        Client { checking_disabled: true, ..none },
        Client { checking_disabled: true, ..dnssec },
        Client { trusted: false, ..dnssec },
    ]
}

/// RFC 6147 §5, sentence by sentence.
fn expected(case: &Case<'_>) -> Expected {
    // §3 case 4 and §5.5: whoever sets CD validates, and gets what there is.
    if case.mode == Mode::Pass || case.client.checking_disabled {
        return untouched(case, case.aaaa.as_ref());
    }
    let good = |line: &&Line| matches!(line.2, Data::Aaaa(addr) if !is_excluded(case.exclude, addr));
    let (absence, has_good) = match case.aaaa {
        // §5.1.3: silence is SERVFAIL; §5.1.2: any error but NXDOMAIN is an empty answer, if the operator lets it be.
        None if case.on_error == OnError::Fail => return silence(case),
        None => (600, false),
        // §5.1.2: the name does not exist.
        Some(said) if said.rcode == 3 => {
            return Expected { outcome: "nxdomain", ..handed_on(case, said, said.lines.clone()) };
        }
        // §5.5: bogus data is an error for the client.
        Some(said) if said.bogus => return untouched(case, Some(said)),
        Some(said) if said.rcode != 0 && case.on_error == OnError::Fail => {
            return untouched(case, Some(said));
        }
        Some(said) if said.rcode != 0 => (600, false),
        // §5.1.7: the SOA's TTL, or less if its MINIMUM says so (RFC 2308 §5); 600 seconds without it.
        Some(said) => {
            (said.soa.map_or(600, |(ttl, minimum)| ttl.min(minimum)), said.lines.iter().any(|l| good(&l)))
        }
    };
    // §5.1.1, §5.1.4: real records outside the exclusion set are the answer. A signature over more than is left is void.
    let native = || {
        let said = case.aaaa.as_ref().unwrap();
        let cut = said.lines.iter().any(|line| matches!(line.2, Data::Aaaa(_)) && !good(&line));
        let goes = |line: &&Line| {
            (matches!(line.2, Data::Aaaa(_)) && !good(line)) || (cut && line.2 == Data::Signature)
        };
        let lines = said.lines.iter().filter(|line| !goes(line)).copied().collect();
        Expected { outcome: "native", ..handed_on(case, said, lines) }
    };
    if has_good && !(case.mode == Mode::Always && case.health.is_none()) {
        return native();
    }
    let absence = if has_good { 600 } else { absence };
    let made =
        case.a.as_ref().filter(|said| said.rcode == 0).map(|said| synthetic_lines(case, said, absence));
    if let (Some(said), Some(made)) = (case.a, made.filter(|made| !made.is_empty())) {
        return match case.health {
            // §5.1.7, §5.4: aliases, then what is made; the other sections from the A answer.
            None => Expected {
                lines: aliases(said).into_iter().chain(made).collect(),
                soa: said.soa,
                extra: said.extra,
                codes: codes(case, &[29]),
                outcome: "synthesised",
                ..Expected::default()
            },
            Some(WhenDown::NoData) => Expected {
                lines: aliases(said).into_iter().map(|(owner, _, data)| (owner, 5, data)).collect(),
                soa: honest(case).and_then(|said| said.soa).map(|_| (5, 5)),
                codes: codes(case, &[0]),
                outcome: "translator_down",
                ..Expected::default()
            },
            Some(WhenDown::Stale | WhenDown::ServFail) => Expected {
                rcode: 2,
                codes: codes(case, &[0]),
                outcome: "translator_down",
                ..Expected::default()
            },
        };
    }
    if has_good {
        return native();
    }
    let Some(said) = case.a else { return silence(case) };
    // What is told of another question's answer is never authentic.
    let from_a = |outcome| Expected { authentic: false, outcome, ..handed_on(case, said, aliases(said)) };
    match (said.rcode, honest(case)) {
        // §5.1.6: the error of the A question is the basis.
        (3, _) => from_a("nxdomain"),
        (2, _) if said.bogus => from_a("bogus"),
        (1.., _) => from_a("servfail"),
        // §5.4: the answer to the client's own question.
        (0, Some(own)) => {
            let refused = said.lines.iter().any(|line| matches!(line.2, Data::A(_)));
            let own = handed_on(case, own, own.lines.clone());
            let (outcome, codes) =
                if refused { ("special_purpose", codes(case, &[0])) } else { ("nodata", vec![]) };
            Expected { outcome, codes, ..own }
        }
        // RFC 6052 §3.1: there are addresses, but none to be translated.
        (0, None) if said.lines.iter().any(|line| matches!(line.2, Data::A(_))) => {
            Expected { extra: false, codes: codes(case, &[0]), ..from_a("special_purpose") }
        }
        (0, None) => from_a("nodata"),
    }
}

/// The AAAA answer, if it says honestly that there is none.
fn honest<'a>(case: &Case<'a>) -> Option<&'a Said> {
    let said = case.aaaa.as_ref()?;
    (said.rcode == 0 && !said.lines.iter().any(|line| matches!(line.2, Data::Aaaa(_)))).then_some(said)
}

/// The upstream's answer as it is (RFC 6147 §5.3.3).
fn untouched(case: &Case<'_>, said: Option<&Said>) -> Expected {
    let Some(said) = said else { return silence(case) };
    let outcome = match said.rcode {
        0 | 3 => "forwarded",
        _ if said.bogus => "bogus",
        _ => "servfail",
    };
    Expected { outcome, ..handed_on(case, said, said.lines.clone()) }
}

/// An answer with these of its lines; authentic if it is whole, the upstream says so and is trusted, and the client asked.
fn handed_on(case: &Case<'_>, said: &Said, lines: Vec<Line>) -> Expected {
    let asked = case.client.wants_ad || case.client.dnssec_ok;
    Expected {
        rcode: said.rcode,
        authentic: case.client.trusted && asked && lines == said.lines,
        lines,
        soa: said.soa,
        extra: said.extra,
        codes: if said.bogus { codes(case, &[6]) } else { vec![] },
        outcome: "",
    }
}

fn silence(case: &Case<'_>) -> Expected {
    Expected { rcode: 2, codes: codes(case, &[22]), outcome: "servfail", ..Expected::default() }
}

/// Extended errors go only to clients with EDNS (RFC 8914 §2).
fn codes(case: &Case<'_>, codes: &[u16]) -> Vec<u16> {
    if case.client.edns { codes.to_vec() } else { vec![] }
}

fn aliases(said: &Said) -> Vec<Line> {
    said.lines.iter().filter(|line| line.2 == Data::Alias).copied().collect()
}

fn is_excluded(exclude: Exclude, addr: Ipv6Addr) -> bool {
    let (mapped, own) =
        (addr == MAPPED.parse::<Ipv6Addr>().unwrap(), addr == IN_OWN.parse::<Ipv6Addr>().unwrap());
    match exclude {
        Exclude::Nothing => false,
        Exclude::Mapped => mapped,
        Exclude::MappedAndOwn => mapped || own,
    }
}

/// RFC 6147 §5.1.7: for each A in turn one AAAA under each of its prefixes, living no longer than A and absence.
fn synthetic_lines(case: &Case<'_>, said: &Said, absence: u32) -> Vec<Line> {
    let well_known = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0];
    let own = [0x20, 0x01, 0x0d, 0xb8, 0, 0x64, 0, 0];
    let third = [0x20, 0x01, 0x0d, 0xb8, 0, 3, 0, 0];
    let mut lines = Vec::new();
    for (owner, ttl, data) in &said.lines {
        let Data::A(v4) = *data else { continue };
        let private = v4[0] == 10;
        // RFC 6052 §2.2: behind /96 the address is the last four bytes; behind /48 it has byte 8 in its middle.
        let end = |head: [u8; 8]| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&head);
            bytes[12..].copy_from_slice(&v4);
            Ipv6Addr::from(bytes)
        };
        let split = Ipv6Addr::from([
            0x20, 0x01, 0x0d, 0xb8, 0x01, 0x22, v4[0], v4[1], 0, v4[2], v4[3], 0, 0, 0, 0, 0,
        ]);
        let made = match case.prefixes {
            Prefixes::None if private => vec![],
            Prefixes::None => vec![end(well_known)],
            Prefixes::Own | Prefixes::Two | Prefixes::Ranges if private => vec![],
            Prefixes::Own | Prefixes::OwnAllowed => vec![end(own)],
            Prefixes::Two => vec![end(own), split],
            // RFC 6052 §3.1: never a private address under the well-known prefix.
            Prefixes::WellKnownAndOwnAllowed if private => vec![end(own)],
            Prefixes::WellKnownAndOwnAllowed => vec![end(well_known), end(own)],
            Prefixes::Ranges if v4[..3] == [198, 41, 0] => vec![end(third)],
            Prefixes::Ranges => vec![],
        };
        lines.extend(made.into_iter().map(|addr| (*owner, (*ttl).min(absence), Data::Aaaa(addr))));
    }
    lines
}

fn settings_of(case: &Case<'_>) -> Settings {
    let prefix = |text: &str| text.parse::<Pref64>().unwrap();
    let (prefixes, allow): (&[&str], &[&str]) = match case.prefixes {
        Prefixes::None => (&[], &["0.0.0.0/0"]),
        Prefixes::Own | Prefixes::Ranges => (&[OWN], &[]),
        Prefixes::OwnAllowed => (&[OWN], &["10.0.0.0/8"]),
        Prefixes::Two => (&[OWN, "2001:db8:122::/48"], &[]),
        Prefixes::WellKnownAndOwnAllowed => (&["64:ff9b::/96", OWN], &["0.0.0.0/0"]),
    };
    let range = |v4: &str, prefixes: &[&str]| Range {
        v4: v4.parse().unwrap(),
        prefixes: prefixes.iter().map(|text| prefix(text)).collect(),
    };
    let own = prefix(OWN).prefix();
    let policy = Policy {
        mode: case.mode,
        on_error: case.on_error,
        exclude_aaaa: match case.exclude {
            Exclude::Nothing => vec![],
            Exclude::Mapped => Policy::default().exclude_aaaa,
            Exclude::MappedAndOwn => Policy::default().exclude_aaaa.into_iter().chain([own]).collect(),
        },
        prefixes: prefixes.iter().map(|text| prefix(text)).collect(),
        allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
        ranges: if case.prefixes == Prefixes::Ranges {
            vec![range("198.41.0.0/24", &["2001:db8:3::/96"]), range("199.9.0.0/16", &[])]
        } else {
            vec![]
        },
        ..Policy::default()
    };
    Settings {
        policy,
        trust_ad: case.client.trusted,
        health: if case.health.is_some() { Health::Down } else { Health::Up },
        when_down: case.health.unwrap_or_default(),
        ..Settings::default()
    }
}

fn answer_of(said: &Option<Said>, rtype: RecordType) -> Answer {
    let Some(said) = said else { return Answer::Failed };
    upstream_for("x.example.", rtype, |message| {
        message.metadata.response_code = ResponseCode::from(0, said.rcode as u8);
        message.metadata.authentic_data = true;
        message.answers = said.lines.iter().map(|line| record_of(*line)).collect();
        message.authorities.extend(said.soa.map(|(ttl, minimum)| soa("example.", ttl, minimum)));
        if said.extra {
            message.authorities.push(record("example.", 9, RData::NS(NS(name("ns.example.")))));
            message.additionals.push(a("ns.example.", 9, "198.41.0.4"));
        }
        if said.bogus {
            add_ede(message, 6);
        }
    })
}

fn record_of((owner, ttl, data): Line) -> Record {
    let owner = format!("{owner}.example.");
    match data {
        Data::A(addr) => record(&owner, ttl, RData::A(A(addr.into()))),
        Data::Aaaa(addr) => record(&owner, ttl, RData::AAAA(AAAA(addr))),
        Data::Alias => record(&owner, ttl, RData::CNAME(CNAME(name("y.example.")))),
        Data::Signature => rrsig(&owner),
    }
}

fn query_of(client: Client, rtype: RecordType) -> Vec<u8> {
    query("x.example.", rtype, |message| {
        if client.edns {
            with_opt(message);
            message.edns.as_mut().unwrap().set_dnssec_ok(client.dnssec_ok);
        }
        message.metadata.checking_disabled = client.checking_disabled;
        message.metadata.authentic_data = client.wants_ad;
    })
}

/// Holds a reply against what must come back.
fn compare(client: Client, reply: &Reply, expected: &Expected, case: impl Fn() -> String) {
    let message = Message::from_vec(&reply.bytes).unwrap();
    let flags = &message.metadata;
    assert_eq!(reply.outcome.name(), expected.outcome, "{}", case());
    assert_eq!(u16::from(flags.response_code), expected.rcode, "{}", case());
    let lines: Vec<_> = expected.lines.iter().map(|line| record_of(*line)).collect();
    assert_eq!(message.answers, lines, "{}", case());
    let mut authorities: Vec<_> =
        expected.soa.map(|(ttl, minimum)| soa("example.", ttl, minimum)).into_iter().collect();
    if expected.extra {
        authorities.push(record("example.", 9, RData::NS(NS(name("ns.example.")))));
    }
    assert_eq!(message.authorities, authorities, "{}", case());
    assert_eq!(message.additionals.len(), usize::from(expected.extra), "{}", case());
    assert_eq!(ede(&message), expected.codes, "{}", case());
    assert_eq!(flags.authentic_data, expected.authentic, "AD: {}", case());
    assert_eq!(flags.checking_disabled, client.checking_disabled, "{}", case());
    assert!(flags.recursion_available && flags.recursion_desired && !flags.authoritative, "{}", case());
    let edns = message.edns.as_ref().map(|edns| edns.flags().dnssec_ok);
    assert_eq!(edns, client.edns.then_some(client.dnssec_ok), "{}", case());
}

#[test]
fn r33_every_cell_of_the_decision_table() {
    let all = ["bogus", "forwarded", "native", "nodata", "nxdomain", "servfail", "special_purpose"];
    every_cell(Mode::Synthesise, &[&all[..], &["synthesised", "translator_down"]].concat());
}

#[test]
fn r33_every_cell_of_the_table_when_made_records_are_preferred() {
    let all = ["bogus", "forwarded", "native", "nodata", "nxdomain", "servfail", "special_purpose"];
    every_cell(Mode::Always, &[&all[..], &["synthesised", "translator_down"]].concat());
}

#[test]
fn r33_every_cell_of_the_table_when_everything_passes() {
    every_cell(Mode::Pass, &["bogus", "forwarded", "servfail"]);
}

/// Every cell of one mode; these outcomes must be among them, and no others.
fn every_cell(mode: Mode, all: &[&str]) {
    let (first, second) = (aaaa_outcomes(), a_outcomes());
    let firsts: Vec<_> = first.iter().map(|said| answer_of(said, RecordType::AAAA)).collect();
    let seconds: Vec<_> = second.iter().map(|said| answer_of(said, RecordType::A)).collect();
    let queries = clients().map(|client| (client, query_of(client, RecordType::AAAA)));
    let health = [None, Some(WhenDown::Stale), Some(WhenDown::ServFail), Some(WhenDown::NoData)];
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut policies = 0;
    for on_error in [OnError::UseA, OnError::Fail] {
        for exclude in [Exclude::Mapped, Exclude::Nothing, Exclude::MappedAndOwn] {
            for prefixes in [
                Prefixes::None,
                Prefixes::Own,
                Prefixes::OwnAllowed,
                Prefixes::Two,
                Prefixes::WellKnownAndOwnAllowed,
                Prefixes::Ranges,
            ] {
                // One is about the AAAA answer, the other about the A answer: not every pair is another case.
                if exclude != Exclude::Mapped && prefixes != Prefixes::OwnAllowed {
                    continue;
                }
                for (health, (client, query)) in
                    health.iter().flat_map(|health| queries.iter().map(move |query| (*health, query)))
                {
                    policies += 1;
                    let (aaaa, a, client) = (&None, &None, *client);
                    let base = Case { mode, on_error, exclude, prefixes, health, client, aaaa, a };
                    let settings = settings_of(&base);
                    let Step::Ask(ask) = begin(&settings, query, &CLIENT) else { panic!("{base:?}") };
                    for (aaaa, first) in first.iter().zip(&firsts) {
                        for (a, second) in second.iter().zip(&seconds) {
                            let case = Case { aaaa, a, ..base };
                            let reply = finish(&settings, &ask, first, second);
                            let expected = expected(&case);
                            compare(client, &reply, &expected, || format!("{case:?} {expected:?}"));
                            *outcomes.entry(expected.outcome).or_default() += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{mode:?}: {outcomes:?}");
    assert_eq!(outcomes.values().sum::<usize>(), policies * first.len() * second.len());
    assert_eq!(outcomes.into_keys().collect::<Vec<_>>(), all);
}

/// A questions: untouched, unless the client has no use for A records (and does not validate).
#[test]
fn r33_every_cell_of_the_table_of_a_questions() {
    for (filter_a, client) in [false, true].into_iter().flat_map(|f| clients().map(|client| (f, client))) {
        for mode in [Mode::Synthesise, Mode::Pass, Mode::Always] {
            for said in &a_outcomes() {
                let (aaaa, on_error) = (said, OnError::UseA);
                let (exclude, prefixes, health) = (Exclude::Mapped, Prefixes::Own, None);
                let case = Case { mode, on_error, exclude, prefixes, health, client, aaaa, a: &None };
                let mut settings = settings_of(&case);
                settings.policy.filter_a = filter_a;
                let query = query_of(client, RecordType::A);
                let Step::Ask(ask) = begin(&settings, &query, &CLIENT) else { panic!("{case:?}") };
                assert!(ask.second().is_none());
                let reply = finish(&settings, &ask, &answer_of(said, RecordType::A), &Answer::Failed);
                let has_a = |said: &Said| said.lines.iter().any(|line| matches!(line.2, Data::A(_)));
                let expected = match said {
                    Some(said) if filter_a && !client.checking_disabled && said.rcode == 0 && has_a(said) => {
                        Expected {
                            lines: aliases(said),
                            codes: codes(&case, &[17]),
                            outcome: "filtered",
                            ..Expected::default()
                        }
                    }
                    said => untouched(&case, said.as_ref()),
                };
                compare(client, &reply, &expected, || format!("{case:?} {filter_a} {expected:?}"));
            }
        }
    }
}
