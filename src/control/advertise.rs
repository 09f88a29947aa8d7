//! When router advertisements are sent (RFC 4861 §6.2.4, §6.2.6). Time and chance are arguments.

use std::time::Duration;

use crate::time::Instant;

/// RFC 4861 §10: the first few come faster, and so do those after a change.
const INITIAL: u8 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Between two advertisements to all nodes.
const LEAST: Duration = Duration::from_secs(3);
/// An answer waits up to this, so that neighbours do not all answer at once.
const ANSWER_DELAY: Duration = Duration::from_millis(500);

/// The times of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval: (Duration, Duration),
    next: Instant,
    last: Option<Instant>,
    initial: u8,
}

impl Schedule {
    /// Begins now; later ones come after the least to the longest interval.
    pub const fn new(now: Instant, least: Duration, longest: Duration) -> Self {
        Self { interval: (least, longest), next: now, last: None, initial: INITIAL }
    }

    /// When the next one is due.
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// Notes a solicitation: one advertisement answers all that come until it is sent.
    pub fn solicited(&mut self, now: Instant, chance: u64) {
        let delay = part(ANSWER_DELAY, chance);
        self.next = self.next.min(self.earliest(now) + delay);
    }

    /// Notes that what is advertised has changed.
    pub fn changed(&mut self, now: Instant) {
        self.initial = INITIAL;
        self.next = self.next.min(self.earliest(now));
    }

    /// Notes that one was sent.
    pub fn sent(&mut self, now: Instant, chance: u64) {
        let (least, longest) = self.interval;
        let mut pause = least + part(longest.saturating_sub(least), chance);
        self.initial = self.initial.saturating_sub(1);
        if self.initial > 0 {
            pause = pause.min(INITIAL_INTERVAL);
        }
        (self.last, self.next) = (Some(now), now + pause);
    }

    /// When the next one may be sent at the earliest.
    pub fn earliest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + LEAST))
    }
}

/// A part of `whole` by chance.
fn part(whole: Duration, chance: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(chance) * u128::from(nanos)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn l11_three_fast_ones_then_the_usual_pace() {
        let (least, longest) = (Duration::from_secs(200), Duration::from_secs(600));
        let mut schedule = Schedule::new(Instant::ZERO, least, longest);
        let mut times = Vec::new();
        for chance in [0, u64::MAX, 0, u64::MAX] {
            times.push(schedule.next().as_nanos() / 1_000_000_000);
            schedule.sent(schedule.next(), chance);
        }
        assert_eq!(times, [0, 16, 32, 232]);
        schedule.changed(Instant::from_secs(233));
        assert_eq!(schedule.next(), Instant::from_secs(235), "not within 3 s of the one before");
    }

    proptest! {
        /// RFC 4861 §6.2.6: however many ask, and whatever changes, all nodes hear no more than one in three seconds;
        /// and who asks is answered within 3.5 s.
        #[test]
        fn l11_a_flood_of_solicitations_is_answered_once_in_three_seconds(
            events in proptest::collection::vec((0u64..2_000, any::<u64>(), 0u8..8), 1..300),
        ) {
            let mut schedule = Schedule::new(Instant::ZERO, Duration::from_secs(200), Duration::from_secs(600));
            let (mut now, mut last, mut asked) = (Instant::ZERO, None::<Instant>, None::<Instant>);
            for (millis, chance, kind) in events {
                let then = now + Duration::from_millis(millis);
                while schedule.next() <= then {
                    let at = schedule.next();
                    if let Some(last) = last {
                        prop_assert!(at.since(last) >= LEAST);
                    }
                    if let Some(asked) = asked.take() {
                        prop_assert!(at.since(asked) <= LEAST + ANSWER_DELAY);
                    }
                    schedule.sent(at, chance);
                    last = Some(at);
                }
                now = then;
                if kind == 0 {
                    schedule.changed(now);
                } else {
                    schedule.solicited(now, chance);
                }
                asked = asked.or(Some(now));
            }
        }
    }
}
