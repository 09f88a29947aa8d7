//! The file of the block journal: read and tidied at start, written by a thread of its own, so that no packet ever
//! waits for a disk.
//!
//! Whatever happens to the file, the gateway runs on: a journal that cannot be read or written is an error in the log
//! and a reason for degraded health. Then free blocks rest at start, as after any unclean end (RFC 6888 REQ-8).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::nat64::journal::{HEADER, Held, Journal, Row, replay, write_end, write_row};
use crate::time::Instant;

/// Rows that may wait for the writer; workers lease nothing while there is no room.
const ROWS: usize = 8_192;
/// Between two looks at the queue. With the time to write it is well below 50 ms.
const PAUSE: Duration = Duration::from_millis(20);
/// Largest file that is read: a few million rows.
const MAX_FILE: u64 = 512 << 20;
/// Rows beyond which a journal with few blocks is written anew.
const TIDY_ROWS: usize = 65_536;
/// Between two words about a disk that fails.
const NAG: Duration = Duration::from_secs(60);

/// A journal at start.
pub struct Opened {
    /// Blocks that were leased when the last gateway ended, in their order.
    pub held: Vec<Held>,
    /// Whether that is all there were.
    pub is_complete: bool,
    file: Option<Flock<File>>,
    path: PathBuf,
}

/// A running writer.
pub struct Writer {
    /// Where workers put rows.
    pub rows: Arc<Journal>,
    /// Whether the file is written as it should.
    pub is_healthy: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Opens the journal at `path`, made if need be, and leaves only the blocks that `fits` says yes to.
pub fn open(path: &Path, fits: impl Fn(&Held) -> bool) -> Opened {
    if is_taken(path) {
        tracing::error!(file = %path.display(), "the block journal belongs to another gateway that runs");
        return Opened {
            held: Vec::new(),
            is_complete: false,
            file: None,
            path: path.with_extension("other"),
        };
    }
    let (mut held, is_complete) = match read(path) {
        Ok(Some(text)) => match replay(&text) {
            Ok(replay) => {
                if replay.bad_lines > 0 {
                    tracing::error!(
                        file = %path.display(),
                        lines = replay.bad_lines,
                        "the block journal has lines that cannot be read"
                    );
                }
                (replay.held, replay.is_clean)
            }
            Err(_) => {
                lost(path, "it is no block journal of this version");
                (Vec::new(), false)
            }
        },
        Ok(None) => (Vec::new(), true),
        Err(e) => {
            lost(path, &e.to_string());
            (Vec::new(), false)
        }
    };
    held.retain(fits);
    let file = match rewrite(path, &held) {
        Ok(file) => Some(file),
        Err(e) => {
            tracing::error!(file = %path.display(), "the block journal cannot be written: {e}");
            None
        }
    };
    Opened { held, is_complete, file, path: path.to_owned() }
}

/// Whether another process writes it.
fn is_taken(path: &Path) -> bool {
    let locked = File::open(path).map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
    matches!(locked, Ok(Err((_, Errno::EWOULDBLOCK))))
}

fn lost(path: &Path, reason: &str) {
    // Kept for whoever wants to know what was in it; fails where the file cannot be touched at all.
    let _ = fs::rename(path, path.with_extension("unreadable"));
    tracing::error!(file = %path.display(), "the block journal is lost: {reason}; free blocks rest first");
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    if file.take(MAX_FILE + 1).read_to_end(&mut text)? as u64 > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    Ok(Some(text))
}

/// Replaces the file by one that holds these blocks, and leaves it open for more. A crash leaves the old or the new.
fn rewrite(path: &Path, held: &[Held]) -> io::Result<Flock<File>> {
    let mut text = format!("{HEADER}\n");
    let millis = millis(SystemTime::now());
    for block in held {
        write_row(&mut text, millis, &Row { at: Instant::ZERO, is_leased: true, block: *block });
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let new = path.with_extension("new");
    // Who has which block is nobody else's business.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()?;
    // So that a second gateway leaves it alone.
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e.into())
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Opened {
    /// Starts the writer. `unclaimed` blocks are not leased any more.
    pub fn start(self, unclaimed: &[Held]) -> io::Result<Writer> {
        let rows = Arc::new(Journal::new(ROWS));
        let is_healthy = Arc::new(AtomicBool::new(self.file.is_some()));
        let stop = Arc::new(AtomicBool::new(false));
        let live = (0..).zip(self.held).map(|(n, held)| ((held.addr, held.first), (n, held)));
        let mut book = Book {
            live: live.collect(),
            next: u64::MAX / 2,
            file: self.file,
            path: self.path,
            written: 0,
            is_healthy: is_healthy.clone(),
            nagged: None,
        };
        let unclaimed: Vec<Row> = unclaimed
            .iter()
            .map(|block| Row { at: Instant::ZERO, is_leased: false, block: *block })
            .collect();
        let (queue, ended) = (rows.clone(), stop.clone());
        let thread = thread::Builder::new().name("journal".into()).spawn(move || {
            book.write(&unclaimed);
            let mut batch = Vec::new();
            loop {
                // Asked first: what is put in before the end is written.
                let last = ended.load(Ordering::SeqCst);
                batch.extend(std::iter::from_fn(|| queue.pop()));
                book.write(&batch);
                batch.clear();
                if last {
                    return book.end();
                }
                thread::sleep(PAUSE);
            }
        })?;
        Ok(Writer { rows, is_healthy, stop, thread })
    }
}

impl Writer {
    /// Writes what is left, and that this is all. When the workers have ended.
    pub fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        // A panic in there has been reported by itself.
        let _ = self.thread.join();
    }
}

/// What the writer's thread knows.
struct Book {
    live: HashMap<(Ipv4Addr, u16), (u64, Held)>,
    next: u64,
    file: Option<Flock<File>>,
    path: PathBuf,
    written: usize,
    is_healthy: Arc<AtomicBool>,
    nagged: Option<Clock>,
}

impl Book {
    fn write(&mut self, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let (now, wall) = (super::now(), SystemTime::now());
        let mut text = String::new();
        for row in rows {
            let key = (row.block.addr, row.block.first);
            if row.is_leased {
                self.next += 1;
                self.live.insert(key, (self.next, row.block));
            } else {
                self.live.remove(&key);
            }
            let ago = now.since(row.at);
            let at = if row.at == Instant::ZERO { wall } else { wall.checked_sub(ago).unwrap_or(wall) };
            write_row(&mut text, millis(at), row);
        }
        self.written += rows.len();
        if self.file.is_none() || self.written > TIDY_ROWS + 4 * self.live.len() {
            self.renew(&text);
        } else {
            self.append(&text);
        }
    }

