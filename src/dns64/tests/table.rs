//! The decision table of RFC 6147 §5, row by row.

use super::*;

#[test]
fn k01_real_aaaa_wins() {
    let real = upstream(RecordType::AAAA, ResponseCode::NoError, &[aaaa("x.example.", "2001:db8::1")], &[]);
    let (outcome, message) = aaaa_of(&settings(), &real, &good_a());
    assert_eq!(outcome, Outcome::Native);
    assert_eq!(addresses(&message), [("2001:db8::1".parse().unwrap(), 300)]);
}

#[test]
fn k02_nxdomain_passes_on() {
    let gone = upstream(RecordType::AAAA, ResponseCode::NXDomain, &[], &[soa("example.", 60, 30)]);
    let (outcome, message) = aaaa_of(&settings(), &gone, &good_a());
    assert_eq!((outcome, message.metadata.response_code), (Outcome::NxDomain, ResponseCode::NXDomain));
    assert_eq!(message.authorities.len(), 1);
}

#[test]
fn k03_k04_other_errors_and_silence_count_as_empty() {
    use ResponseCode::{FormErr, NotAuth, NotImp, Refused, ServFail};
    let errors = [ServFail, Refused, FormErr, NotImp, NotAuth]
        .map(|rcode| upstream(RecordType::AAAA, rcode, &[], &[]));
    for first in errors.iter().chain([&Answer::Failed, &Answer::Reply(b"garbage".to_vec())]) {
        let (outcome, message) = aaaa_of(&settings(), first, &good_a());
        assert_eq!(outcome, Outcome::Synthesised);
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        // No SOA came with it: 600 seconds at most (K-11).
        assert_eq!(addresses(&message), [(synthetic("198.41.0.4"), 600)]);
    }
}

#[test]
fn o23_bogus_aaaa_is_never_replaced() {
    let bogus = upstream_for("x.example.", RecordType::AAAA, |message| {
        message.metadata.response_code = ResponseCode::ServFail;
        let options = message.edns.as_mut().unwrap().options_mut();
        options.insert(EdnsOption::Unknown(15, vec![0, 6, b'b', b'a', b'd']));
    });
    let (outcome, message) =
        decide(&settings(), &query("x.example.", RecordType::AAAA, with_opt), &bogus, &good_a());
    assert_eq!((outcome, message.metadata.response_code), (Outcome::Bogus, ResponseCode::ServFail));
    assert_eq!(ede(&message), [6]);
}

#[test]
fn k05_k06_excluded_records_never_appear() {
    let mapped = aaaa("x.example.", "::ffff:192.0.2.9");
    let only = upstream(RecordType::AAAA, ResponseCode::NoError, std::slice::from_ref(&mapped), &[]);
    let (outcome, message) = aaaa_of(&settings(), &only, &good_a());
    assert_eq!(outcome, Outcome::Synthesised);
    assert_eq!(addresses(&message), [(synthetic("198.41.0.4"), 600)]);

    let empty = upstream(RecordType::A, ResponseCode::NoError, &[], &[soa("example.", 60, 30)]);
    let (outcome, message) = aaaa_of(&settings(), &only, &empty);
    assert_eq!(outcome, Outcome::NoData);
    assert!(message.answers.is_empty() && message.authorities.len() == 1);

    let both = upstream(
        RecordType::AAAA,
        ResponseCode::NoError,
        &[mapped, aaaa("x.example.", "2001:db8::1"), rrsig("x.example.")],
        &[],
    );
    let (outcome, message) = aaaa_of(&settings(), &both, &good_a());
    assert_eq!(outcome, Outcome::Native);
    assert_eq!(message.answers, [aaaa("x.example.", "2001:db8::1")]);
}

#[test]
fn k07_r27_own_prefix_may_be_excluded() {
    let mut settings = settings();
    settings.policy.exclude_aaaa.push(OWN.parse::<Pref64>().unwrap().prefix());
    let copied =
        upstream(RecordType::AAAA, ResponseCode::NoError, &[aaaa("x.example.", "2001:db8:64::1")], &[]);
    assert_eq!(aaaa_of(&settings, &copied, &good_a()).0, Outcome::Synthesised);
}

