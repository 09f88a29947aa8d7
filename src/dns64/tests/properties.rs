//! What must hold for any input.

use proptest::prelude::*;

use super::*;

fn any_owner() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("x.example."), 2 => Just("y.example."), 1 => Just("z.other.")]
}

fn any_record() -> impl Strategy<Value = Record> {
    let ttl = prop_oneof![0u32..5000, any::<u32>()];
    let data = prop_oneof![
        4 => any::<u32>().prop_map(|bits| RData::A(A(Ipv4Addr::from_bits(bits)))),
        2 => (0u8..4, any::<u8>()).prop_map(|(a, b)| RData::A(A(Ipv4Addr::new([10, 127, 192, 198][a as usize], b, 2, 1)))),
        2 => any::<u128>().prop_map(|bits| RData::AAAA(AAAA(Ipv6Addr::from_bits(bits)))),
        1 => any::<u32>().prop_map(|b| RData::AAAA(AAAA(Ipv6Addr::from_bits(0xffff_0000_0000 | u128::from(b))))),
        3 => any_owner().prop_map(|target| RData::CNAME(CNAME(name(target)))),
        1 => Just(RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(vec![0; 20]) }),
    ];
    (any_owner(), ttl, data).prop_map(|(owner, ttl, data)| record(owner, ttl, data))
}

fn any_answer(rtype: RecordType) -> impl Strategy<Value = Answer> {
    let rcode = prop_oneof![6 => Just(0u8), 1 => 0u8..16];
    let message = (
        rcode,
        proptest::collection::vec(any_record(), 0..8),
        proptest::collection::vec((0u32..1000, 0u32..1000), 0..2),
        any::<bool>(),
    );
    let message = message.prop_map(move |(rcode, answers, soas, ad)| {
        upstream_for("x.example.", rtype, |m| {
            m.metadata.response_code = ResponseCode::from(0, rcode);
            m.metadata.authentic_data = ad;
            m.answers = answers;
            m.authorities = soas.into_iter().map(|(ttl, minimum)| soa("example.", ttl, minimum)).collect();
        })
    });
    prop_oneof![
        20 => message,
        1 => Just(Answer::Failed),
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Answer::Reply),
    ]
}

/// One byte of a good answer changed.
fn mutated(answer: &Answer, at: usize, value: u8) -> Answer {
    let Answer::Reply(bytes) = answer else { return answer.clone() };
    let mut bytes = bytes.clone();
    let at = at % bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
    Answer::Reply(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any pair of answers gives a reply, and of the records we make: no A in it, none excluded, TTL within both
    /// bounds, nothing non-global under the well-known prefix.
    #[test]
    fn any_answers_give_a_sound_reply(
        first in any_answer(RecordType::AAAA),
        second in any_answer(RecordType::A),
        mutation in proptest::option::of((any::<usize>(), any::<u8>())),
        opt: bool,
        own: bool,
        tcp: bool,
    ) {
        let damaged = mutation.is_some();
        let (first, second) = match mutation {
            Some((at, value)) => (mutated(&first, at, value), mutated(&second, at, value)),
            None => (first, second),
        };
        let policy = Policy {
            prefixes: if own { vec![Pref64::well_known(), OWN.parse().unwrap()] } else { vec![] },
            allow: vec!["0.0.0.0/0".parse().unwrap()],
            ..Policy::default()
        };
        let settings = Settings { policy, trust_ad: true, ..Settings::default() };
        let bytes = query("x.example.", RecordType::AAAA, |m| if opt { with_do(m) });
        let meta = Meta { transport: if tcp { Transport::Tcp } else { Transport::Udp }, ..CLIENT };
        let Step::Ask(ask) = begin(&settings, &bytes, &meta) else { panic!() };
        let reply = finish(&settings, &ask, &first, &second);
        let limit = if tcp { 65_535 } else if opt { 1232 } else { 512 };
        prop_assert!(reply.bytes.len() <= limit);
        let Ok(message) = Message::from_vec(&reply.bytes) else {
            // Damaged record data is handed on byte for byte, but never made by us.
            prop_assert!(damaged && reply.outcome != Outcome::Synthesised);
            return Ok(());
        };
        prop_assert_eq!(message.metadata.id, 0x1234);
        prop_assert_eq!(message.edns.is_some(), opt);
        for (addr, _) in addresses(&message) {
            prop_assert!(!settings.policy.is_excluded(addr), "{}", addr);
        }
        if reply.outcome == Outcome::Synthesised {
            prop_assert!(!message.metadata.authentic_data);
            let Answer::Reply(a) = &second else { panic!() };
            let a = Message::from_vec(a).unwrap();
            let cap = match &first {
                Answer::Reply(bytes) => wire::Wire::read(bytes).and(Message::from_vec(bytes).ok()),
                Answer::Failed => None,
            }
            .filter(|m| m.metadata.response_code == ResponseCode::NoError)
            .filter(|m| m.metadata.message_type == MessageType::Response)
            .filter(|m| m.queries == [Dns::query(name("x.example."), RecordType::AAAA)])
            .and_then(|m| {
                let asked = name("x.example.");
                let end = synth::chain_end(&m.answers, &asked);
                let soas: Vec<_> = m.authorities.iter().filter(|r| r.name.zone_of(end)).cloned().collect();
                synth::negative_ttl(&soas)
            })
            .unwrap_or(600);
            for (addr, ttl) in addresses(&message) {
                let (prefix, v4) = settings.policy.reverse(addr).unwrap();
                prop_assert!(!(prefix.is_well_known() && crate::addr::is_non_global(v4)), "{}", addr);
                let max = a.answers.iter().filter(|r| r.data == RData::A(A(v4))).map(|r| r.ttl).max();
                prop_assert!(ttl <= max.unwrap());
                prop_assert!(ttl <= cap);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_query_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), tcp: bool) {
        let meta = Meta { transport: if tcp { Transport::Tcp } else { Transport::Udp }, ..CLIENT };
        match begin(&settings(), &bytes, &meta) {
            Step::Ignore => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
            Step::Reply(reply) => {
                prop_assert_eq!(&reply.bytes[..2], &bytes[..2]);
                prop_assert!(reply.bytes[2] & 0x80 != 0);
            }
            Step::Ask(ask) => {
                let reply = finish(&settings(), &ask, &Answer::Failed, &Answer::Failed);
                prop_assert_eq!(reply.outcome, Outcome::ServFail);
            }
        }
    }

    #[test]
    fn any_byte_of_a_query_may_be_wrong(at in any::<usize>(), value: u8) {
        let mut bytes = query("x.example.", RecordType::AAAA, with_do);
        let at = at % bytes.len();
        bytes[at] = value;
        if let Step::Ask(ask) = begin(&settings(), &bytes, &CLIENT) {
            finish(&settings(), &ask, &nodata(), &good_a());
        }
    }
}
