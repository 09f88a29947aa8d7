//! EDNS, size limits, local names, reverse names, bad queries.

use super::*;

#[test]
fn k40_opt_only_when_asked_and_synthesised_says_so() {
    let (_, message) = aaaa_of(&settings(), &nodata(), &good_a());
    assert!(message.edns.is_none());
    let ask = query("x.example.", RecordType::AAAA, with_opt);
    let (_, message) = decide(&settings(), &ask, &nodata(), &good_a());
    assert_eq!(ede(&message), [29]);
    let edns = message.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1232, 0, false));
    assert!(edns.option(EdnsCode::Cookie).is_none());
    let real = upstream(RecordType::AAAA, ResponseCode::NoError, &[aaaa("x.example.", "2001:db8::1")], &[]);
    assert!(ede(&decide(&settings(), &ask, &real, &good_a()).1).is_empty());
}

#[test]
fn k40_edns_versions_above_zero_are_refused() {
    let ask = query("x.example.", RecordType::AAAA, |message| {
        with_opt(message);
        message.edns.as_mut().unwrap().set_version(1);
    });
    let (outcome, message) = decide(&settings(), &ask, &nodata(), &good_a());
    assert_eq!((outcome, u16::from(message.metadata.response_code)), (Outcome::BadVers, 16));
    assert_eq!(message.edns.unwrap().version(), 0);
}

#[test]
fn k19_truncation() {
    let many: Vec<_> = (0..60).map(|i| a("x.example.", 9, &format!("198.41.0.{i}"))).collect();
    let second = upstream(RecordType::A, ResponseCode::NoError, &many, &[]);
    for (tweak, limit) in [(None, 512), (Some(with_opt as fn(&mut Message)), 1232)] {
        let bytes = query("x.example.", RecordType::AAAA, |m| tweak.into_iter().for_each(|t| t(m)));
        let Step::Ask(ask) = begin(&settings(), &bytes, &CLIENT) else { panic!() };
        let reply = finish(&settings(), &ask, &nodata(), &second);
        assert!(reply.bytes.len() <= limit && reply.is_truncated());
        let meta = Meta { transport: Transport::Tcp, ..CLIENT };
        let Step::Ask(ask) = begin(&settings(), &bytes, &meta) else { panic!() };
        let reply = finish(&settings(), &ask, &nodata(), &second);
        assert!(!reply.is_truncated());
        assert_eq!(addresses(&Message::from_vec(&reply.bytes).unwrap()).len(), 60);
    }
}

#[test]
fn more_records_than_a_message_holds() {
    let many: Vec<_> =
        (0..3000u32).map(|i| a("x.example.", 9, &format!("198.41.{}.{}", i >> 8, i & 255))).collect();
    let second = upstream(RecordType::A, ResponseCode::NoError, &many, &[]);
    let bytes = query("x.example.", RecordType::AAAA, with_opt);
    let meta = Meta { transport: Transport::Tcp, ..CLIENT };
    let Step::Ask(ask) = begin(&settings(), &bytes, &meta) else { panic!() };
    let reply = finish(&settings(), &ask, &nodata(), &second);
    assert!(reply.is_truncated() && reply.bytes.len() <= 65_535);
    let message = Message::from_vec(&reply.bytes).unwrap();
    assert!(message.edns.is_some());
    assert!(addresses(&message).len() > 1500, "{}", addresses(&message).len());
}

#[test]
fn extras_are_dropped_before_truncating() {
    let padding: Vec<_> = (0..40).map(|i| a(&format!("ns{i}.example."), 9, "198.41.0.4")).collect();
    let second = upstream_for("x.example.", RecordType::A, |message| {
        message.answers = vec![a("x.example.", 9, "198.41.0.4")];
        message.additionals = padding;
    });
    let (outcome, message) = aaaa_of(&settings(), &nodata(), &second);
    assert_eq!((outcome, message.metadata.truncation), (Outcome::Synthesised, false));
    assert_eq!((addresses(&message).len(), message.additionals.len()), (1, 0));
}

