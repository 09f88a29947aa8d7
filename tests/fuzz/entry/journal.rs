//! The block journal: whatever is in the file is only data; what was written is read back as it was, and what was torn
//! or changed is missed line by line, never taken for something else.

use std::net::Ipv4Addr;

use sampan::nat64::journal::{HEADER, Held, NotAJournal, Owner, Replay, Row, replay, write_end, write_row};
use sampan::time::Instant;

use super::bytes::Bytes;

/// Data: a journal as it is, or the rows of one and what becomes of its bytes.
pub fn journal(data: &[u8]) {
    match data.split_first() {
        Some((kind, rest)) if kind % 4 != 0 => written(&mut Bytes::new(rest)),
        Some((_, rest)) => {
            foreign(rest);
            // Behind the right first line, too.
            foreign(&[HEADER.as_bytes(), b"\n", rest].concat());
        }
        None => foreign(data),
    }
}

/// What can be made of any bytes, written anew, is the same again.
fn foreign(data: &[u8]) {
    let Ok(read) = replay(data) else {
        assert!(!data.is_empty() && data.split(|b| *b == b'\n').next() != Some(HEADER.as_bytes()));
        return;
    };
    let lines = data.split(|b| *b == b'\n').skip(1).filter(|line| !line.is_empty()).count();
    assert!(read.held.len() as u64 + read.bad_lines <= lines as u64);
    assert!(!read.is_clean || read.bad_lines == 0 || data.ends_with(b"\n") || lines > 1);
    for block in &read.held {
        assert!(block.size.is_power_of_two() && block.first % block.size == 0);
    }
    let mut text = format!("{HEADER}\n");
    for block in &read.held {
        write_row(&mut text, 7, &Row { at: Instant::ZERO, is_leased: true, block: *block });
    }
    write_end(&mut text, 8);
    assert_eq!(replay(text.as_bytes()), Ok(Replay { held: read.held, is_clean: true, bad_lines: 0 }));
}

/// One line of a journal, and what it says.
struct Line {
    text: String,
    row: Option<Row>,
}

/// A journal of our own, whole, cut off, and with one byte changed.
fn written(data: &mut Bytes) {
    let lines: Vec<Line> = (0..data.below(24)).map(|_| line(data)).collect();
    let text = lines.iter().fold(format!("{HEADER}\n"), |text, line| text + &line.text);
    let all: Vec<Option<&Line>> = lines.iter().map(Some).collect();
    assert_eq!(replay(text.as_bytes()), Ok(model(&all)));

    let cut = usize::from(data.word()) % (text.len() + 1);
    let torn = replay(&text.as_bytes()[..cut]);
    match cut.checked_sub(HEADER.len() + 1) {
        None if cut == 0 => assert_eq!(torn, Ok(model(&[]))),
        None if cut == HEADER.len() => assert_eq!(torn, Ok(model(&[]))),
        None => assert_eq!(torn, Err(NotAJournal)),
        Some(cut) => {
            let (mut said, mut rest) = (Vec::new(), cut);
            for line in &lines {
                // A line that only lacks its end is whole.
                if rest + 1 >= line.text.len() {
                    said.push(Some(line));
                } else if rest > 0 {
                    said.push(None);
                }
                rest = rest.saturating_sub(line.text.len());
                if rest == 0 {
                    break;
                }
            }
            assert_eq!(torn, Ok(model(&said)));
        }
    }

    let (at, to) = (usize::from(data.word()) % text.len(), data.byte());
    let mut bytes = text.clone().into_bytes();
    if std::mem::replace(&mut bytes[at], to) != to {
        changed(&lines, at, to, &bytes);
    }
}

/// The sum of a line tells any change of one byte: then the line is missed, and all others stand.
fn changed(lines: &[Line], at: usize, to: u8, bytes: &[u8]) {
    let read = replay(bytes);
    let Some(mut at) = at.checked_sub(HEADER.len() + 1) else {
        return assert_eq!(read, Err(NotAJournal));
    };
    let mut said: Vec<Option<&Line>> = lines.iter().map(Some).collect();
    let mut hit = 0;
    while at >= lines[hit].text.len() {
        at -= lines[hit].text.len();
        hit += 1;
    }
    said[hit] = None;
    if at + 1 == lines[hit].text.len() && hit + 1 < lines.len() {
        // The end of a line: two have become one.
        said.remove(hit + 1);
    }
    let mut expected = model(&said);
    if to == b'\n' && at > 0 && at + 2 < lines[hit].text.len() {
        // One has become two.
        expected.bad_lines += 1;
    }
    assert_eq!(read, Ok(expected));
}

fn line(data: &mut Bytes) -> Line {
    let mut text = String::new();
    let millis = u64::from(data.long()) << (data.byte() % 33);
    if data.once_in(8) {
        write_end(&mut text, millis);
        return Line { text, row: None };
    }
    let size = 1u16 << data.below(12);
    let owner = if data.once_in(4) {
        Owner::Shard(data.byte())
    } else {
        let high = u128::from(data.long()) << 96 | u128::from(data.long());
        Owner::Subscriber(high.rotate_left(u32::from(data.byte() % 128)))
    };
    let addr = Ipv4Addr::from_bits(0xc633_6400 | u32::from(data.byte() % 4));
    // Few places, so that blocks change hands.
    let first = data.word() % 4 * 4096 / size * size;
    let block = Held { addr, first, size, owner };
    let row = Row { at: Instant::ZERO, is_leased: !data.once_in(3), block };
    write_row(&mut text, millis, &row);
    Line { text, row: Some(row) }
}

/// What lines say, one after the other; `None` is one that cannot be read.
fn model(lines: &[Option<&Line>]) -> Replay {
    let mut out = Replay { is_clean: true, ..Replay::default() };
    for line in lines {
        out.is_clean = matches!(line, Some(Line { row: None, .. }));
        match line {
            None => out.bad_lines += 1,
            Some(Line { row: None, .. }) => {}
            Some(Line { row: Some(row), .. }) => {
                out.held.retain(|b| (b.addr, b.first) != (row.block.addr, row.block.first));
                if row.is_leased {
                    out.held.push(row.block);
                }
            }
        }
    }
    out
}
