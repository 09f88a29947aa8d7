//! House rules that a compiler does not check: layers, purity, sizes, and nothing unfinished.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rooms of each layer, lowest first. A room may use its own layer and those below.
const LAYERS: [&[&str]; 8] = [
    &["time", "addr", "verdict", "text"],
    &["wire"],
    &["xlat"],
    &["nat64", "dns64", "siit"],
    &["io"],
    &["control", "lab"],
    &["daemon"],
    &["cli"],
];
/// Layers 1 to 3 are functions of bytes, state, time and seed.
const PURE: std::ops::RangeInclusive<usize> = 1..=3;
/// What has no place in a pure layer.
const IMPURE: [&str; 12] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::os::unix::net",
    "std::thread",
    "std::fs",
    "std::process",
    "tokio",
    "rand",
];
/// Longest source file, in lines.
const LONGEST: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// Rust sources below `src`, as paths from there.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&src).unwrap().to_path_buf(), text)
    };
    paths.into_iter().map(read).collect()
}

/// The room a source belongs to; `None` for `lib.rs` and `main.rs`.
fn room(path: &Path) -> Option<String> {
    let first = path.components().next()?.as_os_str().to_string_lossy().into_owned();
    match first.as_str() {
        "lib.rs" | "main.rs" => None,
        name => Some(name.strip_suffix(".rs").unwrap_or(name).to_owned()),
    }
}

/// A source without comments and without its test module, which may use what it likes.
fn code(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    shipped.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Every path in a piece of code that has `::` in it, with groups taken apart: `a::{b, c::{d, self}}` is `a::b`,
/// `a::c::d` and `a::c`.
fn paths(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut path = String::new();
    // Braces that do not follow `::` are blocks, which neither add to a path nor end a group.
    let mut groups = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        if is_word(c) {
            used = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            path.push_str(&rest[..used]);
        } else if let Some(behind) = rest.strip_prefix("::") {
            path.push_str("::");
            used = 2;
            if behind.starts_with('{') {
                prefixes.push(std::mem::take(&mut path));
                groups.push(true);
                used = 3;
            }
        } else {
            // Spaces, as in `use`, `as` or behind a comma, end a path like everything else.
            if path.contains("::") || (!path.is_empty() && !prefixes.is_empty()) {
                let whole = format!("{}{path}", prefixes.concat());
                out.push(whole.strip_suffix("::self").unwrap_or(&whole).to_owned());
            }
            path.clear();
            match c {
                '{' => groups.push(false),
                '}' if groups.pop() == Some(true) => drop(prefixes.pop()),
                _ => {}
            }
        }
        rest = &rest[used..];
    }
    if path.contains("::") {
        out.push(path);
    }
    out
}

/// Rooms that a piece of code of room `own` names by `crate::…`, or by more `super` than lead out of the room.
fn used_rooms(path: &Path, code: &str) -> Vec<String> {
    // A file `a/b.rs` is two modules deep, `a/mod.rs` and `a.rs` one.
    let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
    let depth = path.components().count() - usize::from(is_mod);
    let out_of_room = "super::".repeat(depth);
    let rooms = paths(code).into_iter().filter_map(|used| {
        let inside = used.strip_prefix("crate::").or_else(|| used.strip_prefix(&out_of_room))?;
        let room = inside.split("::").next()?;
        layer(room).map(|_| room.to_owned())
    });
    rooms.collect()
}

fn upward_edges(path: &Path, text: &str) -> Vec<String> {
    let Some(own) = room(path) else { return Vec::new() };
    let Some(at) = layer(&own) else { return vec![format!("{}: room {own} is in no layer", path.display())] };
    let edges = used_rooms(path, &code(text)).into_iter().filter(|used| layer(used).is_some_and(|l| l > at));
    edges.map(|used| format!("{}: {own} uses {used}, which lies above it", path.display())).collect()
}

fn impurities(path: &Path, text: &str) -> Vec<String> {
    let pure = room(path).and_then(|room| layer(&room)).is_some_and(|layer| PURE.contains(&layer));
    if !pure {
        return Vec::new();
    }
    let paths = paths(&code(text));
    let found = IMPURE.iter().filter(|word| {
        paths
            .iter()
            .any(|p| p.strip_prefix(**word).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
    });
    found.map(|word| format!("{}: {word}", path.display())).collect()
}

fn unsafe_outside_io(path: &Path, text: &str) -> Vec<String> {
    let inside = path.starts_with("io");
    let code = code(text);
    let found = code
        .lines()
        .filter(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe"));
    found.filter(|_| !inside).map(|line| format!("{}: {}", path.display(), line.trim())).collect()
}

/// Words that stand for work that is not done. Put together here so that this file does not find itself.
fn unfinished(name: &str, text: &str) -> Vec<String> {
    let words = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["#[ign", "ore"],
        ["FIX", "ME"],
        ["TO", "DO:"],
        ["allow(dead_", "code)]\nfn"],
    ];
    let words = words.map(|[a, b]| format!("{a}{b}"));
    words.iter().filter(|w| text.contains(w.as_str())).map(|w| format!("{name}: {w}")).collect()
}

/// Paths of somebody's machine.
fn machine_paths(name: &str, text: &str) -> Vec<String> {
    let words = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]].map(|[a, b]| format!("{a}{b}"));
    words.iter().filter(|w| text.contains(w.as_str())).map(|w| format!("{name}: {w}")).collect()
}

