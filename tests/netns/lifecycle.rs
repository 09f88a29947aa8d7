//! A laboratory leaves nothing behind, however it ends, and says in one line why it cannot start.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sampan::lab::netns::{Netns, pids_in};
use sampan::lab::{Lab, LabError, Translator};
use serde_json::Value;

use crate::support::{SAMPAN, left_of, one_line, options};

/// Options that need no gateway software.
fn plain() -> sampan::lab::Options {
    let mut options = options();
    options.translator = Translator::Nothing;
    options
}

#[test]
fn down_leaves_nothing() {
    let lab = Lab::up(plain()).unwrap();
    let id = lab.options().id.clone();
    let namespaces = Netns::list(&format!("sampan-{id}-"));
    assert_eq!(namespaces.len(), lab.hosts().len());
    assert!(pids_in(&namespaces).len() >= 4, "nginx, NSD and two iperf3 should be there");
    assert!(!left_of(&id).is_empty());
    lab.down().unwrap();
    assert_eq!(left_of(&id), Vec::<String>::new());
}

#[test]
fn a_gateway_that_does_not_start_leaves_nothing_and_its_last_words_are_told() {
    let mut options = options();
    options.translator = Translator::Sampan;
    options.sampan = "/bin/false".into();
    let id = options.id.clone();
    let error = Lab::up(options).unwrap_err();
    assert!(one_line(&error).contains("gateway did not start"), "{error}");
    assert_eq!(left_of(&id), Vec::<String>::new());
}

#[test]
fn a_panic_leaves_nothing() {
    let options = plain();
    let id = options.id.clone();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _lab = Lab::up(options).unwrap();
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_eq!(left_of(&id), Vec::<String>::new());
}

#[test]
fn the_same_name_twice_is_refused_and_the_first_stays() {
    let options = plain();
    let lab = Lab::up(options.clone()).unwrap();
    let error = Lab::up(options).unwrap_err();
    assert!(matches!(error, LabError::AlreadyUp(_)), "{error}");
    assert!(one_line(&error).contains("sampan lab down"), "{error}");
    assert!(lab.host("server").unwrap().run(&["ip", "link"]).unwrap().ok());
}

#[test]
fn ctrl_c_and_sigterm_in_the_middle_of_the_demonstration_leave_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut demo, id) = start_demo();
        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        let status = wait(&mut demo, Duration::from_secs(15));
        assert_eq!(status, Some(130), "{signal}");
        assert_eq!(left_of(&id), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn what_a_killed_run_leaves_is_found_and_removed() {
    let (mut demo, id) = start_demo();
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(!left_of(&id).is_empty(), "SIGKILL gives no time to tidy up");

    let status: Value = serde_json::from_str(&text(&lab_command(&["status", "--json"]))).unwrap();
    let labs = status["labs"].as_array().unwrap();
    let row = labs.iter().find(|row| row["id"] == id.as_str()).expect("the left-over lab is listed");
    assert_eq!(row["state"], "left over");

    assert!(lab_command(&["down", "--id", &id]).status.success());
    assert_eq!(left_of(&id), Vec::<String>::new());
}

#[test]
fn up_exec_status_and_down_from_the_command_line() {
    let id = options().id;
    let up = lab_command(&["up", "--id", &id, "--translator", "nothing"]);
    assert!(up.status.success(), "{}", text(&up));
    let _guard = Guard(id.clone());
    assert!(text(&lab_command(&["status"])).contains(&id));

    let exec = lab_command(&["exec", "--id", &id, "client1", "ip", "-brief", "address"]);
    assert!(text(&exec).contains("2001:db8:6::11/64"), "{}", text(&exec));
    assert!(!text(&exec).contains("127.0.0.1"), "{}", text(&exec));
    let resolver = lab_command(&["exec", "--id", &id, "client2", "cat", "/etc/resolv.conf"]);
    assert!(text(&resolver).starts_with("nameserver 2001:db8:6::1\n"), "{}", text(&resolver));
    // The exit code is the command's own.
    let exit = lab_command(&["exec", "--id", &id, "server", "sh", "-c", "exit 7"]);
    assert_eq!(exit.status.code(), Some(7));
    let stranger = lab_command(&["exec", "--id", &id, "printer", "true"]);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(complaint(&stranger).contains("there are client1"), "{}", complaint(&stranger));

    let down = lab_command(&["down", "--id", &id]);
    assert!(down.status.success(), "{}", text(&down));
    assert_eq!(left_of(&id), Vec::<String>::new());
    assert!(!fs::exists(format!("/etc/netns/sampan-{id}-client1")).unwrap());
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let id = options().id;
    let as_nobody = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "/proc/self/fd/0", "lab", "up", "--id", &id])
        .stdin(fs::File::open(SAMPAN).unwrap())
        .output()
        .unwrap();
    assert!(complaint(&as_nobody).contains("needs root"), "{}", complaint(&as_nobody));

    let without_tun = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"])
        .args([SAMPAN, "lab", "up", "--id", &id])
        .output()
        .unwrap();
    assert!(complaint(&without_tun).contains("modprobe tun"), "{}", complaint(&without_tun));

    let bad_name = lab_command(&["up", "--id", "../../etc"]);
    assert!(complaint(&bad_name).contains("letters and digits"), "{}", complaint(&bad_name));
    let not_there = lab_command(&["down", "--id", &id]);
    assert!(complaint(&not_there).contains("is not up"), "{}", complaint(&not_there));
    assert_eq!(left_of(&id), Vec::<String>::new());
}

/// A demonstration that has built its network and is in its steps; without a gateway these take a while.
fn start_demo() -> (Child, String) {
    let demo = Command::new(SAMPAN)
        .args(["lab", "demo", "--translator", "nothing"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = format!("demo{}", demo.id());
    let server = format!("sampan-{id}-server");
    let began = Instant::now();
    // NSD and nginx run, so the steps have begun or are about to.
    while pids_in(&[Netns::named(&server)]).len() < 5 {
        assert!(began.elapsed() < Duration::from_secs(20), "the demonstration does not come up");
        thread::sleep(Duration::from_millis(10));
    }
    (demo, id)
}

fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn lab_command(args: &[&str]) -> Output {
    Command::new(SAMPAN).arg("lab").args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one line of a failed command.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert!(!said.is_empty() && !said.contains('\n'), "not one line: {said:?}");
    said
}

/// Takes a laboratory down when a test fails half-way.
struct Guard(String);

impl Drop for Guard {
    fn drop(&mut self) {
        if sampan::lab::state::dir(&self.0).exists() {
            let _ = sampan::lab::remove_by_id(&self.0);
        }
    }
}
