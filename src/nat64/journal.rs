//! The journal of leased blocks: who had which block, in lines of text, so that a restart, a second gateway and
//! people can read it.
//!
//! Here are only the rows and their text. Workers put rows into a bounded queue; a thread of the daemon writes them.
//! A block whose row finds no room in the queue is not leased, so the journal has no gaps.
//!
//! ```text
//! sampan-blocks 1
//! 1782000000123 + 198.51.100.1 1024 512 2001:db8:6:1:: 5f3a0c11
//! 1782000120456 - 198.51.100.1 1024 512 2001:db8:6:1:: 77e01b02
//! 1782000130000 end 0d2f9f3c
//! ```
//!
//! Milliseconds since 1970 (UTC), leased or given back, address, first port, number of ports, subscriber (or
//! `shard:N` for a block that several subscribers of a shard share), and a sum that tells torn lines. `end` says
//! that nothing is missing.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use crossbeam_queue::ArrayQueue;

use crate::time::Instant;

/// First line of a journal.
pub const HEADER: &str = "sampan-blocks 1";
/// Longest line that is read.
const MAX_LINE: usize = 160;

/// Rows on their way to the writer.
pub type Journal = ArrayQueue<Row>;

/// Who has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A subscriber, as the bits of its prefix.
    Subscriber(u128),
    /// Several subscribers of one shard.
    Shard(u8),
}

/// A leased block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Pool address.
    pub addr: Ipv4Addr,
    /// First port.
    pub first: u16,
    /// Number of ports.
    pub size: u16,
    /// Who has it.
    pub owner: Owner,
}

/// A block was leased or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// When.
    pub at: Instant,
    /// Whether it was leased.
    pub is_leased: bool,
    /// Which block, and whose.
    pub block: Held,
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Blocks that are leased at its end, in the order in which they were.
    pub held: Vec<Held>,
    /// Whether it ends as it should, or is empty.
    pub is_clean: bool,
    /// Lines that could not be read.
    pub bad_lines: u64,
}

/// Why a journal cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAJournal;

/// Writes the line of a row; `millis` is the wall clock's word for its time.
pub fn write_row(out: &mut String, millis: u64, row: &Row) {
    let Held { addr, first, size, owner } = row.block;
    let sign = if row.is_leased { '+' } else { '-' };
    let owner = match owner {
        Owner::Subscriber(bits) => Ipv6Addr::from_bits(bits).to_string(),
        Owner::Shard(shard) => format!("shard:{shard}"),
    };
    write_line(out, &format!("{millis} {sign} {addr} {first} {size} {owner}"));
}

/// Writes the line that ends a journal.
pub fn write_end(out: &mut String, millis: u64) {
    write_line(out, &format!("{millis} end"));
}

fn write_line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text} {:08x}", sum(text.as_bytes()));
}

/// Reads a journal. Lines that are not understood are counted and passed over.
pub fn replay(text: &[u8]) -> Result<Replay, NotAJournal> {
    let mut out = Replay { is_clean: true, ..Replay::default() };
    if text.is_empty() {
        return Ok(out);
    }
    let mut lines = text.split(|b| *b == b'\n');
    if lines.next() != Some(HEADER.as_bytes()) {
        return Err(NotAJournal);
    }
    let mut held: HashMap<(Ipv4Addr, u16), (u64, Held)> = HashMap::new();
    for (number, line) in (0u64..).zip(lines.filter(|line| !line.is_empty())) {
        match parse(line) {
            Some(Line::Block { is_leased: true, block }) => {
                held.insert((block.addr, block.first), (number, block));
                out.is_clean = false;
            }
            Some(Line::Block { is_leased: false, block }) => {
                held.remove(&(block.addr, block.first));
                out.is_clean = false;
            }
            Some(Line::End) => out.is_clean = true,
            None => {
                out.bad_lines += 1;
                out.is_clean = false;
            }
        }
    }
    let mut held: Vec<_> = held.into_values().collect();
    held.sort_unstable_by_key(|(number, _)| *number);
    out.held = held.into_iter().map(|(_, block)| block).collect();
    Ok(out)
}

