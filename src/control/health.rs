//! Whether this box translates, decided from what was seen of it: one state for DNS64, router advertisements and
//! `sampan status`. Nothing here looks at anything, and time is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::texts;
use crate::time::Instant;

/// Fewest failures in a row that count, however much time lies between them: a machine that slept has missed nothing.
const FAILURES: u32 = 3;

/// How long something must last before it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Failing for so long is being down.
    pub down_after: Duration,
    /// Working for so long is being up again.
    pub up_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { down_after: Duration::from_secs(3), up_after: Duration::from_secs(2) }
    }
}

/// The state of the translator, with hysteresis. It is up until the opposite has been seen for a while: at a start
/// nothing has been seen yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    down: bool,
    /// What speaks against the present state: since when, and how often in a row.
    against: Option<(Instant, u32)>,
}

impl Machine {
    /// Takes in whether everything worked at `now`. Says when the state changes: true is up.
    pub fn observe(&mut self, now: Instant, works: bool, patience: Patience) -> Option<bool> {
        if works != self.down {
            self.against = None;
            return None;
        }
        let (since, times) = self.against.map_or((now, 1), |(since, times)| (since, times.saturating_add(1)));
        self.against = Some((since, times));
        let (lasting, enough) = if works { (patience.up_after, 1) } else { (patience.down_after, FAILURES) };
        if now.since(since) < lasting || times < enough {
            return None;
        }
        self.down = !works;
        self.against = None;
        Some(works)
    }

    /// Whether it is up.
    pub const fn is_up(&self) -> bool {
        !self.down
    }
}

/// What a DNS64 of its own (`run --only dns64`) makes of the answers of its gateway. The gateway has waited already,
/// so its word counts at once. No answer is a gateway that restarts, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Whether silence counts before the gateway has ever answered.
    expected: bool,
    up: bool,
    /// When the gateway answered last, or when we began to ask.
    heard: Instant,
}

impl Remote {
    /// Begins to ask. Where no gateway is `expected`, nobody may be there for ever.
    pub const fn new(now: Instant, expected: bool) -> Self {
        Self { expected, up: true, heard: now }
    }

    /// Takes in an answer, or that there was none. Says when the state changes.
    pub fn observe(&mut self, now: Instant, answer: Option<bool>, grace: Duration) -> Option<bool> {
        let up = match answer {
            Some(up) => {
                (self.heard, self.expected) = (now, true);
                up
            }
            None if self.expected && now.since(self.heard) >= grace => false,
            // What it said last holds while it restarts.
            None => return None,
        };
        let changed = up != self.up;
        self.up = up;
        changed.then_some(up)
    }

    /// Whether it is up.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether somebody should be there.
    pub const fn is_expected(&self) -> bool {
        self.expected
    }
}

texts! {
    /// What can be wrong with the translator.
    pub enum Ailment {
        Worker { worker: usize }
            en "worker {worker} does not answer within a second"
            vi "luồng {worker} không trả lời trong một giây";
        Translation { worker: usize, reason: String }
            en "worker {worker} does not translate its test packet: {reason}"
            vi "luồng {worker} không chuyển dịch được gói thử: {reason}";
        Device { name: String }
            en "the device {name} is not up"
            vi "thiết bị {name} không hoạt động";
        Pool6 { prefix: String }
            en "the route of {prefix} does not point at the translator"
            vi "tuyến của {prefix} không trỏ vào bộ chuyển dịch";
        Egress { to: String }
            en "there is no IPv4 route to {to}"
            vi "không có tuyến IPv4 tới {to}";
        NoEgress
            en "there is no IPv4 route out of this machine"
            vi "máy này không có tuyến IPv4 nào đi ra ngoài";
        Kernel { reason: String }
            en "the kernel does not tell its state: {reason}"
            vi "nhân không cho biết trạng thái: {reason}";
        Targets { list: String }
            en "none of the outside targets answers: {list}"
            vi "không đích bên ngoài nào trả lời: {list}";
        Stuck { worker: usize }
            en "worker {worker} does not answer"
            vi "luồng {worker} không trả lời";
        Journal
            en "the block journal cannot be written"
            vi "không ghi được nhật ký khối cổng";
        Gateway { socket: String }
            en "the gateway does not answer on {socket}"
            vi "cổng không trả lời trên {socket}";
        Forward { chain: String }
            en "the firewall chain {chain} is new, filters forwarded packets and does not see those of the fast path: restart, or set fastpath.mode = \"on\""
            vi "chuỗi tường lửa {chain} mới xuất hiện, lọc gói chuyển tiếp và không thấy gói đi đường nhanh: hãy khởi động lại, hoặc đặt fastpath.mode = \"on\"";
        Conntrack { user: String }
            en "connection tracking is in use now ({user}) and does not see the packets of the fast path: restart, or set fastpath.mode = \"on\""
            vi "theo dõi kết nối nay được dùng ({user}) và không thấy gói đi đường nhanh: hãy khởi động lại, hoặc đặt fastpath.mode = \"on\"";
        Told
            en "the gateway says that it does not translate"
            vi "cổng báo rằng nó không chuyển dịch";
    }
}