#[test]
fn an_opt_record_in_the_middle_is_taken_out() {
    // OPT first, then an A record in the additional section.
    let mut bytes = b"\0\x07\x81\x80\0\x01\0\0\0\0\0\x02\x01x\x07example\0\0\x10\0\x01".to_vec();
    bytes.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    bytes.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc6\x29\0\x04");
    let ask = query("x.example.", RecordType::TXT, |_| {});
    let (outcome, message) = decide(&settings(), &ask, &Answer::Reply(bytes), &Answer::Failed);
    assert_eq!(outcome, Outcome::Forwarded);
    assert!(message.edns.is_none());
    assert_eq!(message.additionals, [a("x.example.", 9, "198.41.0.4")]);
}

#[test]
fn k25_k26_k27_ipv4only_arpa_is_local() {
    let both = vec![Pref64::well_known(), "2001:db8:122::/48".parse().unwrap()];
    let two = with_policy(|policy| policy.prefixes = both);
    let local =
        |owner: &str, rtype| decide(&two, &query(owner, rtype, |_| {}), &Answer::Failed, &Answer::Failed);
    let (outcome, message) = local("IPv4only.ARPA.", RecordType::AAAA);
    assert_eq!(outcome, Outcome::Local);
    assert!(message.metadata.authoritative && !message.metadata.authentic_data);
    let got: Vec<_> = addresses(&message).into_iter().map(|(addr, _)| addr).collect();
    let expected: Vec<_> = two
        .policy
        .prefixes
        .iter()
        .flat_map(|p| [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)].map(|v4| p.embed(v4)))
        .collect();
    assert_eq!(got, expected);

    let (_, message) = local("ipv4only.arpa.", RecordType::A);
    assert_eq!(message.answers.len(), 2);
    for rtype in [RecordType::NS, RecordType::SOA, RecordType::TXT, RecordType::HTTPS, RecordType::ANY] {
        let (outcome, message) = local("ipv4only.arpa.", rtype);
        assert_eq!((outcome, message.metadata.response_code), (Outcome::Local, ResponseCode::NoError));
        assert!(message.answers.is_empty() && message.authorities.len() == 1, "{rtype}");
    }
    for rtype in [RecordType::AAAA, RecordType::A, RecordType::DS] {
        let (_, message) = local("x.ipv4only.arpa.", rtype);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(message.authorities[0].name, name("ipv4only.arpa."));
    }
    assert!(matches!(begin(&two, &query("ipv4only.arpa.", RecordType::DS, |_| {}), &CLIENT), Step::Ask(_)));
    // With CD too: the delegation is insecure by design (K-28).
    let cd = query("ipv4only.arpa.", RecordType::AAAA, |m| m.metadata.checking_disabled = true);
    assert_eq!(addresses(&decide(&two, &cd, &Answer::Failed, &Answer::Failed).1).len(), 4);
}

#[test]
fn k29_k30_reverse_of_ipv4only_arpa() {
    for prefix in [OWN.parse().unwrap(), Pref64::well_known()] {
        for v4 in [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)] {
            let owner = Name::from(prefix.embed(v4)).to_ascii();
            let bytes = query(&owner, RecordType::PTR, |_| {});
            let (outcome, message) = decide(&settings(), &bytes, &Answer::Failed, &Answer::Failed);
            assert_eq!(outcome, Outcome::Local);
            assert_eq!(message.answers[0].data, RData::PTR(PTR(name("ipv4only.arpa."))));
        }
    }
    let bytes = query("170.0.0.192.in-addr.arpa.", RecordType::PTR, |_| {});
    assert!(matches!(begin(&settings(), &bytes, &CLIENT), Step::Ask(_)));
}

/// A PTR question for `v4` under the prefix, with this upstream answer.
fn ptr_of(rcode: ResponseCode, answers: &[Record], authorities: &[Record]) -> (Outcome, Message) {
    let owner = Name::from(synthetic("198.41.0.4")).to_ascii();
    let bytes = query(&owner, RecordType::PTR, |_| {});
    let Step::Ask(ask) = begin(&settings(), &bytes, &CLIENT) else { panic!() };
    assert_eq!(ask.first().name, name("4.0.41.198.in-addr.arpa."));
    let answer = upstream_for("4.0.41.198.in-addr.arpa.", RecordType::PTR, |message| {
        message.metadata.response_code = rcode;
        message.answers = answers.to_vec();
        message.authorities = authorities.to_vec();
    });
    decide(&settings(), &bytes, &answer, &Answer::Failed)
}

