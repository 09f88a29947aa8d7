//! The time side of a question: what is asked at once, how long each answer is waited for, and when the reply is
//! ready. A step machine; the caller has the clock and the sockets.

use std::time::Duration;

use super::{Answer, Ask, Pending, Progress, Question, Reply, Settings};
use crate::time::Instant;

/// How long is waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The longest that a client waits for its reply.
    pub deadline: Duration,
    /// How long a silent AAAA may hold back a usable A answer, from the question on.
    pub aaaa_budget: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        // Stub resolvers wait five seconds.
        Self { deadline: Duration::from_millis(4_500), aaaa_budget: Duration::from_millis(1_500) }
    }
}

/// A question that is being asked.
#[derive(Clone, Debug)]
pub struct Exchange {
    ask: Ask,
    questions: Vec<Question>,
    budget_ends: Instant,
    deadline: Instant,
    second: Option<Answer>,
    pending: Option<Pending>,
    /// The budget is over, and the A answer was no reason to give up.
    patient: bool,
    gave_up: bool,
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Wait for an answer, but not beyond this instant: then [`Exchange::tick`].
    Wait(Instant),
    /// Send this; answers that come later do not matter.
    Done(Reply),
}

impl Ask {
    /// Begins to ask.
    pub fn start(self, pace: Pace, now: Instant) -> Exchange {
        let questions = [Some(self.first()), self.second()].into_iter().flatten().collect();
        Exchange {
            ask: self,
            questions,
            budget_ends: now + pace.aaaa_budget.min(pace.deadline),
            deadline: now + pace.deadline,
            second: None,
            pending: None,
            patient: false,
            gave_up: false,
        }
    }
}

impl Exchange {
    /// What to ask, all at once (RFC 6147 §5.1.8); the index is the slot of the answer.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The instant of the next [`Exchange::tick`].
    pub fn wake(&self) -> Instant {
        // Once the A answer is there it is the AAAA answer that is late.
        if self.second.is_some() && !self.patient { self.budget_ends } else { self.deadline }
    }

    /// Whether a silent AAAA was given up for a usable A answer.
    pub const fn gave_up_on_aaaa(&self) -> bool {
        self.gave_up
    }

    /// An answer has come, or it is certain that none will.
    pub fn answered(&mut self, settings: &Settings, slot: usize, answer: Answer, now: Instant) -> Next {
        match (slot, self.pending.take()) {
            (0, None) => self.first(settings, &answer),
            (0, pending) => {
                self.pending = pending;
                Next::Wait(self.wake())
            }
            (_, Some(pending)) => Next::Done(pending.finish(settings, &self.ask, &answer)),
            (_, None) => {
                self.second.get_or_insert(answer);
                self.tick(settings, now)
            }
        }
    }

    /// The time that was asked for has come.
    pub fn tick(&mut self, settings: &Settings, now: Instant) -> Next {
        if now >= self.deadline {
            return Next::Done(self.late(settings));
        }
        if now < self.budget_ends || self.pending.is_some() {
            return Next::Wait(self.wake());
        }
        // RFC 6147 §5.1.3 leaves the timeout to us. Only a usable A answer ends the wait early: an empty one would
        // turn a slow AAAA into "no such data".
        match self.second.take() {
            Some(a) if self.ask.is_usable(settings, &a) => {
                self.gave_up = true;
                Next::Done(super::finish(settings, &self.ask, &Answer::Failed, &a))
            }
            kept => {
                self.patient = kept.is_some();
                self.second = kept;
                Next::Wait(self.deadline)
            }
        }
    }

    fn first(&mut self, settings: &Settings, first: &Answer) -> Next {
        match self.ask.settle(settings, first) {
            Progress::Done(reply) => Next::Done(reply),
            Progress::NeedsSecond(pending) => match self.second.take() {
                Some(second) => Next::Done(pending.finish(settings, &self.ask, &second)),
                None => {
                    self.pending = Some(pending);
                    Next::Wait(self.deadline)
                }
            },
        }
    }

    /// Silence counts as an error from here on (RFC 6147 §5.1.3).
    fn late(&mut self, settings: &Settings) -> Reply {
        let second = self.second.take().unwrap_or(Answer::Failed);
        match self.pending.take() {
            Some(pending) => pending.finish(settings, &self.ask, &second),
            None => super::finish(settings, &self.ask, &Answer::Failed, &second),
        }
    }
}
