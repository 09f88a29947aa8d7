//! `sessions`, `bib` and `drops`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::client::{Client, ClientError, encoded};
use super::meanings::meaning;
use super::output::{Outcome, Table, clean, complain, duration, endpoint, print, print_json};
use super::words::Word;
use crate::control::admin::{DropRow, MAX_PAGE, Page};
use crate::nat64::ride::Path;
use crate::nat64::settings::{BibRow, Protocol, SessionRow};
use crate::text::{Lang, shown};

/// Rows shown when the operator does not say.
const USUAL_LIMIT: usize = 50;

pub(super) fn row_args(lang: Lang) -> [Arg; 6] {
    let filter = |name: &'static str, value: &'static str, help: Word| {
        Arg::new(name).long(name).value_name(value).help(help.say(lang))
    };
    [
        filter("addr", "ADDRESS", Word::HelpAddr).value_parser(clap::value_parser!(IpAddr)),
        filter("port", "PORT", Word::HelpPort).value_parser(clap::value_parser!(u16)),
        filter("unit", "NAME", Word::HelpUnit),
        filter("protocol", "PROTOCOL", Word::HelpProtocol)
            .value_parser(["tcp", "udp", "icmp"])
            .hide_possible_values(true),
        filter("limit", "N", Word::HelpLimit { default: USUAL_LIMIT })
            .value_parser(clap::value_parser!(u32).range(1..))
            .conflicts_with("all"),
        Arg::new("all").long("all").action(ArgAction::SetTrue).help(Word::HelpAllRows.say(lang)),
    ]
}

pub(super) fn all_drops_arg(lang: Lang) -> Arg {
    Arg::new("all").long("all").action(ArgAction::SetTrue).help(Word::HelpAllDrops.say(lang))
}

/// Lists sessions.
pub(super) fn sessions(context: &Context, matches: &ArgMatches) -> Outcome {
    let header = [
        Word::Protocol,
        Word::Client,
        Word::Pool,
        Word::Peer,
        Word::State,
        Word::Way,
        Word::Expires,
        Word::Unit,
        Word::Worker,
    ];
    let right = [false, false, false, false, false, false, true, false, true];
    list(context, matches, "sessions", &header, &right, |row: &SessionRow| {
        vec![
            protocol(row.protocol),
            endpoint(row.src6.into(), row.src6_port),
            endpoint(row.src4.into(), row.src4_port),
            endpoint(row.dst4.into(), row.dst4_port),
            clean(&row.state),
            way(row.path).say(context.lang),
            duration(row.expires_s),
            unit(row.unit.as_deref()),
            row.worker.to_string(),
        ]
    })
}

/// Lists bindings.
pub(super) fn bib(context: &Context, matches: &ArgMatches) -> Outcome {
    let header = [Word::Protocol, Word::Client, Word::Pool, Word::Sessions, Word::Unit, Word::Worker];
    let right = [false, false, false, true, false, true];
    list(context, matches, "bib", &header, &right, |row: &BibRow| {
        vec![
            protocol(row.protocol),
            endpoint(row.src6.into(), row.src6_port),
            endpoint(row.src4.into(), row.src4_port),
            if row.is_static {
                format!("{} ({})", row.sessions, Word::Static.say(context.lang))
            } else {
                row.sessions.to_string()
            },
            unit(row.unit.as_deref()),
            row.worker.to_string(),
        ]
    })
}