enum Line {
    Block { is_leased: bool, block: Held },
    End,
}

fn parse(line: &[u8]) -> Option<Line> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.len() <= MAX_LINE)?;
    let (text, written) = line.rsplit_once(' ')?;
    // To the letter: what has changed in the least is not taken for whole.
    if written != format!("{:08x}", sum(text.as_bytes())) {
        return None;
    }
    let mut words = text.split(' ');
    words.next()?.parse::<u64>().ok()?;
    let is_leased = match words.next()? {
        "+" => true,
        "-" => false,
        "end" => return words.next().is_none().then_some(Line::End),
        _ => return None,
    };
    let addr = words.next()?.parse().ok()?;
    let first: u16 = words.next()?.parse().ok()?;
    let size: u16 = words.next()?.parse().ok()?;
    let owner = words.next()?;
    let owner = match owner.strip_prefix("shard:") {
        Some(shard) => Owner::Shard(shard.parse().ok()?),
        None => Owner::Subscriber(owner.parse::<Ipv6Addr>().ok()?.to_bits()),
    };
    let whole = size.is_power_of_two() && first.is_multiple_of(size) && words.next().is_none();
    whole.then_some(Line::Block { is_leased, block: Held { addr, first, size, owner } })
}

/// FNV-1a: against torn lines, not against forgers, who could write to the file anyway.
fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(n: u16, owner: Owner) -> Held {
        Held { addr: Ipv4Addr::new(198, 51, 100, 1), first: n * 512, size: 512, owner }
    }

    fn row(is_leased: bool, n: u16, owner: Owner) -> Row {
        Row { at: Instant::ZERO, is_leased, block: block(n, owner) }
    }

    fn text(rows: &[Row]) -> String {
        let mut out = format!("{HEADER}\n");
        for (i, row) in rows.iter().enumerate() {
            write_row(&mut out, 1_782_000_000_000 + i as u64, row);
        }
        out
    }

    const A: Owner = Owner::Subscriber(0x2001_0db8 << 96 | 1);
    const B: Owner = Owner::Shard(255);

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let rows = [row(true, 9, A), row(true, 4, B), row(true, 5, A), row(false, 9, A), row(true, 9, B)];
        let mut journal = text(&rows);
        let read = replay(journal.as_bytes()).unwrap();
        assert_eq!(read.held, [block(4, B), block(5, A), block(9, B)]);
        assert!(!read.is_clean && read.bad_lines == 0);
        write_end(&mut journal, 7);
        assert!(replay(journal.as_bytes()).unwrap().is_clean);
        assert_eq!(replay(b""), Ok(Replay { is_clean: true, ..Replay::default() }));
    }

    #[test]
    fn torn_and_foreign_lines_are_counted_and_passed_over() {
        let whole = text(&[row(true, 9, A), row(true, 4, B)]);
        for cut in HEADER.len() + 1..whole.len() - 1 {
            let read = replay(&whole.as_bytes()[..cut]).unwrap();
            assert!(read.held.len() <= 1 && read.bad_lines <= 1, "{cut}: {read:?}");
        }
        let swapped = whole.replace("198.51.100.1", "198.51.100.7");
        assert_eq!(replay(swapped.as_bytes()).unwrap().bad_lines, 2);
        for foreign in ["sampan-blocks 2\n", "[nat64]\n", "\n", "sampan-blocks 1x"] {
            assert_eq!(replay(foreign.as_bytes()), Err(NotAJournal));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_only_data(bytes: Vec<u8>, flip in 0usize..400, to: u8) {
            let _ = replay(&bytes);
            let mut journal = text(&[row(true, 9, A), row(true, 4, B), row(false, 4, B)]).into_bytes();
            let at = flip % journal.len();
            journal[at] = to;
            if let Ok(read) = replay(&journal) {
                prop_assert!(read.held.len() <= 2);
            }
        }
    }
}
