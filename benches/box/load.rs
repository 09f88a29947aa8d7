//! The tests: what is sent, what counts as one unit of it, and what it cost.

use std::thread::sleep;
use std::time::Duration;

use sampan::lab::LabError;
use sampan::lab::tool::Output;
use serde::Serialize;
use serde_json::Value;

use crate::case::{Case, Cpu, Stand};
use crate::cpu::{Machine, Softirq};

/// Port of the iperf3 server that is measured.
const IPERF: &str = "5201";
/// More than this share lost or failed makes a measurement void.
const TOLERATED: f64 = 0.01;
/// A void or failed measurement is made again, so many times.
const TRIES: u32 = 3;
/// The search for the loss-free rate ends when it is this exact.
const EXACT: f64 = 0.03;
/// Where the search begins from above, packets a second; the sender does not reach it on the machines seen so far.
const CEILING: f64 = 1_000_000.0;
/// Seconds of a trial of the search, and of the one that confirms what it found.
const TRIAL: u32 = 1;
const LAST_TRIAL: u32 = 10;
/// The share of a rate that is tried next when it was not confirmed, and how often.
const LOWER: f64 = 0.9;
const LOWERED: u32 = 8;
/// A sender that makes less than this of what it was asked for is at its own limit.
const MADE: f64 = 0.97;

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// Bulk TCP, one stream, client to server
    Up,
    /// Bulk TCP, one stream, server to client
    Down,
    /// Closed loop of small UDP packets
    Echo,
    /// TCP connections: a byte each way, reset
    Connect,
    /// Bulk TCP, four streams, client to server
    Up4,
    /// Bulk TCP, four streams, server to client
    Down4,
    /// UDP super-packets, client to server
    GsoUp,
    /// UDP super-packets, server to client
    GsoDown,
    /// Like echo, on 8 flows, by the program that also makes the 100,000
    Few,
    /// Closed loop of small UDP packets spread over 100,000 flows
    Wide,
    /// One small UDP packet at a time: how long its round trip takes
    Latency,
    /// Highest one-way rate of small UDP packets without loss; in every third round only
    Rate,
}

/// How long round trips took, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// The shortest.
    pub min: f64,
    /// The middle one.
    pub p50: f64,
    /// 1 % are slower.
    pub p99: f64,
    /// 0.1 % are slower.
    pub p999: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Which test.
    pub test: Test,
    /// Which case.
    pub case: Case,
    /// In which round, from 0.
    pub round: u32,
    /// CPU time per unit, in microseconds: MB, packet or connection.
    pub cost: f64,
    /// Units a second.
    pub rate: f64,
    /// Units that arrived.
    pub units: f64,
    /// Units that did not, or retransmitted segments of bulk TCP.
    pub lost: u64,
    /// Of round trips, where they are timed.
    pub times: Option<Times>,
    /// Whether the sender could not make the rate that was asked for.
    pub sender_limited: bool,
    /// CPU time of each role, in seconds.
    pub cpu: Cpu,
    /// Share of the machine's CPU time that the host took meanwhile.
    pub steal: f64,
    /// How often it was tried before.
    pub repeated: u32,
}

/// What a program said it did.
#[derive(Default)]
struct Done {
    units: f64,
    seconds: f64,
    lost: u64,
    times: Option<Times>,
    sender_limited: bool,
}

impl Test {
    /// The base point.
    pub const BASE: [Self; 6] = [Self::Up, Self::Down, Self::Echo, Self::Connect, Self::Few, Self::Wide];
    /// Everything.
    pub const ALL: [Self; 12] = [
        Self::Up,
        Self::Down,
        Self::Echo,
        Self::Connect,
        Self::Few,
        Self::Wide,
        Self::Up4,
        Self::Down4,
        Self::GsoUp,
        Self::GsoDown,
        Self::Latency,
        Self::Rate,
    ];

    /// The name in options, tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Echo => "echo",
            Self::Connect => "connect",
            Self::Few => "few",
            Self::Wide => "wide",
            Self::Up4 => "up4",
            Self::Down4 => "down4",
            Self::GsoUp => "gso-up",
            Self::GsoDown => "gso-down",
            Self::Latency => "latency",
            Self::Rate => "rate",
        }
    }

    /// The name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "bulk TCP up",
            Self::Down => "bulk TCP down",
            Self::Echo => "small packets",
            Self::Connect => "new connections",
            Self::Few => "small packets, 8 flows of the many",
            Self::Wide => "small packets over 100,000 flows",
            Self::Up4 => "bulk TCP up, 4 streams",
            Self::Down4 => "bulk TCP down, 4 streams",
            Self::GsoUp => "UDP super-packets up",
            Self::GsoDown => "UDP super-packets down",
            Self::Latency => "one small packet at a time",
            Self::Rate => "loss-free rate",
        }
    }

    /// What one unit is.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Up | Self::Down | Self::Up4 | Self::Down4 | Self::GsoUp | Self::GsoDown => "MB",
            Self::Echo | Self::Few | Self::Wide | Self::Latency | Self::Rate => "packet",
            Self::Connect => "connection",
        }
    }

    /// Whether it is made on that case, in that round.
    pub fn fits(self, case: Case, round: u32) -> bool {
        match self {
            Self::Few => matches!(case, Case::Forward | Case::Fast | Case::Sampan),
            Self::Wide => case.takes_many(),
            Self::Rate => round.is_multiple_of(3),
            Self::Up
            | Self::Down
            | Self::Echo
            | Self::Connect
            | Self::Up4
            | Self::Down4
            | Self::GsoUp
            | Self::GsoDown
            | Self::Latency => true,
        }
    }

    /// Whether it is made for its CPU time.
    pub fn is_cost(self) -> bool {
        !matches!(self, Self::Latency | Self::Rate)
    }

    /// A rate for people.
    pub fn rate(self, per_second: f64) -> String {
        match self.unit() {
            "MB" => format!("{:.1} Gbit/s", per_second * 8.0 / 1e3),
            "packet" => format!("{:.0} kpps", per_second / 1e3),
            _ => format!("{:.1} k/s", per_second / 1e3),
        }
    }
}

