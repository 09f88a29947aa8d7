//! A gateway in all kinds of traffic: what flawless packets become is flawless, faults are counted and harm nobody,
//! and both accounting sums close (`support::gateway` checks them after every batch).

use std::time::Duration;

use proptest::prelude::*;

use crate::support::traffic::{Traffic, judge, judge_headers};

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn flawless_packets_become_flawless_packets(seed: u64, workers in 1u16..4) {
        let mut traffic = Traffic::new(seed);
        let mut gateway = traffic.gateway(workers);
        for batch in 0..20 {
            for i in 0..20 {
                let (bytes, offload) = traffic.clean(&gateway);
                gateway.feed(i % workers, bytes, offload);
            }
            let out = gateway.run();
            judge(&out).map_err(TestCaseError::fail)?;
            traffic.learn(&out);
            if batch % 5 == 4 {
                gateway.advance_telling(Duration::from_secs(traffic.rng().below(200) as u64));
            }
        }
        prop_assert!(gateway.totals().translated > 100, "{:?}", gateway.totals());
        gateway.advance_telling(Duration::from_secs(8000));
        prop_assert!(gateway.is_empty());
    }

    #[test]
    fn mutated_packets_are_counted_and_harm_nobody(seed: u64, workers in 1u16..4) {
        let mut traffic = Traffic::new(seed);
        let mut gateway = traffic.gateway(workers);
        for _ in 0..10 {
            for mutated in [false, true] {
                for i in 0..20 {
                    let (bytes, offload) =
                        if mutated { traffic.mutated(&gateway) } else { traffic.clean(&gateway) };
                    gateway.feed(i % workers, bytes, offload);
                }
                let out = gateway.run();
                if mutated {
                    judge_headers(&out).map_err(TestCaseError::fail)?;
                } else {
                    judge(&out).map_err(TestCaseError::fail)?;
                    traffic.learn(&out);
                }
            }
        }
        prop_assert!(gateway.totals().dropped() > 10);
        gateway.advance_telling(Duration::from_secs(8000));
        prop_assert!(gateway.is_empty());
    }
}