/// Every text file that git knows or would take.
fn tracked() -> Vec<(String, String)> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .expect("git");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let names = String::from_utf8(out.stdout).unwrap();
    let read = |name: &str| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?));
    names.split('\0').filter(|n| !n.is_empty()).filter_map(read).collect()
}

#[track_caller]
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn dependencies_point_down() {
    none(sources().iter().flat_map(|(path, text)| upward_edges(path, text)).collect());
}

#[test]
fn layers_1_to_3_have_no_clock_socket_thread_or_file() {
    none(sources().iter().flat_map(|(path, text)| impurities(path, text)).collect());
}

#[test]
fn unsafe_stays_in_the_io_shells() {
    none(sources().iter().flat_map(|(path, text)| unsafe_outside_io(path, text)).collect());
}

#[test]
fn no_source_is_longer_than_600_lines() {
    let long = sources().into_iter().filter(|(_, text)| text.lines().count() > LONGEST);
    none(long.map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count())).collect());
}

#[test]
fn nothing_is_left_unfinished_and_no_path_is_of_one_machine() {
    let files = tracked();
    assert!(files.len() > 100, "git shows only {} files", files.len());
    let code = files.iter().filter(|(name, _)| name.ends_with(".rs") || name.ends_with(".sh"));
    none(code.flat_map(|(name, text)| unfinished(name, text)).collect());
    none(files.iter().flat_map(|(name, text)| machine_paths(name, text)).collect());
}

/// Reasons that no code outside their list gives: their counters could never count.
fn unused_reasons(list: &str, others: &[&str]) -> Vec<String> {
    let body = list.split("\ndrop_reasons! {").nth(1).and_then(|b| b.split("\n}").next()).unwrap_or("");
    let names = body.lines().filter_map(|line| line.split_whitespace().next());
    let unused = names.filter(|name| {
        let full = format!("DropReason::{name}");
        let follows = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        !others.iter().any(|text| text.split(&full).skip(1).any(|rest| !follows(rest)))
    });
    unused.map(str::to_owned).collect()
}

#[test]
fn every_reason_to_drop_is_given_somewhere() {
    let sources = sources();
    let (list, others): (Vec<_>, Vec<_>) = sources.iter().partition(|(path, _)| path.ends_with("verdict.rs"));
    let others: Vec<String> = others.iter().map(|(_, text)| code(text)).collect();
    let list = &list[0].1;
    assert!(list.contains("\ndrop_reasons! {"), "the list has moved");
    none(unused_reasons(list, &others.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn the_checks_can_fail() {
    let wire = Path::new("wire/x.rs");
    let taken_apart =
        paths("use a::{b, c::{d, self}};\nfn f() { x::y(); }\nuse std::{time::{Duration, Instant}};");
    let want = ["a::b", "a::c::d", "a::c", "x::y", "std::time::Duration", "std::time::Instant"];
    assert_eq!(taken_apart, want);
    assert_eq!(impurities(wire, "use std::time::{Duration, Instant};").len(), 1);
    assert_eq!(impurities(wire, "use std::{net::{IpAddr, UdpSocket}, thread};").len(), 2);
    assert!(impurities(wire, "use std::net::IpAddr; use crate::time::Instant; tokioish::x();").is_empty());
    assert_eq!(upward_edges(wire, "use crate::{verdict::{self, Verdict}, nat64::{bib, tcp}};").len(), 2);
    assert_eq!(upward_edges(wire, "use super::super::io::tun;").len(), 1);
    assert!(upward_edges(wire, "use super::io::tun;").is_empty());
    assert_eq!(upward_edges(Path::new("wire/mod.rs"), "use super::io::tun;").len(), 1);
    let list = "x\ndrop_reasons! {\n    One \"one\" \"\",\n    OneMore \"two\" \"\",\n}\n";
    assert_eq!(unused_reasons(list, &["DropReason::OneMore"]), ["One"]);
    assert!(unused_reasons(list, &["DropReason::OneMore, DropReason::One.into()"]).is_empty());
    assert_eq!(upward_edges(wire, "use crate::nat64::engine::Engine;").len(), 1);
    assert_eq!(upward_edges(wire, "use crate::{verdict, io::tun};\nlet x = crate::daemon::run();").len(), 2);
    assert_eq!(upward_edges(wire, "let x = crate::daemon::run();").len(), 1);
    assert!(upward_edges(wire, "use crate::verdict::DropReason; // crate::io\n").is_empty());
    assert!(upward_edges(wire, "fn f() {}\n#[cfg(test)]\nmod tests { use crate::io; }").is_empty());
    assert_eq!(upward_edges(Path::new("stray.rs"), "").len(), 1);
    assert_eq!(impurities(wire, "let now = std::time::Instant::now();").len(), 1);
    assert!(impurities(Path::new("daemon/x.rs"), "std::thread::spawn").is_empty());
    assert_eq!(unsafe_outside_io(wire, "unsafe { x() }").len(), 1);
    assert!(unsafe_outside_io(Path::new("io/x.rs"), "unsafe { x() }").is_empty());
    assert!(unsafe_outside_io(wire, "#![deny(unsafe_code)]").is_empty());
    assert_eq!(unfinished("x", &format!("{}{}", "to", "do!()")).len(), 1);
    assert_eq!(machine_paths("x", &format!("cd {}{}main", "/wo", "rk/")).len(), 1);
}