/// Measures one test on one case. Nothing comes of it where a search finds nothing.
pub fn measure(
    test: Test,
    stand: &Stand,
    round: u32,
    seconds: u32,
    softirq: &Softirq,
) -> Result<Option<Sample>, LabError> {
    if test == Test::Connect {
        stand.renew_client(round)?;
    }
    let mut repeated = 0;
    loop {
        let result = if test == Test::Rate {
            search(stand, round, softirq)
        } else {
            once(test, stand, round, softirq, |stand| drive(test, stand, seconds)).map(Some)
        };
        match result {
            Ok(sample) => return Ok(sample.map(|sample| Sample { repeated, ..sample })),
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            Err(error) if repeated + 1 == TRIES => return Err(error),
            Err(error) => {
                eprintln!("{} of {}: {error}; once more", test.name(), stand.case.name());
                repeated += 1;
                sleep(Duration::from_millis(500));
            }
        }
    }
}

fn once(
    test: Test,
    stand: &Stand,
    round: u32,
    softirq: &Softirq,
    work: impl Fn(&Stand) -> Result<Done, LabError>,
) -> Result<Sample, LabError> {
    let machine = Machine::now()?;
    let before = stand.cpu(softirq)?;
    let done = work(stand)?;
    // The servers and the gateway finish what the client has left.
    sleep(Duration::from_millis(40));
    let cpu = stand.cpu(softirq)?.since(&before);
    let (_, steal) = Machine::now()?.shares_since(&machine);
    if done.units <= 0.0 {
        return Err(LabError::Step("nothing arrived".into()));
    }
    Ok(Sample {
        test,
        case: stand.case,
        round,
        cost: cpu.total() * 1e6 / done.units,
        rate: done.units / done.seconds.max(1e-9),
        units: done.units,
        lost: done.lost,
        times: done.times,
        sender_limited: done.sender_limited,
        cpu,
        steal,
        repeated: 0,
    })
}

fn drive(test: Test, stand: &Stand, seconds: u32) -> Result<Done, LabError> {
    let time = seconds.to_string();
    match test {
        Test::Up => bulk(stand, &["-t", &time]),
        Test::Down => bulk(stand, &["-t", &time, "-R"]),
        Test::Up4 => bulk(stand, &["-t", &time, "-P", "4"]),
        Test::Down4 => bulk(stand, &["-t", &time, "-P", "4", "-R"]),
        Test::Echo => round_trips(stand.blast("echo", &["--seconds", &time])?),
        Test::Few => round_trips(stand.spread(1, seconds)?),
        Test::Wide => round_trips(stand.spread(u32::MAX, seconds)?),
        Test::Latency => round_trips(stand.one_at_a_time(seconds)?),
        Test::Connect => {
            let said = json(stand.blast("connect", &["--seconds", &time])?.check()?)?;
            let (made, failed) = (number(&said, "/connections")?, number(&said, "/failed")?);
            let seconds = number(&said, "/seconds")?;
            tolerate(Done { units: made, seconds, lost: failed as u64, ..Done::default() })
        }
        Test::GsoUp => super_packets(stand, seconds, &[]),
        Test::GsoDown => super_packets(stand, seconds, &["--reverse"]),
        Test::Rate => offer(stand, CEILING, seconds),
    }
}

fn round_trips(output: Output) -> Result<Done, LabError> {
    let said = json(output.check()?)?;
    let (back, lost) = (number(&said, "/round_trips")?, number(&said, "/lost")?);
    let time = |at: &str| number(&said, at).ok();
    tolerate(Done {
        // Each came over the path twice.
        units: back * 2.0,
        seconds: number(&said, "/seconds")?,
        lost: lost as u64,
        times: time("/min_us")
            .zip(time("/p50_us"))
            .zip(time("/p99_us"))
            .zip(time("/p999_us"))
            .map(|(((min, p50), p99), p999)| Times { min, p50, p99, p999 }),
        sender_limited: false,
    })
}