#[test]
fn k08_chain_stays_and_synthesis_comes_at_its_end() {
    let dname = || {
        let target = b"\x01y\x07example\0".to_vec();
        record("example.", 300, RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(target) })
    };
    let chain = [dname(), cname("x.example.", "y.example."), cname("y.example.", "Z.example.")];
    let first = upstream(RecordType::AAAA, ResponseCode::NoError, &chain, &[soa("example.", 60, 30)]);
    let answers = [&chain[..], &[a("z.example.", 3600, "198.41.0.4"), rrsig("z.example.")]].concat();
    let second = upstream(RecordType::A, ResponseCode::NoError, &answers, &[]);
    let (outcome, message) = aaaa_of(&settings(), &first, &second);
    assert_eq!(outcome, Outcome::Synthesised);
    assert_eq!(message.answers[..3], chain);
    assert_eq!(message.answers.len(), 4);
    assert_eq!(message.answers[3].name, name("z.example."));
    assert_eq!(addresses(&message), [(synthetic("198.41.0.4"), 30)]);
}

#[test]
fn a_chain_with_real_aaaa_at_its_end_is_native() {
    let answers = [cname("x.example.", "y.example."), aaaa("y.example.", "2001:db8::1")];
    let first = upstream(RecordType::AAAA, ResponseCode::NoError, &answers, &[]);
    let (outcome, message) = aaaa_of(&settings(), &first, &good_a());
    assert_eq!((outcome, message.answers.as_slice()), (Outcome::Native, &answers[..]));
}

#[test]
fn stray_records_are_no_answer() {
    let stray = [aaaa("other.example.", "2001:db8::1")];
    let first = upstream(RecordType::AAAA, ResponseCode::NoError, &stray, &[]);
    assert_eq!(aaaa_of(&settings(), &first, &good_a()).0, Outcome::Synthesised);
    let second = upstream(RecordType::A, ResponseCode::NoError, &[a("other.example.", 9, "1.1.1.1")], &[]);
    let (outcome, message) = aaaa_of(&settings(), &nodata(), &second);
    assert_eq!(outcome, Outcome::NoData);
    assert!(message.answers.is_empty());
}

#[test]
fn a_chain_in_a_circle_ends() {
    let circle = [cname("x.example.", "y.example."), cname("y.example.", "x.example.")];
    let first = upstream(RecordType::AAAA, ResponseCode::NoError, &circle, &[]);
    let second = upstream(RecordType::A, ResponseCode::NoError, &circle, &[]);
    assert_eq!(aaaa_of(&settings(), &first, &second).0, Outcome::NoData);
}

#[test]
fn k09_empty_or_failing_a_is_the_basis() {
    let empty = upstream(RecordType::A, ResponseCode::NoError, &[], &[soa("example.", 50, 20)]);
    let (outcome, message) = aaaa_of(&settings(), &nodata(), &empty);
    assert_eq!(outcome, Outcome::NoData);
    // The answer to the client's own question (RFC 6147 §5.4).
    assert_eq!(message.authorities, [soa("example.", 60, 30)]);

    let refused = upstream(RecordType::AAAA, ResponseCode::Refused, &[], &[]);
    let (outcome, message) = aaaa_of(&settings(), &refused, &empty);
    assert_eq!((outcome, message.metadata.response_code), (Outcome::NoData, ResponseCode::NoError));
    assert_eq!(message.authorities, [soa("example.", 50, 20)]);

    for (rcode, outcome) in
        [(ResponseCode::ServFail, Outcome::ServFail), (ResponseCode::NXDomain, Outcome::NxDomain)]
    {
        let failing = upstream(RecordType::A, rcode, &[cname("x.example.", "y.example.")], &[]);
        let (got, message) = aaaa_of(&settings(), &nodata(), &failing);
        assert_eq!((got, message.metadata.response_code), (outcome, rcode));
        assert_eq!(message.answers, [cname("x.example.", "y.example.")]);
    }

    let (outcome, message) =
        decide(&settings(), &query("x.example.", RecordType::AAAA, with_opt), &nodata(), &Answer::Failed);
    assert_eq!((outcome, message.metadata.response_code), (Outcome::ServFail, ResponseCode::ServFail));
    assert_eq!(ede(&message), [22]);
}

#[test]
fn k10_wire_form_of_a_synthetic_record() {
    let Step::Ask(ask) = begin(&settings(), &query("x.example.", RecordType::AAAA, |_| {}), &CLIENT) else {
        panic!()
    };
    let reply = finish(&settings(), &ask, &nodata(), &good_a());
    let expected = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x01x\x07example\0\0\x1c\0\x01\
        \xc0\x0c\0\x1c\0\x01\0\0\0\x1e\0\x10\x20\x01\x0d\xb8\0\x64\0\0\0\0\0\0\xc6\x29\0\x04";
    assert_eq!(reply.bytes, expected);
}

