//! The asking commands against a made-up gateway on a real socket.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use sampan::control::admin::{
    Backend, ByProtocol, Counter, Cursor, DnsName, DnsStatus, DnsUnit, DropRow, FastStatus, Health,
    HealthState, Page, Pool4Status, ReloadReport, Status, WorkerStatus, bind, serve,
};
use sampan::control::health::TranslatorHealth;
use sampan::control::plan::check;
use sampan::control::problem::Problem;
use sampan::nat64::settings::{BibRow, Protocol, RowFilter, SessionRow};
use serde_json::Value;
use tokio::sync::Notify;

use super::usage::{run, sampan};

/// Sessions of the made-up gateway; more than two of the largest pages.
const SESSIONS: u16 = 2_345;

/// What a reload shall find.
#[derive(Clone, Copy)]
enum File {
    Unchanged,
    Changed,
    Wrong,
}

struct Fake {
    file: File,
    stopped: Mutex<Option<bool>>,
    stop: Arc<Notify>,
}

fn session(i: u16) -> SessionRow {
    SessionRow {
        protocol: if i.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp },
        src6: Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, i / 10),
        src6_port: 40_000 + i,
        dst6: "2001:db8:64::cb00:7105".parse().unwrap(),
        src4: "198.51.100.7".parse().unwrap(),
        src4_port: 1_024 + i,
        dst4: "203.0.113.5".parse().unwrap(),
        dst4_port: 443,
        state: "established".into(),
        expires_s: 7_200,
        unit: (i < 20).then(|| "Sở Tài chính & Kế hoạch".to_owned()),
        worker: i % 2,
        path: sampan::nat64::ride::Path::Fast,
    }
}

fn matches(filter: &RowFilter, row: &SessionRow) -> bool {
    filter.addr6.is_none_or(|addr| [row.src6, row.dst6].contains(&addr))
        && filter.addr4.is_none_or(|addr| [row.src4, row.dst4].contains(&addr))
        && filter.port.is_none_or(|port| [row.src6_port, row.src4_port, row.dst4_port].contains(&port))
        && filter.protocol.is_none_or(|protocol| protocol == row.protocol)
        && filter.unit.as_ref().is_none_or(|unit| Some(unit) == row.unit.as_ref())
}

impl Backend for Fake {
    fn health(&self) -> TranslatorHealth {
        TranslatorHealth::default()
    }

    fn status(&self) -> Status {
        Status {
            version: "0.1.0".into(),
            uptime_s: 93_784,
            health: Health {
                state: HealthState::Degraded,
                reasons: vec!["an upstream does not answer".into()],
                reasons_vi: vec!["một máy chủ DNS không trả lời".into()],
            },
            translator: TranslatorHealth { since_s: 93_784, ..TranslatorHealth::default() },
            config: "/etc/sampan/sampan.toml".into(),
            tun: "nat64".into(),
            pool6: vec!["2001:db8:64::/96".into()],
            pool4: vec![Pool4Status {
                prefix: "198.51.100.0/28".into(),
                ports: "1024-65535".into(),
                mode: "routed".into(),
                blocks: 2_016,
                blocks_leased: 126,
            }],
            sessions: ByProtocol { tcp: 1_173, udp: 1_172, icmp: 0 },
            sessions_limit: 262_144,
            bib: ByProtocol { tcp: 1_173, udp: 1_172, icmp: 0 },
            subscribers: 235,
            subscribers_limit: 16_384,
            workers: vec![
                WorkerStatus {
                    worker: 0,
                    packets_in: 123_456,
                    translated: 123_000,
                    dropped: 456,
                    ..Default::default()
                },
                WorkerStatus { worker: 1, packets_in: 7, translated: 7, ..Default::default() },
            ],
            dns64: Some(DnsStatus {
                listen: vec!["[2001:db8:6::1]:53".into()],
                tls: vec!["[2001:db8:6::1]:853".into()],
                https: Vec::new(),
                upstream: vec!["203.0.113.53:53".into()],
                counters: ["queries", "answers", "refused"]
                    .into_iter()
                    .zip([99, 98, 0])
                    .map(|(name, value)| Counter { name: name.into(), value })
                    .collect(),
                units: vec![
                    DnsUnit {
                        unit: Some("Sở Tài chính & Kế hoạch".into()),
                        native: 51,
                        synthesised: 42,
                        ipv4_only: 3,
                        failed: 2,
                        other: 0,
                    },
                    DnsUnit { other: 1, ..DnsUnit::default() },
                ],
                names: vec![DnsName {
                    class: "synthesised".into(),
                    name: "portal.example.".into(),
                    count: 40,
                }],
            }),
            fastpath: FastStatus {
                on: true,
                inside: "eth1".into(),
                outside: "eth0".into(),
                flows: 2_345,
                flows_limit: 262_144,
                refused: 3,
                counters: [
                    ("segments_v6_to_v4", 1_000_000),
                    ("bytes_v6_to_v4", 64_000_000),
                    ("up_miss", 5_000),
                ]
                .into_iter()
                .map(|(name, value)| Counter { name: name.into(), value })
                .collect(),
                ..FastStatus::default()
            },
            siit: None,
        }
    }