    fn append(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if let Err(e) = &written {
            // What is half written is written anew with the next rows.
            self.file = None;
            self.complain(e);
        }
        self.is_healthy.store(written.is_ok(), Ordering::Relaxed);
    }

    /// Writes the whole file anew. Where that is not allowed any more, the old one grows on.
    fn renew(&mut self, text: &str) {
        let mut held: Vec<_> = self.live.values().copied().collect();
        held.sort_unstable_by_key(|(n, _)| *n);
        let held: Vec<_> = held.into_iter().map(|(_, held)| held).collect();
        self.written = 0;
        match rewrite(&self.path, &held) {
            Ok(file) => {
                self.file = Some(file);
                self.is_healthy.store(true, Ordering::Relaxed);
            }
            Err(_) if self.file.is_some() => self.append(text),
            Err(e) => {
                self.complain(&e);
                self.is_healthy.store(false, Ordering::Relaxed);
            }
        }
    }

    fn end(&mut self) {
        let mut text = String::new();
        write_end(&mut text, millis(SystemTime::now()));
        self.append(&text);
    }

    fn complain(&mut self, error: &io::Error) {
        if self.nagged.is_none_or(|at| at.elapsed() >= NAG) {
            self.nagged = Some(Clock::now());
            tracing::error!(
                file = %self.path.display(),
                "the block journal cannot be written: {error}; after a restart blocks may change hands"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat64::journal::Owner;

    fn block(n: u16) -> Held {
        Held {
            addr: Ipv4Addr::new(198, 51, 100, 1),
            first: n * 512,
            size: 512,
            owner: Owner::Subscriber(u128::from(n)),
        }
    }

    fn row(is_leased: bool, n: u16) -> Row {
        Row { at: Instant::from_nanos(1), is_leased, block: block(n) }
    }

    fn all(_: &Held) -> bool {
        true
    }

    #[test]
    fn h12_blocks_survive_a_clean_end_and_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/key.blocks");
        let opened = open(&path, all);
        assert!(opened.held.is_empty() && opened.is_complete, "the first start");
        let writer = opened.start(&[]).unwrap();
        for n in [7, 3, 9] {
            writer.rows.push(row(true, n)).unwrap();
        }
        writer.rows.push(row(false, 3)).unwrap();
        // Written within 50 ms, without being asked; here with time for a busy machine.
        let wait = Clock::now();
        while replay(&fs::read(&path).unwrap()).unwrap().held != [block(7), block(9)] {
            assert!(wait.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(5));
        }
        let copy = path.with_extension("crashed");
        fs::copy(&path, &copy).unwrap();
        writer.end();
        let crashed = open(&copy, all);
        assert_eq!((crashed.held, crashed.is_complete), (vec![block(7), block(9)], false));
        let clean = open(&path, |held| held.first != 9 * 512);
        assert_eq!((&clean.held[..], clean.is_complete), (&[block(7)][..], true));
        // A second gateway leaves it alone.
        assert!(open(&path, all).held.is_empty());
        // What nobody claims is given back.
        clean.start(&[block(7)]).unwrap().end();
        assert!(open(&path, all).held.is_empty());
    }

    #[test]
    fn h12_a_lost_journal_is_an_error_and_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        fs::write(&path, b"\xffsomething else").unwrap();
        let opened = open(&path, all);
        assert!(opened.held.is_empty() && !opened.is_complete);
        assert!(dir.path().join("blocks.unreadable").exists());
        // A place where no file can be.
        let nowhere = path.join("below-a-file");
        let opened = open(&nowhere, all);
        assert!(opened.held.is_empty());
        let writer = opened.start(&[]).unwrap();
        assert!(!writer.is_healthy.load(Ordering::Relaxed));
        writer.rows.push(row(true, 1)).unwrap();
        writer.end();
    }

    #[test]
    fn a_long_journal_is_tidied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        let writer = open(&path, all).start(&[]).unwrap();
        let put = |row: Row| {
            while writer.rows.push(row).is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        put(row(true, 5));
        for _ in 0..TIDY_ROWS {
            put(row(true, 6));
            put(row(false, 6));
        }
        writer.end();
        let text = fs::read(&path).unwrap();
        assert!(text.len() < TIDY_ROWS * 70, "{} bytes", text.len());
        assert_eq!(replay(&text).unwrap().held, [block(5)]);
    }
}