#[test]
fn k11_ttl_rule() {
    for (a_ttl, soa_ttl, minimum, ttl) in [
        (3600, 300, 3600, 300),
        (3600, 3600, 300, 300),
        (60, 300, 300, 60),
        (0, 300, 300, 0),
        (3600, 0, 300, 0),
        (u32::MAX, 300, 300, 0),
    ] {
        let soa = [soa("example.", soa_ttl, minimum)];
        let first = upstream(RecordType::AAAA, ResponseCode::NoError, &[], &soa);
        let second =
            upstream(RecordType::A, ResponseCode::NoError, &[a("x.example.", a_ttl, "198.41.0.4")], &[]);
        assert_eq!(addresses(&aaaa_of(&settings(), &first, &second).1)[0].1, ttl, "{a_ttl} {soa_ttl}");
    }
    // Without SOA, or with one of another zone.
    for soas in [vec![], vec![soa("other.", 5, 5)]] {
        let first = upstream(RecordType::AAAA, ResponseCode::NoError, &[], &soas);
        assert_eq!(addresses(&aaaa_of(&settings(), &first, &good_a()).1)[0].1, 600);
    }
}

#[test]
fn k13_every_a_under_every_prefix_in_order() {
    let second_prefix: Pref64 = "2001:db8:122::/48".parse().unwrap();
    let mut settings = settings();
    settings.policy.prefixes.push(second_prefix);
    let answers = [a("x.example.", 9, "198.41.0.4"), a("x.example.", 9, "199.9.14.201")];
    let second = upstream(RecordType::A, ResponseCode::NoError, &answers, &[]);
    let (_, message) = aaaa_of(&settings, &nodata(), &second);
    let got: Vec<_> = addresses(&message).into_iter().map(|(addr, _)| addr).collect();
    let v4: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 41, 0, 4), Ipv4Addr::new(199, 9, 14, 201)];
    let expected: Vec<_> =
        v4.iter().flat_map(|v4| settings.policy.prefixes.iter().map(|p| p.embed(*v4))).collect();
    assert_eq!(got, expected);
}

#[test]
fn a11_r27_special_purpose_addresses() {
    for addr in ["10.1.2.3", "127.0.0.1", "224.0.0.1", "192.168.1.1", "192.0.0.170"] {
        let second = upstream(RecordType::A, ResponseCode::NoError, &[a("x.example.", 9, addr)], &[]);
        let allow = vec!["0.0.0.0/0".parse().unwrap()];
        let with = |prefixes: &[Pref64], allow: &[_]| {
            let (prefixes, allow) = (prefixes.to_vec(), allow.to_vec());
            with_policy(|policy| (policy.prefixes, policy.allow) = (prefixes, allow))
        };
        let own = OWN.parse().unwrap();
        for (settings, outcome) in [
            (with(&[Pref64::well_known()], &allow), Outcome::SpecialPurpose),
            (with(&[], &allow), Outcome::SpecialPurpose),
            (settings(), Outcome::SpecialPurpose),
            (with(&[own], &allow), Outcome::Synthesised),
        ] {
            let (got, message) = aaaa_of(&settings, &nodata(), &second);
            assert_eq!(got, outcome, "{addr} {settings:?}");
            assert_eq!(message.metadata.response_code, ResponseCode::NoError);
            assert_eq!(addresses(&message).is_empty(), outcome == Outcome::SpecialPurpose);
        }
    }
}

#[test]
fn a11_r27_the_good_ones_among_special_purpose_addresses_stay() {
    let answers = [a("x.example.", 9, "10.0.0.1"), a("x.example.", 9, "198.41.0.4")];
    let second = upstream(RecordType::A, ResponseCode::NoError, &answers, &[]);
    let (outcome, message) = aaaa_of(&settings(), &nodata(), &second);
    assert_eq!(outcome, Outcome::Synthesised);
    assert_eq!(addresses(&message), [(synthetic("198.41.0.4"), 9)]);
}

#[test]
fn refusal_without_an_honest_aaaa_answer_is_no_referral() {
    let ns = record("example.", 9, RData::NS(hickory_proto::rr::rdata::NS(name("ns.example."))));
    let second = upstream(RecordType::A, ResponseCode::NoError, &[a("x.example.", 9, "10.0.0.1")], &[ns]);
    let (outcome, message) = aaaa_of(&settings(), &Answer::Failed, &second);
    assert_eq!(outcome, Outcome::SpecialPurpose);
    assert!(message.answers.is_empty() && message.authorities.is_empty());
}

