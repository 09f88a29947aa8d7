//! The DNS64 bench: CPU time per answer, rate and latency beside unbound and BIND, and the DNS64 test of RFC 8219.
//!
//! Started by `benches/dns64/run`; `docs/performance.md` has the method and a table.
#![allow(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

mod authority;
mod campaign;
mod load;
mod peers;
mod report;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support/resolver.rs"]
mod resolver;
#[allow(dead_code, reason = "shared with the box bench")]
#[path = "../box/stats.rs"]
mod stats;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use sampan::dns64::{Policy, Settings};
use sampan::io::dns_net::{Config, Limits, ListenSettings, Shared, bind, run as serve_until};
use sampan::io::heap;
use serde::Serialize;

use crate::authority::Authority;
use crate::campaign::Campaign;
use crate::load::{Seen, dnsperf, name, paced};
use crate::peers::{PREFIX, Peer, Server};
use crate::report::{Report, Row};

/// Where the servers run, and where clients and upstream do.
const SERVER_CPU: usize = 0;
const CLIENT_CPU: usize = 1;
/// Names of the test with everything in the cache.
const CACHED: u32 = 2_000;
/// Names of one uncached measurement: more than any server gets through.
const UNCACHED: u32 = 60_000;
/// First look-ups of one latency measurement.
const LOOKUPS: u32 = 40;
/// How late the upstream answers in that test.
const UPSTREAM_DELAY: Duration = Duration::from_millis(20);

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// Synthesised answers from the cache.
    Cached,
    /// Names that were never asked before.
    Uncached,
    /// The first look-up of a name when the upstream takes 20 ms.
    Latency,
    /// RFC 8219 §9: the highest rate at which every answer is right and in time.
    Rfc8219,
}

/// CPU time, rate and latency of DNS64 answers, beside unbound and BIND.
#[derive(Debug, Parser)]
#[command(name = "benches/dns64/run")]
struct Args {
    /// How often each test is made on each server
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Which tests
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cached,uncached,latency,rfc8219")]
    tests: Vec<Test>,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Rounds of the RFC 8219 test, each a binary search (the RFC has 20, of a minute a step)
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    searches: u32,
    /// Attack instead of measure
    #[arg(long, value_enum)]
    campaign: Option<Campaign>,
    /// How long an attack lasts
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES")]
    minutes: f64,
    /// Write everything there
    #[arg(long, visible_alias = "out", overrides_with = "json", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Serve as Sampan does, on this address
    #[arg(long, hide = true, requires = "upstream")]
    serve: Option<SocketAddr>,
    /// The upstream to ask
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
    /// MiB of the server's cache under attack
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u16).range(1..=4096))]
    cache: Option<u16>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.bench {
        println!("the DNS64 bench needs root and some minutes: start it with benches/dns64/run");
        return ExitCode::SUCCESS;
    }
    let result = match (args.serve, args.upstream) {
        (Some(address), Some(upstream)) => serve(address, upstream, args.cache).map(|()| true),
        _ => run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benches/dns64: {error}");
            ExitCode::from(2)
        }
    }
}

/// The DNS service as the daemon runs it.
fn serve(address: SocketAddr, upstream: SocketAddr, cache: Option<u16>) -> io::Result<()> {
    heap::map_large_blocks();
    let limits = limits(cache);
    let listen = ListenSettings { addresses: vec![address], ..ListenSettings::default() };
    let bound = bind(&listen, limits.udp_threads).map_err(io::Error::other)?;
    let shared = Arc::new(Shared::new(config(upstream)?, limits));
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(tell(Arc::clone(&shared)));
        serve_until(bound, shared, stopped).await
    })
}