    fn sessions(&self, filter: &RowFilter, cursor: Option<Cursor>, limit: usize) -> Page<SessionRow> {
        assert!((1..=1_000).contains(&limit), "pages are bounded by the server");
        let from = cursor.map_or(0, |cursor| u16::try_from(cursor.0).unwrap());
        let mut rows = (from..SESSIONS).filter(|i| matches(filter, &session(*i)));
        let page: Vec<u16> = rows.by_ref().take(limit).collect();
        let next = rows.next().map(|i| Cursor(i.into()));
        Page { rows: page.into_iter().map(session).collect(), next }
    }

    fn bib(&self, filter: &RowFilter, cursor: Option<Cursor>, limit: usize) -> Page<BibRow> {
        let page = self.sessions(filter, cursor, limit);
        let row = |s: SessionRow| BibRow {
            protocol: s.protocol,
            src6: s.src6,
            src6_port: s.src6_port,
            src4: s.src4,
            src4_port: s.src4_port,
            sessions: 1,
            is_static: false,
            unit: s.unit,
            worker: s.worker,
        };
        Page { rows: page.rows.into_iter().map(row).collect(), next: page.next }
    }

    fn drops(&self) -> Vec<DropRow> {
        let row =
            |name: &str, count, meaning: &str| DropRow { name: name.into(), count, meaning: meaning.into() };
        vec![
            row("no_bib", 456, "nobody has a mapping for this pool address and port"),
            row("hop_limit", 0, "hop limit or TTL used up"),
        ]
    }

    fn reload(&self) -> Result<ReloadReport, Vec<Problem>> {
        match self.file {
            File::Unchanged => Ok(ReloadReport::default()),
            File::Changed => Ok(ReloadReport {
                changed: vec!["unit".into(), "nat64.pool4".into()],
                warnings: check("[[nat64.pool4]]\nprefix = \"198.51.100.0/28\"").unwrap().warnings,
            }),
            File::Wrong => Err(check("[nat64]\npool4 = []").unwrap_err()),
        }
    }

    fn stop(&self, flush: bool) {
        *self.stopped.lock().unwrap() = Some(flush);
        self.stop.notify_one();
    }
}

