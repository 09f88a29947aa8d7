//! Help, wrong usage, languages, and the generated references.

use std::path::Path;

use assert_cmd::Command;

/// The binary in English, whatever the machine speaks.
pub fn sampan(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("sampan").unwrap();
    command.env("LC_ALL", "C").env_remove("LANG").args(args);
    command
}

/// Exit code, standard output, standard error.
pub fn run(args: &[&str]) -> (i32, String, String) {
    let output = sampan(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const COMMANDS: [&str; 8] = ["run", "check", "reload", "status", "sessions", "bib", "drops", "stop"];

#[test]
fn every_command_has_help_with_an_example_in_both_languages() {
    let (code, root, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in COMMANDS {
        assert!(root.contains(&format!("\n  {command} ")), "{command} in {root}");
        let (code, help, _) = run(&[command, "--help"]);
        assert_eq!(code, 0);
        let example = help.split("Example:\n").nth(1).unwrap();
        assert!(example.contains(&format!("sampan {command}")), "{help}");
        let (_, help, _) = run(&["--lang", "vi", command, "--help"]);
        assert!(help.contains("Ví dụ:") && help.contains("Tuỳ chọn:") && !help.contains("Options"), "{help}");
    }
}

/// Names under the heading `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let names =
        list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn commands_below_commands_have_help_too() {
    let found = commands(&run(&["--help"]).1);
    assert!(COMMANDS.iter().all(|command| found.iter().any(|name| name == command)), "{found:?}");
    for command in found {
        for below in commands(&run(&[&command, "--help"]).1) {
            let (code, help, err) = run(&[&command, &below, "--help"]);
            assert_eq!((code, err.as_str()), (0, ""), "{command} {below}");
            assert!(help.contains(&format!("sampan {command} {below}")), "{help}");
            let (code, _, err) = run(&[&command]);
            assert!(code == 64 && err.contains(&format!("\n  {below} ")), "{err}");
        }
    }
}

#[test]
fn version() {
    assert_eq!(run(&["--version"]), (0, format!("sampan {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

#[test]
fn wrong_usage_names_the_word_and_ends_64() {
    for (args, code, word) in [
        (&["statsu"][..], "unknown-command", "did you mean status?"),
        (&["status", "--jsn"], "unknown-flag", "did you mean --json?"),
        (&["sessions", "--addr", "example"], "bad-argument", "an IPv6 or IPv4 address"),
        (&["sessions", "--port", "70000"], "bad-argument", "a number from 0 to 65535"),
        (&["bib", "--protocol", "sctp"], "bad-argument", "one of tcp, udp, icmp"),
        (&["bib", "--limit", "0"], "bad-argument", "a number from 1"),
        (&["bib", "--limit", "3", "--all"], "wrong-usage", "--help"),
        (&["status", "extra"], "unknown-flag", "--help"),
    ] {
        let (exit, out, err) = run(args);
        assert_eq!((exit, out.as_str()), (64, ""), "{args:?}");
        assert!(err.starts_with(&format!("error[{code}]: ")) && err.contains(word), "{args:?}: {err}");
    }
    let (exit, out, err) = run(&[]);
    assert_eq!((exit, out.as_str()), (64, ""));
    assert!(err.contains("Usage: sampan"), "{err}");
}

#[test]
fn the_environment_chooses_the_language() {
    let output = sampan(&["statsu"]).env("LC_ALL", "vi_VN.UTF-8").output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("lỗi[unknown-command]: không có lệnh \"statsu\""), "{err}");
}

#[test]
fn without_a_gateway_there_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    for command in ["reload", "status", "sessions", "bib", "drops", "stop"] {
        let (code, out, err) = run(&[command, "--socket", socket]);
        assert_eq!((code, out.as_str()), (2, ""), "{command}");
        assert_eq!(err.lines().count(), 2, "{err}");
        assert!(
            err.starts_with("error[no-gateway]: no gateway answers on ") && err.contains(socket),
            "{err}"
        );
        assert!(err.contains("\n  remedy: "), "{err}");
    }
}

#[test]
fn the_socket_comes_from_the_configuration_even_when_that_is_broken_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (config, socket) = (dir.path().join("sampan.toml"), dir.path().join("here.sock"));
    std::fs::write(&config, format!("colour = 1\n[admin]\nsocket = {socket:?}\n")).unwrap();
    let (code, _, err) = run(&["status", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(err.contains("here.sock"), "{err}");
}

/// Compares a generated page, or writes it when `UPDATE_DOCS` is set.
fn current(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == text, "{page} is out of date: UPDATE_DOCS=1 cargo test --test cli reference");
}

#[test]
fn reference_of_the_configuration_is_current() {
    current("docs/reference/config.md", &sampan::control::config::reference());
}

#[test]
fn reference_of_the_commands_is_current() {
    current("docs/reference/cli.md", &sampan::cli::reference());
}