/// The state as the admin socket tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatorHealth {
    /// Whether the translator counts as working. DNS64 and router advertisements go by this.
    pub up: bool,
    /// Seconds since that changed, or since the start.
    pub since_s: u64,
    /// How often it has changed since the start.
    pub changes: u64,
    /// What was wrong at the last look, in English; it may not have lasted long enough to count.
    pub failing: Vec<String>,
    /// The same in Vietnamese.
    pub failing_vi: Vec<String>,
    /// What was wrong but does not count, in English.
    pub warnings: Vec<String>,
    /// The same in Vietnamese.
    pub warnings_vi: Vec<String>,
}

impl Default for TranslatorHealth {
    fn default() -> Self {
        Self {
            up: true,
            since_s: 0,
            changes: 0,
            failing: Vec::new(),
            failing_vi: Vec::new(),
            warnings: Vec::new(),
            warnings_vi: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(Ailment::CATALOGUE);
    }

    #[test]
    fn down_after_three_seconds_and_up_after_two() {
        let (mut machine, patience) = (Machine::default(), Patience::default());
        let mut changes = Vec::new();
        for second in 0..20 {
            let works = !(5..12).contains(&second);
            if let Some(up) = machine.observe(Instant::from_secs(second), works, patience) {
                changes.push((second, up));
            }
        }
        assert_eq!(changes, [(8, false), (14, true)]);
        assert!(machine.is_up());
    }

    #[test]
    fn what_does_not_last_changes_nothing() {
        let (mut machine, patience) = (Machine::default(), Patience::default());
        for second in 0..100 {
            assert_eq!(machine.observe(Instant::from_secs(second), second % 3 == 0, patience), None);
        }
    }

    #[test]
    fn a_machine_that_slept_is_not_down() {
        let (mut machine, patience) = (Machine::default(), Patience::default());
        assert_eq!(machine.observe(at(0), false, patience), None);
        assert_eq!(machine.observe(at(3_600_000), false, patience), None);
        assert_eq!(machine.observe(at(3_601_000), true, patience), None);
    }

    #[test]
    fn a_gateway_that_restarts_is_not_down() {
        let grace = Duration::from_secs(60);
        let mut remote = Remote::new(at(0), false);
        // Nobody was ever there.
        assert_eq!(remote.observe(Instant::from_secs(1_000), None, grace), None);
        assert_eq!(remote.observe(Instant::from_secs(1_001), Some(true), grace), None);
        assert_eq!(remote.observe(Instant::from_secs(1_060), None, grace), None);
        assert_eq!(remote.observe(Instant::from_secs(1_061), None, grace), Some(false));
        assert_eq!(remote.observe(Instant::from_secs(1_062), Some(true), grace), Some(true));
        assert_eq!(remote.observe(Instant::from_secs(1_063), Some(false), grace), Some(false));
        // What it said last holds, good or bad.
        assert_eq!(remote.observe(Instant::from_secs(1_064), None, grace), None);
        assert!(!remote.is_up());

        let mut expected = Remote::new(at(0), true);
        assert_eq!(expected.observe(Instant::from_secs(59), None, grace), None);
        assert_eq!(expected.observe(Instant::from_secs(60), None, grace), Some(false));
    }

    proptest! {
        /// The state is that of the last run of equal observations that was long enough.
        #[test]
        fn it_is_what_the_last_long_run_said(
            seen in proptest::collection::vec((any::<bool>(), 0u64..2_500), 0..200),
            down in 3u64..8, up in 0u64..8,
        ) {
            let patience =
                Patience { down_after: Duration::from_secs(down), up_after: Duration::from_secs(up) };
            let (mut machine, mut now, mut run) = (Machine::default(), 0, None::<(bool, u64, u32)>);
            let mut expected = true;
            for (works, millis) in seen {
                now += millis;
                let (_, since, times) = run.filter(|(was, _, _)| *was == works).map_or(
                    (works, now, 1), |(was, since, times)| (was, since, times + 1));
                run = Some((works, since, times));
                let lasted = now - since;
                let before = expected;
                if works && lasted >= up * 1000 {
                    expected = true;
                } else if !works && lasted >= down * 1000 && times >= FAILURES {
                    expected = false;
                }
                let told = machine.observe(at(now), works, patience);
                prop_assert_eq!(told, (before != expected).then_some(expected));
                prop_assert_eq!(machine.is_up(), expected);
            }
        }
    }
}