/// A made-up gateway that runs until it is stopped or forgotten.
struct Gateway {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    fake: Arc<Fake>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    fn start(file: File) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let stop = Arc::new(Notify::new());
        let fake = Arc::new(Fake { file, stopped: Mutex::new(None), stop: stop.clone() });
        let listener = bind(&socket).unwrap();
        let backend = fake.clone();
        let thread = spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, backend, async move { stop.notified().await })).unwrap();
        });
        Self { _dir: dir, socket, fake, thread: Some(thread) }
    }

    fn ask(&self, args: &[&str]) -> (i32, String, String) {
        run(&[args, &["--socket", self.socket.to_str().unwrap()]].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.ask(&[args, &["--json"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        serde_json::from_str(&out).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.fake.stop.notify_one();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking());
    }
}

#[test]
fn status_fits_on_a_screen() {
    let gateway = Gateway::start(File::Unchanged);
    let (code, out, err) = gateway.ask(&["status"]);
    assert_eq!((code, err.as_str()), (0, ""));
    insta::assert_snapshot!("status", out);
    let (_, out, _) = gateway.ask(&["status", "--lang", "vi"]);
    insta::assert_snapshot!("status_vi", out);
    let json = gateway.json(&["status"]);
    assert_eq!(json["health"]["state"], "degraded");
    assert_eq!(json["workers"][0]["packets_in"], 123_456);
    assert_eq!(json["dns64"]["counters"][0]["name"], "queries");
    assert_eq!(json["dns64"]["units"][0]["synthesised"], 42);
    assert_eq!(json["dns64"]["units"][1]["unit"], Value::Null);
    assert_eq!(json["dns64"]["names"][0]["name"], "portal.example.");
}

#[test]
fn sessions_are_paged_without_the_operator_noticing() {
    let gateway = Gateway::start(File::Unchanged);
    let rows =
        |args: &[&str]| gateway.json(&[&["sessions"], args].concat())["rows"].as_array().unwrap().clone();
    assert_eq!(rows(&[]).len(), 50);
    assert_eq!(rows(&["--limit", "1500"]).len(), 1_500);
    let all = rows(&["--all"]);
    assert_eq!(all.len(), usize::from(SESSIONS));
    for (i, row) in all.iter().enumerate() {
        let row: SessionRow = serde_json::from_value(row.clone()).unwrap();
        assert_eq!(row, session(u16::try_from(i).unwrap()));
    }
    assert_eq!(gateway.json(&["sessions"])["more"], true);
    assert_eq!(gateway.json(&["sessions", "--all"])["more"], false);
    // A limit that ends exactly at the last row leaves nothing over.
    assert_eq!(gateway.json(&["sessions", "--limit", "2345"])["more"], false);
}

#[test]
fn filters_reach_the_gateway() {
    let gateway = Gateway::start(File::Unchanged);
    let count = |args: &[&str]| {
        gateway.json(&[&["sessions", "--all"], args].concat())["rows"].as_array().unwrap().len()
    };
    assert_eq!(count(&["--addr", "2001:db8:6::3"]), 10);
    assert_eq!(count(&["--addr", "203.0.113.5"]), usize::from(SESSIONS));
    assert_eq!(count(&["--addr", "203.0.113.6"]), 0);
    assert_eq!(count(&["--port", "40007"]), 1);
    assert_eq!(count(&["--protocol", "udp"]), 1_172);
    assert_eq!(count(&["--unit", "Sở Tài chính & Kế hoạch"]), 20);
    assert_eq!(count(&["--unit", "Sở Tài chính & Kế hoạch", "--protocol", "tcp", "--port", "443"]), 10);
    let bib = gateway.json(&["bib", "--addr", "198.51.100.7", "--port", "1030"]);
    assert_eq!(bib["rows"][0]["src6_port"], 40_006);
}

#[test]
fn tables_are_aligned() {
    let gateway = Gateway::start(File::Unchanged);
    let (code, out, err) = gateway.ask(&["sessions", "--limit", "2"]);
    assert_eq!((code, err.as_str()), (0, "there are more rows; --all shows them\n"));
    insta::assert_snapshot!("sessions", out);
    let (_, out, _) = gateway.ask(&["bib", "--limit", "2", "--lang", "vi"]);
    insta::assert_snapshot!("bib_vi", out);
    let (code, out, _) = gateway.ask(&["sessions", "--addr", "192.0.2.1"]);
    assert_eq!((code, out.as_str()), (0, "no such row\n"));
}

#[test]
fn drops_show_what_happened() {
    let gateway = Gateway::start(File::Unchanged);
    let (_, out, _) = gateway.ask(&["drops"]);
    insta::assert_snapshot!("drops", out);
    let (_, out, _) = gateway.ask(&["drops", "--all"]);
    assert!(out.contains("hop_limit"), "{out}");
    assert_eq!(gateway.json(&["drops"]).as_array().unwrap().len(), 1);
    assert_eq!(gateway.json(&["drops", "--all"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_reload_says_what_changed() {
    let unchanged = Gateway::start(File::Unchanged);
    assert_eq!(unchanged.ask(&["reload"]), (0, "nothing has changed\n".into(), String::new()));
    let changed = Gateway::start(File::Changed);
    let (code, out, err) = changed.ask(&["reload"]);
    assert_eq!((code, out.as_str()), (0, "taken over: unit, nat64.pool4\n"));
    assert!(err.contains("warning[no-units]"), "{err}");
    assert_eq!(changed.json(&["reload"])["changed"][1], "nat64.pool4");
}

#[test]
fn a_refused_reload_names_the_mistake_in_the_language_of_the_operator() {
    let gateway = Gateway::start(File::Wrong);
    let (code, out, err) = gateway.ask(&["reload", "--config", "/x.toml"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("/x.toml:2: error[empty]: nat64.pool4: the list is empty\n"), "{err}");
    let (code, _, err) = gateway.ask(&["reload", "--lang", "vi", "--config", "/x.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("danh sách rỗng"), "{err}");
    let (code, out, _) = gateway.ask(&["reload", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["problems"][0]["line"].as_u64()), (1, Some(2)));
}

#[test]
fn stop_waits_for_the_end_and_hands_on_the_wish() {
    for flush in [false, true] {
        let mut gateway = Gateway::start(File::Unchanged);
        let args: &[&str] = if flush { &["stop", "--flush"] } else { &["stop"] };
        assert_eq!(gateway.ask(args), (0, "stopped\n".into(), String::new()));
        assert_eq!(*gateway.fake.stopped.lock().unwrap(), Some(flush));
        gateway.thread.take().unwrap().join().unwrap();
        assert!(!gateway.socket.exists(), "the socket file is gone");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let gateway = Gateway::start(File::Unchanged);
    let command = sampan(&["sessions", "--all", "--socket", gateway.socket.to_str().unwrap()]);
    let mut child = std::process::Command::new(command.get_program())
        .args(command.get_args())
        .env("LC_ALL", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // The reader goes at the end of the statement, with most of the table unread.
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("PROTO"));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn wrong_requests_are_answered_in_json() {
    let gateway = Gateway::start(File::Unchanged);
    for (request, status) in [
        ("GET /v1/sessions?port=70000", "400"),
        ("GET /v1/sessions?colour=blue", "400"),
        ("GET /v1/sessions?cursor=x", "400"),
        ("GET /v1/nothing", "404"),
        ("GET /v1/stop", "405"),
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(&gateway.socket).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        if status != "405" {
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            let json: Value = serde_json::from_str(body).unwrap();
            assert!(!json["problems"][0]["message"].as_str().unwrap().is_empty());
        }
    }
    assert_eq!(*gateway.fake.stopped.lock().unwrap(), None);
}

/// Answers one connection with `answer`, which need not be HTTP.
fn odd_gateway(socket: &Path, answer: &'static str) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

#[test]
fn an_answer_that_makes_no_sense_is_one_error() {
    for answer in [
        "",
        "hello\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\nhelp",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let thread = odd_gateway(&socket, answer);
        let (code, out, err) = run(&["status", "--socket", socket.to_str().unwrap()]);
        thread.join().unwrap();
        assert_eq!((code, out.as_str()), (1, ""), "{answer:?}");
        assert!(err.starts_with("error[odd-answer]: ") && err.lines().count() == 2, "{answer:?}: {err}");
    }
}
