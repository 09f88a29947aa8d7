//! The engines of the stateful translator with what they share: pool, ledger and journal.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fast::Fast;
use super::journal::{self, Opened, Writer};
use super::now;
use crate::io::random;
use crate::nat64::engine::{Engine, Place};
use crate::nat64::event::Stream;
use crate::nat64::journal::Held;
use crate::nat64::pool4::Pool;
use crate::nat64::quota::Ledger;
use crate::nat64::settings::Settings;
use crate::nat64::steer::Steering;

/// What must be made while the process may still write files.
pub struct Prepared {
    pool: Pool,
    journal: Opened,
}

/// Engines with their tables, and what they share.
pub struct Stateful {
    /// One for each worker.
    pub engines: Vec<Engine>,
    /// The pool.
    pub pool: Arc<Pool>,
    /// Who writes the journal.
    pub writer: Writer,
    /// What the engines have to tell.
    pub streams: Vec<Arc<Stream>>,
    /// Bytes of all tables.
    pub table_bytes: usize,
}

impl Prepared {
    /// Reads the journal at `path` against the pool of `settings`.
    pub fn open(settings: &Settings, path: &Path) -> Self {
        let pool = Pool::new(settings, None);
        let journal = journal::open(path, |block| pool.fits(block.addr, block.first, block.size));
        Self { pool, journal }
    }

    /// Makes the engines and gives subscribers the blocks that they had.
    pub fn start(mut self, settings: &Settings, workers: u16, fast: Option<&Fast>) -> io::Result<Stateful> {
        if !self.journal.is_complete {
            // RFC 6888 REQ-8: after a loss of state old ports rest too.
            self.pool.open_at(now() + settings.ports.hold_down);
        }
        let pool = Arc::new(self.pool);
        let steering = Steering::new(settings.key, settings.subscriber_len, workers);
        let ledger = Arc::new(Ledger::new(settings.limits.subscribers, workers));
        let mut engines = Vec::with_capacity(workers.into());
        let mut unclaimed: Vec<Held> = Vec::new();
        for worker in 0..workers {
            let seed = u64::from_ne_bytes(random()?);
            let place = Place { worker, steering: steering.clone(), pool: pool.clone(), seed };
            let mut engine = Engine::new(settings.clone(), place, now());
            engine.set_ledger(ledger.clone());
            unclaimed.extend(engine.restore(now(), &self.journal.held));
            engines.push(engine);
        }
        tracing::info!(
            blocks = self.journal.held.len() - unclaimed.len(),
            complete = self.journal.is_complete,
            "blocks of before"
        );
        let writer = self.journal.start(&unclaimed)?;
        for engine in &mut engines {
            engine.set_journal(writer.rows.clone());
        }
        if let Some(fast) = fast {
            fast.board(&mut engines)?;
        }
        let streams = engines.iter().map(Engine::events).collect();
        let table_bytes = engines.iter().map(Engine::table_bytes).sum();
        Ok(Stateful { engines, pool, writer, streams, table_bytes })
    }
}
