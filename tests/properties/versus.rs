//! Gateway and model on random walks, small enough for every push; `tests/campaign model` goes on for millions of steps.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::walk::walk;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn f04_f06_f10_f15_f18_f19_f20_f30_gateway_and_model_agree(setup: u64, steps in vec(any::<u64>(), 1..150)) {
        if let Err(found) = walk(setup, &steps) {
            return Err(TestCaseError::fail(format!("step {}: {}", found.step, found.what)));
        }
    }
}