/// Lists drop counters.
pub(super) fn drops(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut rows: Vec<DropRow> = match context.client()?.get("/v1/drops") {
        Ok(rows) => rows,
        Err(error) => return context.refused(error),
    };
    rows.retain(|row| matches.get_flag("all") || row.count > 0);
    if context.json {
        print_json(&rows)?;
    } else if rows.is_empty() {
        print(&(Word::NoDrops.say(context.lang) + "\n"))?;
    } else {
        let header = [Word::Count, Word::Name, Word::Meaning].map(|word| word.say(context.lang)).to_vec();
        let rows = rows.iter().map(|row| {
            let known = meaning(&row.name, context.lang).map(ToOwned::to_owned);
            vec![row.count.to_string(), clean(&row.name), known.unwrap_or_else(|| shown(&row.meaning, 200))]
        });
        Table::new(&[true, false, false]).print(&std::iter::once(header).chain(rows).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Listing<T> {
    rows: Vec<T>,
    more: bool,
}

/// Reads page after page and prints it: text at once, JSON as one value at the end.
fn list<T: Serialize + DeserializeOwned>(
    context: &Context,
    matches: &ArgMatches,
    table: &str,
    header: &[Word],
    right: &[bool],
    cells: impl Fn(&T) -> Vec<String> + Copy,
) -> Outcome {
    let limit = match matches.get_one::<u32>("limit") {
        _ if matches.get_flag("all") => usize::MAX,
        Some(limit) => usize::try_from(*limit).unwrap_or(usize::MAX),
        None => USUAL_LIMIT,
    };
    let mut printed = Table::new(right);
    let mut listing = Listing { rows: Vec::new(), more: false };
    let mut count = 0;
    let mut pages =
        Pages { client: context.client()?, query: query(table, matches), next: None, ended: false };
    while count < limit {
        let rows: Vec<T> = match pages.read(limit - count) {
            Ok(Some(rows)) => rows,
            Ok(None) => break,
            Err(error) => return context.refused(error),
        };
        if context.json {
            count += rows.len();
            listing.rows.extend(rows);
            continue;
        }
        let mut lines: Vec<Vec<String>> = rows.iter().map(cells).collect();
        if count == 0 && !lines.is_empty() {
            lines.insert(0, header.iter().map(|word| word.say(context.lang)).collect());
        }
        count += rows.len();
        printed.print(&lines)?;
    }
    listing.more = !pages.ended;
    if context.json {
        print_json(&listing)?;
    } else if count == 0 {
        print(&(Word::NoRows.say(context.lang) + "\n"))?;
    } else if listing.more {
        complain(&(Word::More.say(context.lang) + "\n"));
    }
    Ok(ExitCode::SUCCESS)
}

struct Pages {
    client: Client,
    query: String,
    next: Option<u64>,
    ended: bool,
}

impl Pages {
    /// The next page with at most `wanted` rows, or `None` behind the last.
    fn read<T: DeserializeOwned>(&mut self, wanted: usize) -> Result<Option<Vec<T>>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let cursor = self.next.map(|next| format!("&cursor={next}")).unwrap_or_default();
        let page: Page<T> =
            self.client.get(&format!("{}limit={}{cursor}", self.query, wanted.min(MAX_PAGE)))?;
        self.next = page.next.map(|cursor| cursor.0);
        self.ended = self.next.is_none();
        Ok(Some(page.rows))
    }
}

fn query(table: &str, matches: &ArgMatches) -> String {
    let mut query = format!("/v1/{table}?");
    let mut add = |name: &str, value: &str| query.push_str(&format!("{name}={}&", encoded(value)));
    match matches.get_one::<IpAddr>("addr") {
        Some(IpAddr::V6(addr)) => add("addr6", &addr.to_string()),
        Some(IpAddr::V4(addr)) => add("addr4", &addr.to_string()),
        None => {}
    }
    if let Some(port) = matches.get_one::<u16>("port") {
        add("port", &port.to_string());
    }
    for name in ["unit", "protocol"] {
        if let Some(value) = matches.get_one::<String>(name) {
            add(name, value);
        }
    }
    query
}

fn protocol(protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
    .to_owned()
}

const fn way(path: Path) -> Word {
    match path {
        Path::Fast => Word::WayFast,
        Path::Off => Word::WayOff,
        Path::Opening => Word::WayOpening,
        Path::Waiting => Word::WayWaiting,
        Path::Icmp => Word::WayIcmp,
        Path::Static => Word::WayStatic,
        Path::Hairpin => Word::WayHairpin,
        Path::Refresh => Word::WayRefresh,
        Path::Full => Word::WayFull,
    }
}

fn unit(unit: Option<&str>) -> String {
    unit.map_or_else(|| "-".to_owned(), clean)
}
