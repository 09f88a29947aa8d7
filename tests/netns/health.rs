//! One state for the whole box: what breaks the translator turns DNS64, and mends by itself; a restart is no break.

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::TUN;
use serde_json::Value;

use crate::dns::dig;
use crate::support::{SAMPAN, TestLab};

/// A name that has been asked for, so that it is in the cache, and two that have not.
const KNOWN: &str = "portal.tinh.example";

/// A thread that does not run for as long as this lives.
struct Stalled(Pid);

impl Stalled {
    fn new(lab: &TestLab, thread: &str) -> Self {
        let tasks = format!("/proc/{}/task", lab.service_pid(GATEWAY).unwrap());
        let task = std::fs::read_dir(tasks).unwrap().flatten().find(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == thread)
        });
        let name = task.unwrap().file_name().into_string().unwrap();
        let pid = Pid::from_raw(name.parse().unwrap());
        ptrace::seize(pid, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(pid).unwrap();
        waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
        Self(pid)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

fn translator(lab: &TestLab) -> Value {
    let out = lab.sampan(&["status", "--json"]).unwrap();
    serde_json::from_str::<Value>(&out.stdout).unwrap()["translator"].clone()
}

/// Waits until the translator counts as up or down; what is said of it then.
#[track_caller]
fn becomes(lab: &TestLab, up: bool) -> Value {
    let begin = Instant::now();
    loop {
        let now = translator(lab);
        if now["up"] == up {
            return now;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "it should be {up}: {now}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The translator is down for this reason: nobody is given an address that leads nowhere.
#[track_caller]
fn is_down(lab: &TestLab, reason: &str, fresh: &str) {
    let state = becomes(lab, false);
    assert!(state["failing"].to_string().contains(reason), "{reason}: {state}");
    let stale = dig(lab, &["AAAA", KNOWN]);
    assert_eq!(stale.status, "NOERROR", "{}", stale.text);
    assert!(stale.records.iter().all(|(_, ttl, _, _)| *ttl <= 5), "{}", stale.text);
    let refused = dig(lab, &["AAAA", fresh]);
    assert_eq!((refused.status.as_str(), refused.records.len()), ("SERVFAIL", 0), "{}", refused.text);
    assert!(refused.text.contains("EDE: "), "{}", refused.text);
}

#[track_caller]
fn is_up(lab: &TestLab) {
    becomes(lab, true);
    for name in [KNOWN, "short.tinh.example"] {
        let answer = dig(lab, &["AAAA", name]);
        assert_eq!((answer.status.as_str(), answer.records.len()), ("NOERROR", 1), "{}", answer.text);
    }
}

#[test]
fn whatever_breaks_the_translator_turns_dns64_and_mends_by_itself() {
    let lab = TestLab::up();
    assert_eq!(dig(&lab, &["AAAA", KNOWN]).status, "NOERROR");
    let prefix = lab.options().pref64.to_string();
    let pool4 = lab.plan().pool4.clone();

    lab.on("gw", &["ip", "-6", "route", "del", &prefix, "dev", TUN]);
    is_down(&lab, "route of", "many.tinh.example");
    lab.on("gw", &["ip", "-6", "route", "add", &prefix, "dev", TUN]);
    is_up(&lab);

    lab.on("gw", &["ip", "link", "set", TUN, "down"]);
    is_down(&lab, "is not up", "chain.tinh.example");
    lab.on("gw", &["ip", "link", "set", TUN, "up"]);
    lab.on("gw", &["ip", "-6", "route", "add", &prefix, "dev", TUN]);
    lab.on("gw", &["ip", "route", "add", &pool4, "dev", TUN]);
    is_up(&lab);

    let stalled = Stalled::new(&lab, "worker-0");
    is_down(&lab, "worker 0 does not answer", "many.tinh.example");
    drop(stalled);
    is_up(&lab);

    let default = lab.on("gw", &["ip", "-4", "route", "show", "default"]);
    lab.on("gw", &["ip", "-4", "route", "del", "default"]);
    is_down(&lab, "no IPv4 route", "step.tinh.example");
    let words: Vec<_> = default.split_whitespace().collect();
    lab.on("gw", &[&["ip", "-4", "route", "add"], &words[..]].concat());
    is_up(&lab);

    assert_eq!(translator(&lab)["changes"], 8);
    let page = lab.sampan(&["status", "--lang", "vi"]).unwrap().stdout;
    assert!(page.contains("số lần đổi trạng thái: 8"), "{page}");
    // The test packets of all this time are in nobody's books.
    let status: Value = serde_json::from_str(&lab.sampan(&["status", "--json"]).unwrap().stdout).unwrap();
    assert_eq!(status["bib"], serde_json::json!({ "tcp": 0, "udp": 0, "icmp": 0 }));
    for worker in status["workers"].as_array().unwrap() {
        assert_eq!((&worker["translated"], &worker["out_translated"]), (&0.into(), &0.into()), "{worker}");
    }
}

#[test]
fn a_restart_is_no_failure() {
    let mut lab = TestLab::up();
    assert!(lab.sampan(&["stop"]).unwrap().ok());
    assert!(lab.wait_service(GATEWAY, Duration::from_secs(10)).unwrap());
    lab.restart_gateway().unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let state = translator(&lab);
        assert_eq!((&state["up"], &state["changes"]), (&true.into(), &0.into()), "{state}");
        thread::sleep(Duration::from_millis(300));
    }
}

/// The two halves as processes of their own.
struct Halves {
    lab: TestLab,
    socket: String,
}

impl Halves {
    fn up(extra: &str) -> Self {
        let lab = TestLab::with(|options| options.config_extra.push_str(extra));
        let socket = lab.dir().join("dns64.sock").display().to_string();
        let mut halves = Self { lab, socket };
        halves.stop_translator();
        halves.start("translator");
        halves.start("dns64");
        halves
    }

    fn start(&mut self, part: &str) {
        let config = self.lab.dir().join("sampan.toml").display().to_string();
        let name = if part == "translator" { GATEWAY } else { part };
        let socket = if part == "translator" { "admin.sock" } else { "dns64.sock" };
        let socket = self.lab.dir().join(socket);
        self.lab.start("gw", name, &[SAMPAN, "run", "--only", part, "--config", &config]);
        let begin = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "{part} does not start");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop_translator(&mut self) {
        let out = self.lab.sampan(&["stop"]).unwrap();
        assert!(out.ok(), "{}{}", out.stdout, out.stderr);
        assert!(self.lab.wait_service(GATEWAY, Duration::from_secs(10)).unwrap());
    }

    /// What the DNS64 has of the translator.
    fn dns64(&self) -> Value {
        let out = self.lab.on("gw", &[SAMPAN, "status", "--json", "--socket", &self.socket]);
        serde_json::from_str::<Value>(&out).unwrap()["translator"].clone()
    }

    #[track_caller]
    fn becomes(&self, up: bool) -> Value {
        let begin = Instant::now();
        loop {
            let now = self.dns64();
            if now["up"] == up {
                return now;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "it should be {up}: {now}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn a_dns64_of_its_own_goes_by_its_gateway_and_takes_no_restart_for_a_failure() {
    let mut halves = Halves::up("\n[health]\nrestart-grace = 8\n");
    let answer = dig(&halves.lab, &["AAAA", KNOWN]);
    assert_eq!((answer.status.as_str(), answer.records.len()), ("NOERROR", 1), "{}", answer.text);

    let prefix = halves.lab.options().pref64.to_string();
    halves.lab.on("gw", &["ip", "-6", "route", "del", &prefix, "dev", TUN]);
    let state = halves.becomes(false);
    assert!(state["failing"].to_string().contains("does not translate"), "{state}");
    assert_eq!(dig(&halves.lab, &["AAAA", "many.tinh.example"]).status, "SERVFAIL");
    halves.lab.on("gw", &["ip", "-6", "route", "add", &prefix, "dev", TUN]);
    halves.becomes(true);
    assert_eq!(dig(&halves.lab, &["AAAA", "many.tinh.example"]).status, "NOERROR");

    // A restart, a slow one.
    halves.stop_translator();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        assert_eq!(halves.dns64()["up"], true);
        thread::sleep(Duration::from_millis(300));
    }
    let warnings = halves.dns64()["warnings"].to_string();
    assert!(warnings.contains("does not answer on"), "{warnings}");
    halves.start("translator");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(halves.dns64()["changes"], 2);

    // One that does not come back.
    halves.stop_translator();
    let state = halves.becomes(false);
    assert!(state["failing"].to_string().contains("does not answer on"), "{state}");
    assert_eq!(dig(&halves.lab, &["AAAA", "chain.tinh.example"]).status, "SERVFAIL");
}

#[test]
fn a_dns64_without_any_gateway_is_not_down() {
    let lab = TestLab::with(|options| options.config_extra.push_str("\n[health]\nrestart-grace = 2\n"));
    let socket = lab.dir().join("dns64.sock").display().to_string();
    let mut halves = Halves { lab, socket };
    halves.stop_translator();
    halves.start("dns64");
    thread::sleep(Duration::from_secs(5));
    let state = halves.dns64();
    assert_eq!((&state["up"], &state["warnings"]), (&true.into(), &Value::Array(Vec::new())), "{state}");
    assert_eq!(dig(&halves.lab, &["AAAA", KNOWN]).status, "NOERROR");
}