#[test]
fn k16_k18_other_sections_come_from_the_a_answer() {
    let glue = a("ns.example.", 9, "198.41.0.4");
    let ns = record("example.", 9, RData::NS(hickory_proto::rr::rdata::NS(name("ns.example."))));
    let second = upstream_for("x.example.", RecordType::A, |message| {
        message.answers = vec![a("x.example.", 9, "198.41.0.4")];
        message.authorities = vec![ns.clone()];
        message.additionals = vec![glue.clone()];
    });
    let (_, message) = aaaa_of(&settings(), &nodata(), &second);
    assert_eq!((message.authorities, message.additionals), (vec![ns], vec![glue]));
}

#[test]
fn k17_k34_other_questions_are_untouched() {
    let https = record("x.example.", 300, RData::HTTPS(HTTPS(SVCB::new(1, name("."), vec![]))));
    let unknown = RData::Unknown { code: RecordType::Unknown(65_400), rdata: NULL::with(vec![1, 2, 3]) };
    for record in [
        a("x.example.", 300, "10.0.0.1"),
        https,
        record("x.example.", 300, RData::MX(MX::new(1, name("mail.example.")))),
        record("x.example.", 300, RData::TXT(TXT::new(vec!["t".into()]))),
        record("x.example.", 300, unknown),
    ] {
        let rtype = record.record_type();
        let answer =
            upstream(rtype, ResponseCode::NoError, std::slice::from_ref(&record), &[soa("example.", 1, 1)]);
        let (outcome, message) =
            decide(&settings(), &query("x.example.", rtype, |_| {}), &answer, &Answer::Failed);
        assert_eq!((outcome, &message.answers[0]), (Outcome::Forwarded, &record));
        let Answer::Reply(bytes) = &answer else { panic!() };
        let (start, end) = (12 + 11 + 4, bytes.len() - 11);
        let Step::Ask(ask) = begin(&settings(), &query("x.example.", rtype, |_| {}), &CLIENT) else {
            panic!()
        };
        assert!(ask.second().is_none());
        let reply = finish(&settings(), &ask, &answer, &Answer::Failed);
        assert_eq!(reply.bytes[start..], bytes[start..end], "{rtype}");
    }
}

#[test]
fn only_class_in_is_synthesised() {
    let bytes = query("x.example.", RecordType::AAAA, |m| m.queries[0].query_class = DNSClass::CH);
    let Step::Ask(ask) = begin(&settings(), &bytes, &CLIENT) else { panic!() };
    assert!(ask.second().is_none());
    assert_eq!(ask.first().class, DNSClass::CH);
}

#[test]
fn k24_cd_means_no_synthesis_and_do_alone_changes_nothing() {
    for tweak in [with_do, |m: &mut Message| with_opt(m)] {
        let cd = query("x.example.", RecordType::AAAA, |m| {
            tweak(m);
            m.metadata.checking_disabled = true;
        });
        let Step::Ask(ask) = begin(&settings(), &cd, &CLIENT) else { panic!() };
        assert!(ask.second().is_none() && ask.first().checking_disabled);
        let (outcome, message) = decide(&settings(), &cd, &nodata(), &good_a());
        assert_eq!(outcome, Outcome::Forwarded);
        assert!(message.answers.is_empty() && message.metadata.checking_disabled);
    }
    let bytes = query("x.example.", RecordType::AAAA, with_do);
    let Step::Ask(ask) = begin(&settings(), &bytes, &CLIENT) else { panic!() };
    assert!(ask.first().dnssec_ok && ask.second().unwrap().dnssec_ok);
    let (outcome, message) = decide(&settings(), &bytes, &nodata(), &good_a());
    assert_eq!(outcome, Outcome::Synthesised);
    assert!(message.edns.unwrap().flags().dnssec_ok);
}

#[test]
fn ad_only_from_a_trusted_upstream_and_never_on_synthetic_records() {
    let ad = |rtype, records: &[Record]| {
        upstream_for("x.example.", rtype, |message| {
            message.metadata.authentic_data = true;
            message.answers = records.to_vec();
        })
    };
    let real = ad(RecordType::AAAA, &[aaaa("x.example.", "2001:db8::1")]);
    let trusting = Settings { trust_ad: true, ..settings() };
    let ask = query("x.example.", RecordType::AAAA, with_do);
    assert!(!decide(&settings(), &ask, &real, &good_a()).1.metadata.authentic_data);
    assert!(decide(&trusting, &ask, &real, &good_a()).1.metadata.authentic_data);
    let plain = query("x.example.", RecordType::AAAA, |_| {});
    assert!(!decide(&trusting, &plain, &real, &good_a()).1.metadata.authentic_data);
    let (none, four) = (ad(RecordType::AAAA, &[]), ad(RecordType::A, &[a("x.example.", 9, "198.41.0.4")]));
    assert!(!decide(&trusting, &ask, &none, &four).1.metadata.authentic_data);
}
