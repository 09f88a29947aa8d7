//! The campaign `flood` in small: one unit opens sessions without end, the other loses nothing.

use std::thread;
use std::time::{Duration, Instant};

use crate::flood_ground::{A_PORTS, A_SESSIONS, FLOWS, Ground};

/// Packets a second that every machine carries.
const RATE: f64 = 3_000.0;

#[test]
fn a_unit_that_floods_keeps_its_share_and_takes_nothing_from_another() {
    let ground = Ground::new();
    ground.page().unwrap();
    let before = ground.books();
    let began = Instant::now();
    let (worked, sent, page) = thread::scope(|scope| {
        let work = scope.spawn(|| ground.work(2, 4.0));
        let flood = scope.spawn(|| ground.flood(RATE, 3.0, 1));
        thread::sleep(Duration::from_millis(1_500));
        let page = ground.page();
        (work.join().unwrap(), flood.join().unwrap(), page)
    });
    let came = ground.books().since(&before);
    let sample = ground.sample(began);
    let recovery = ground.recovery("client2", Duration::from_secs(5));

    page.expect("B's page loads while A floods");
    for kind in ["udp", "tcp"] {
        let (sent, answered) = (&worked[kind]["sent"], &worked[kind]["answered"]);
        assert!(sent.as_u64().unwrap() >= u64::from(FLOWS) * 4, "{worked}");
        assert_eq!(sent, answered, "B lost something over {kind}: {worked}; {came:?}");
    }
    assert_eq!(worked["broken"], 0);
    assert_eq!((came.overflowed(), came.not_by_quota().len()), (0, 0), "{came:?}");
    assert!(recovery.is_some(), "a new host of B is not served");
    // A got its share, and was refused beyond it.
    assert!(sent["sent"].as_u64().unwrap() > 3_000, "{sent}");
    assert!((1..=A_SESSIONS).contains(&sample.sessions), "{sample:?}");
    assert!((1..=A_PORTS).contains(&sample.ports), "{sample:?}");
    assert!(came.by_quota() > 0, "{came:?}");
}