/// Says every second what the service accounts for: bytes of its caches, questions in flight.
async fn tell(shared: Arc<Shared>) {
    loop {
        println!("{} {}", shared.cache_bytes(), shared.in_flight());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The usual bounds, with a cache of so many MiB.
fn limits(cache: Option<u16>) -> Limits {
    let usual = Limits::default();
    Limits { cache_bytes: cache.map_or(usual.cache_bytes, |mib| usize::from(mib) << 20), ..usual }
}

/// The bench's prefix and upstream.
fn config(upstream: SocketAddr) -> io::Result<Config> {
    let policy = Policy {
        prefixes: vec![PREFIX.parse().map_err(|_| io::ErrorKind::InvalidInput)?],
        // The bench's names have addresses from everywhere.
        allow: vec!["0.0.0.0/0".parse().map_err(|_| io::ErrorKind::InvalidInput)?],
        ..Policy::default()
    };
    let dns64 = Settings { policy, ..Settings::default() };
    Ok(Config { dns64, upstream: vec![upstream.into()], ..Config::default() })
}

fn run(args: &Args) -> io::Result<bool> {
    // Everything on the loopback of a namespace that vanishes with us.
    unshare(CloneFlags::CLONE_NEWNET)?;
    if !Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success() {
        return Err(io::Error::other("ip link set lo up failed"));
    }
    let dir = std::env::temp_dir().join(format!("sampan-dns64-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let result = in_namespace(args, &dir);
    fs::remove_dir_all(&dir)?;
    let (text, report, passed) = result?;
    print!("{text}");
    if let Some(file) = &args.json {
        fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(passed)
}

/// The report for people and for programs, and whether every gate holds.
fn in_namespace(args: &Args, dir: &Path) -> io::Result<(String, serde_json::Value, bool)> {
    if let Some(campaign) = args.campaign {
        let length = Duration::try_from_secs_f64(args.minutes * 60.0).map_err(io::Error::other)?;
        let (report, passed) = campaign::attack(campaign, length, args.cache, dir)?;
        return Ok((serde_json::to_string_pretty(&report)? + "\n", report, passed));
    }
    let report = measure(args, dir)?;
    Ok((report.text(), serde_json::to_value(&report)?, report.passed()))
}

fn measure(args: &Args, dir: &Path) -> io::Result<Report> {
    let upstream = Authority::start((Ipv4Addr::LOCALHOST, 5301).into(), CLIENT_CPU)?;
    let servers = Peer::ALL
        .iter()
        .map(|peer| Server::start(*peer, upstream.addr, dir, SERVER_CPU))
        .collect::<io::Result<Vec<_>>>()?;
    let bench = Bench { upstream, servers, dir, seconds: args.seconds };
    let mut rows = Vec::new();
    // One test after the other, so that the names of one do not fill the caches of the next.
    for &test in &args.tests {
        let rounds = if test == Test::Rfc8219 { args.searches } else { args.rounds };
        // One more round than asked for: the first warms up and is thrown away.
        let first = u32::from(test == Test::Rfc8219);
        for round in first..=rounds {
            // The order turns with the rounds, so that nobody always comes after the same neighbour.
            for at in (0..bench.servers.len()).map(|at| (at + round as usize) % bench.servers.len()) {
                let server = &bench.servers[at];
                let row = match test {
                    Test::Cached => bench.cached(server)?,
                    Test::Uncached => bench.uncached(server, round)?,
                    Test::Latency => bench.latency(server, round)?,
                    Test::Rfc8219 => bench.rfc8219(server, round)?,
                };
                eprintln!("round {round} {row:?}");
                if round > 0 {
                    rows.push(Row { round, ..row });
                }
            }
        }
    }
    Ok(Report::new(args.rounds, args.seconds, rows, bench.servers.iter().map(Server::memory)))
}

struct Bench<'a> {
    upstream: Authority,
    servers: Vec<Server>,
    dir: &'a Path,
    seconds: u32,
}

impl Bench<'_> {
    /// The server learns the names, or is reminded of them after other tests, and is asked for nothing else.
    fn cached(&self, server: &Server) -> io::Result<Row> {
        let names: Vec<_> = (0..CACHED).map(|n| name(0, n)).collect();
        let mut good = 0;
        for _ in 0..10 {
            let seen = self.ask(server, &names, 2_000)?;
            good = seen.good;
            if good == seen.sent {
                break;
            }
        }
        if good != u64::from(CACHED) {
            let peer = server.peer.name();
            return Err(io::Error::other(format!("{peer}: {good} of {CACHED} answers are right when warm")));
        }
        let before = self.upstream.asked();
        let row = self.dnsperf(server, Test::Cached, 0, CACHED)?;
        let asked = (self.upstream.asked() - before) as f64;
        if asked > row.answers / 1_000.0 {
            return Err(io::Error::other(format!(
                "{} asked upstream {asked} times for cached names",
                server.peer.name()
            )));
        }
        Ok(Row { upstream_per_query: Some(asked / row.answers), ..row })
    }

    fn uncached(&self, server: &Server, round: u32) -> io::Result<Row> {
        let before = self.upstream.asked();
        // More names than can be asked: with one asked twice this would no longer be the uncached test.
        let row = self.dnsperf(server, Test::Uncached, 1_000 + round, UNCACHED * self.seconds)?;
        let asked = (self.upstream.asked() - before) as f64;
        if row.answers > f64::from(UNCACHED * self.seconds) {
            return Err(io::Error::other("dnsperf ran out of names"));
        }
        Ok(Row { upstream_per_query: Some(asked / row.answers), ..row })
    }

    fn dnsperf(&self, server: &Server, test: Test, series: u32, count: u32) -> io::Result<Row> {
        let file = self.dir.join("names");
        let mut text = String::new();
        for n in 0..count {
            text.push_str(&name(series, n));
            text.push_str(" AAAA\n");
        }
        fs::write(&file, text)?;
        let (user, system) = server.cpu()?;
        let rate = dnsperf(server.addr, &file, self.seconds, CLIENT_CPU)?;
        let (user_after, system_after) = server.cpu()?;
        let micros = |seconds: f64| seconds * 1e6 / rate.completed;
        Ok(Row {
            answers: rate.completed,
            lost: rate.lost,
            user_us: Some(micros(user_after - user)),
            cpu_us: Some(micros(user_after - user + system_after - system)),
            rate: Some(rate.per_second),
            ..Row::of(test, server.peer)
        })
    }

    fn latency(&self, server: &Server, round: u32) -> io::Result<Row> {
        self.upstream.set_delay(UPSTREAM_DELAY);
        let names: Vec<_> = (0..LOOKUPS).map(|n| name(2_000 + round, n)).collect();
        let seen = self.ask(server, &names, 20);
        self.upstream.set_delay(Duration::ZERO);
        let seen = seen?;
        Ok(Row {
            answers: seen.good as f64,
            lost: (seen.sent - seen.good) as f64,
            latency_ms: Some(seen.quantile(0.5) / 1e3),
            ..Row::of(Test::Latency, server.peer)
        })
    }

    /// Binary search for the highest rate without a loss (RFC 8219 §9.2), to within 2 %.
    fn rfc8219(&self, server: &Server, round: u32) -> io::Result<Row> {
        let (mut low, mut high) = (0, 64_000);
        let mut series = 3_000 + round * 100;
        while high - low > (low / 50).max(100) {
            let rate = (low + high) / 2;
            series += 1;
            let names: Vec<_> = (0..rate * self.seconds).map(|n| name(series, n)).collect();
            let seen = self.ask(server, &names, rate)?;
            let kept_pace = seen.took < Duration::from_secs(u64::from(self.seconds)).mul_f64(1.02);
            if seen.good == seen.sent && kept_pace {
                low = rate;
            } else {
                high = rate;
            }
        }
        Ok(Row { rate: Some(f64::from(low)), ..Row::of(Test::Rfc8219, server.peer) })
    }

    fn ask(&self, server: &Server, names: &[String], rate: u32) -> io::Result<Seen> {
        paced(server.addr, names, rate, prefix(), CLIENT_CPU)
    }
}

fn prefix() -> Ipv6Addr {
    PREFIX.split('/').next().unwrap().parse().unwrap()
}

/// Keeps the calling thread on a CPU.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}