#[test]
fn k20_ptr_is_a_cname_and_its_target() {
    let target = record("4.0.41.198.in-addr.arpa.", 77, RData::PTR(PTR(name("a.root."))));
    let (outcome, message) = ptr_of(ResponseCode::NoError, std::slice::from_ref(&target), &[]);
    assert_eq!(outcome, Outcome::Reverse);
    assert_eq!(message.answers[0].data, RData::CNAME(CNAME(name("4.0.41.198.in-addr.arpa."))));
    assert_eq!(message.answers[0].name, Name::from(synthetic("198.41.0.4")));
    assert_eq!(message.answers[0].ttl, 77);
    assert_eq!(message.answers[1], target);
}

#[test]
fn k21_no_dangling_cname_and_no_second_one() {
    let zone_soa = soa("41.198.in-addr.arpa.", 90, 40);
    for rcode in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let (outcome, message) = ptr_of(rcode, &[], std::slice::from_ref(&zone_soa));
        assert_eq!((outcome, message.metadata.response_code), (Outcome::Reverse, rcode));
        assert!(message.answers.is_empty());
        assert!(message.authorities[0].name.zone_of(&Name::from(synthetic("198.41.0.4"))));
        assert_eq!(message.authorities[0].ttl, 40);
    }
    let rfc2317 = [
        cname("4.0.41.198.in-addr.arpa.", "4.0-7.0.41.198.in-addr.arpa."),
        record("4.0-7.0.41.198.in-addr.arpa.", 77, RData::PTR(PTR(name("a.root.")))),
    ];
    let (_, message) = ptr_of(ResponseCode::NoError, &rfc2317, &[]);
    assert_eq!(message.answers.len(), 1);
    assert_eq!(message.answers[0].name, Name::from(synthetic("198.41.0.4")));
    assert_eq!(message.answers[0].data, RData::PTR(PTR(name("a.root."))));
    let (outcome, message) = ptr_of(ResponseCode::Refused, &[], &[]);
    assert_eq!((outcome, message.metadata.response_code), (Outcome::ServFail, ResponseCode::Refused));
}

#[test]
fn k23_ptr_outside_is_forwarded() {
    let owner = Name::from("2001:db8::1".parse::<Ipv6Addr>().unwrap()).to_ascii();
    let Step::Ask(ask) = begin(&settings(), &query(&owner, RecordType::PTR, |_| {}), &CLIENT) else {
        panic!()
    };
    assert_eq!(ask.first().name, name(&owner));
}

#[test]
fn r29_malformed_and_unwanted_queries() {
    let reply = |bytes: &[u8]| match begin(&settings(), bytes, &CLIENT) {
        Step::Reply(reply) => {
            (reply.outcome, Message::from_vec(&reply.bytes).unwrap().metadata.response_code)
        }
        step @ (Step::Ask(_) | Step::Ignore) => panic!("{step:?}"),
    };
    let good = query("x.example.", RecordType::AAAA, with_opt);
    assert!(matches!(begin(&settings(), &good[..11], &CLIENT), Step::Ignore));
    let mut response = good.clone();
    response[2] |= 0x80;
    assert!(matches!(begin(&settings(), &response, &CLIENT), Step::Ignore));
    for len in 12..good.len() {
        assert_eq!(reply(&good[..len]), (Outcome::FormErr, ResponseCode::FormErr), "{len}");
    }
    let mut twice = good.clone();
    twice[11] = 2;
    twice.extend_from_slice(&good[good.len() - 11..]);
    assert_eq!(reply(&twice), (Outcome::FormErr, ResponseCode::FormErr));
    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let bytes = query("x.example.", RecordType::SOA, |m| m.metadata.op_code = opcode);
        assert_eq!(reply(&bytes), (Outcome::NotImp, ResponseCode::NotImp));
    }
    for rtype in [RecordType::AXFR, RecordType::IXFR, RecordType::Unknown(249), RecordType::TSIG] {
        let bytes = query("x.example.", rtype, |_| {});
        assert_eq!(reply(&bytes), (Outcome::RefusedType, ResponseCode::Refused), "{rtype}");
    }
    let two = query("x.example.", RecordType::A, |m| m.queries.push(m.queries[0].clone()));
    assert_eq!(reply(&two), (Outcome::FormErr, ResponseCode::FormErr));
    let none = query("x.example.", RecordType::A, |m| m.queries.clear());
    assert_eq!(reply(&none), (Outcome::FormErr, ResponseCode::FormErr));
}