fn bulk(stand: &Stand, how: &[&str]) -> Result<Done, LabError> {
    let said = iperf3(stand, how)?;
    Ok(Done {
        units: number(&said, "/end/sum_received/bytes")? / 1e6,
        seconds: number(&said, "/end/sum_received/seconds")?,
        lost: number(&said, "/end/sum_sent/retransmits").unwrap_or(0.0) as u64,
        ..Done::default()
    })
}

/// 36 KB each millisecond, which every case can carry.
fn super_packets(stand: &Stand, seconds: u32, direction: &[&str]) -> Result<Done, LabError> {
    let count = (seconds * 800).to_string();
    let load = ["--count", &count, "--batch", "30", "--segment", "1200", "--pause-us", "1000"];
    let output = stand.blast("gso", &[&load, direction].concat())?;
    let took = output.took;
    let said = json(output.check()?)?;
    let (sent, received) = (number(&said, "/sent")?, number(&said, "/received")?);
    for wrong in ["/wrong_length", "/damaged", "/doubled"] {
        if number(&said, wrong)? > 0.0 {
            return Err(LabError::Step(format!("super-packets arrived wrong: {said}")));
        }
    }
    let done = Done {
        units: received * 1200.0 / 1e6,
        seconds: took.as_secs_f64(),
        lost: (sent - received).max(0.0) as u64,
        ..Done::default()
    };
    if done.lost as f64 > sent * TOLERATED {
        return Err(LabError::Step(format!("{} of {sent} segments were lost", done.lost)));
    }
    Ok(done)
}

/// The throughput of RFC 2544 §26.1: the fastest rate at which all that is sent arrives, by halving. As §24 has it,
/// the search makes short trials, and a longer one decides; where that one loses something, the next lower rate is tried.
fn search(stand: &Stand, round: u32, softirq: &Softirq) -> Result<Option<Sample>, LabError> {
    let trial =
        |rate: f64, seconds| once(Test::Rate, stand, round, softirq, |stand| offer(stand, rate, seconds));
    let (mut good, mut bad) = (0.0, CEILING);
    while bad - good > bad * EXACT {
        let offered = f64::midpoint(good, bad);
        let sample = trial(offered, TRIAL)?;
        if sample.lost > 0 {
            bad = offered;
        } else if sample.sender_limited {
            // What the sender cannot make cannot be asked of the gateway.
            good = sample.rate;
            break;
        } else {
            good = offered;
        }
    }
    for _ in 0..LOWERED {
        let sample = trial(good, LAST_TRIAL)?;
        if sample.lost == 0 {
            return Ok(Some(sample));
        }
        good *= LOWER;
    }
    eprintln!("rate of {}: no rate came through without loss", stand.case.name());
    Ok(None)
}

fn offer(stand: &Stand, packets_per_second: f64, seconds: u32) -> Result<Done, LabError> {
    let (rate, seconds) = (format!("{packets_per_second:.0}"), seconds.to_string());
    let said = json(stand.blast("offer", &["--rate", &rate, "--seconds", &seconds])?.check()?)?;
    let (sent, received) = (number(&said, "/sent")?, number(&said, "/received")?);
    Ok(Done {
        units: received,
        seconds: number(&said, "/seconds")?,
        lost: (sent - received).max(0.0) as u64,
        times: None,
        sender_limited: number(&said, "/per_second")? < packets_per_second * MADE,
    })
}

fn iperf3(stand: &Stand, how: &[&str]) -> Result<Value, LabError> {
    let target = stand.target().to_string();
    let args = ["-J", "-i", "0", "-p", IPERF, "-c", &target];
    let args: Vec<_> = args.iter().chain(how).map(|word| (*word).to_owned()).collect();
    let output = stand.client_runs("iperf3", &args)?;
    let said = json(output.stdout)?;
    match said.get("error").and_then(Value::as_str) {
        Some(error) => Err(LabError::Step(format!("iperf3: {error}"))),
        None => Ok(said),
    }
}

fn tolerate(done: Done) -> Result<Done, LabError> {
    if done.lost as f64 > (done.units + done.lost as f64) * TOLERATED {
        return Err(LabError::Step(format!("{} lost or failed, {} not", done.lost, done.units)));
    }
    Ok(done)
}

fn json(text: String) -> Result<Value, LabError> {
    serde_json::from_str(&text).map_err(|error| {
        let shown: String = text.chars().take(200).collect();
        LabError::Step(format!("a traffic tool did not print JSON ({error}): {shown}"))
    })
}

fn number(from: &Value, at: &str) -> Result<f64, LabError> {
    from.pointer(at)
        .and_then(Value::as_f64)
        .ok_or_else(|| LabError::Step(format!("a traffic tool's report has no {at}")))
}

impl Cpu {
    fn since(&self, before: &Self) -> Self {
        Self {
            client: self.client - before.client,
            gateway: self.gateway - before.gateway,
            server: self.server - before.server,
            ksoftirqd: self.ksoftirqd - before.ksoftirqd,
        }
    }

    /// All roles together.
    pub fn total(&self) -> f64 {
        self.client + self.gateway + self.server + self.ksoftirqd
    }
}