#[test]
fn o20_r31_strangers_are_refused_before_anything_else() {
    let stranger = Meta { client: "2001:db8::1".parse().unwrap(), ..CLIENT };
    for bytes in [query("x.example.", RecordType::AAAA, with_opt), vec![0; 12], vec![0; 40]] {
        let Step::Reply(reply) = begin(&settings(), &bytes, &stranger) else { panic!() };
        assert_eq!(reply.outcome, Outcome::NotAllowed);
        let message = Message::from_vec(&reply.bytes).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::Refused);
        // Their address may be forged: what they get is no longer than what they sent.
        assert!(reply.bytes.len() <= bytes.len(), "{}", reply.bytes.len());
    }
}

#[test]
fn k46_r31_any_over_udp_comes_back_over_tcp() {
    let bytes = query("x.example.", RecordType::ANY, |_| {});
    let Step::Reply(reply) = begin(&settings(), &bytes, &CLIENT) else { panic!() };
    assert_eq!(reply.outcome, Outcome::AnyToTcp);
    assert!(reply.is_truncated() && reply.bytes.len() <= bytes.len());
    let tcp = Meta { transport: Transport::Tcp, ..CLIENT };
    let Step::Ask(ask) = begin(&settings(), &bytes, &tcp) else { panic!() };
    assert!(ask.second().is_none());
}

#[test]
fn question_and_case_are_the_clients() {
    let bytes = query("X.eXample.", RecordType::AAAA, |_| {});
    let (outcome, message) = decide(&settings(), &bytes, &nodata(), &good_a());
    assert_eq!(outcome, Outcome::Synthesised);
    assert!(message.queries[0].name.eq_case(&name("X.eXample.")));
    assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
}

#[test]
fn a_foreign_answer_is_no_answer() {
    let foreign = upstream_for("y.example.", RecordType::TXT, |_| {});
    let (outcome, message) =
        decide(&settings(), &query("x.example.", RecordType::TXT, |_| {}), &foreign, &Answer::Failed);
    assert_eq!((outcome, message.metadata.response_code), (Outcome::ServFail, ResponseCode::ServFail));
}

/// An UPDATE may have records without data; a reply to a query may not, and would be made of one.
#[test]
fn an_answer_with_another_opcode_is_no_answer() {
    let Answer::Reply(mut bytes) = good_a() else { panic!() };
    bytes[2] |= 5 << 3;
    let (outcome, message) = aaaa_of(&settings(), &nodata(), &Answer::Reply(bytes));
    assert_eq!((outcome, message.metadata.response_code), (Outcome::ServFail, ResponseCode::ServFail));
}

#[test]
fn k34_k36_parameters_of_https_records_are_byte_equal() {
    // Priority 1, target `.`, ipv4hint 192.0.2.1, and key 65333 that nobody knows.
    let rdata = b"\0\x01\0\0\x04\0\x04\xc0\0\x02\x01\xff\x35\0\x03abc";
    let mut bytes = b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\x01x\x07example\0\0\x41\0\x01".to_vec();
    bytes.extend(b"\xc0\x0c\0\x41\0\x01\0\0\0\x09\0");
    bytes.push(rdata.len() as u8);
    bytes.extend(rdata);
    let asked = query("x.example.", RecordType::HTTPS, |_| {});
    let Step::Ask(ask) = begin(&settings(), &asked, &CLIENT) else { panic!() };
    let reply = finish(&settings(), &ask, &Answer::Reply(bytes.clone()), &Answer::Failed);
    assert_eq!(reply.bytes[12..], bytes[12..]);
}
