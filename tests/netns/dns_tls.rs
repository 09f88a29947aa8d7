//! DNS over TLS and HTTPS as `kdig` sees it, from the configuration keys to the certificate that changes while
//! everything runs; and what `sampan status` tells about questions.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sampan::lab::plan::{DNS_UPSTREAM, SERVER};
use serde_json::Value;

use crate::support::TestLab;

/// What the certificates are for.
const NAME: &str = "dns.tinh.example";

/// A laboratory whose gateway answers over TLS and HTTPS, with the files for it.
struct Secure {
    lab: TestLab,
    files: tempfile::TempDir,
}

impl Secure {
    fn up() -> Self {
        Self::with(|_| {})
    }

    /// With files that were changed before the gateway sees them.
    fn with(change: impl FnOnce(&Path)) -> Self {
        let files = open_dir();
        make(files.path());
        change(files.path());
        let lab = TestLab::with(|options| {
            let dir = files.path().display();
            options.config_extra = format!(
                "\n[dns64.tls]\ncertificate = \"{dir}/certificate.pem\"\nkey = \"{dir}/key.pem\"\n\
                 listen = [\"::\"]\nhttps = [\"[::]:443\", \"[::]:8443\"]\n"
            );
        });
        Self { lab, files }
    }

    fn dir(&self) -> PathBuf {
        self.files.path().to_path_buf()
    }

    /// What `kdig` prints for these words when it trusts this certificate alone.
    fn kdig(&self, authority: &Path, words: &[&str]) -> String {
        let server = format!("@{}", self.lab.plan().gateway6);
        let (ca, host) = (format!("+tls-ca={}", authority.display()), format!("+tls-hostname={NAME}"));
        let fixed = ["kdig", &server, "+timeout=5", "+retry=0", ca.as_str(), host.as_str()];
        let out = self.lab.try_on("client1", &[&fixed[..], words].concat());
        out.stdout + &out.stderr
    }

    /// Whether a new connection shows this certificate, over TLS and over HTTPS.
    fn shows(&self, authority: &Path) -> bool {
        let expected = self.lab.embed(SERVER).to_string();
        let answers = [&["+tls"][..], &["+https"]]
            .map(|how| self.kdig(authority, &[how, &["AAAA", "portal.tinh.example"]].concat()));
        let trusted = answers.each_ref().map(|answer| answer.contains(&expected));
        assert_eq!(trusted[0], trusted[1], "{answers:?}");
        trusted[0]
    }

    #[track_caller]
    fn soon_shows(&self, authority: &Path) {
        let begin = Instant::now();
        while !self.shows(authority) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{}", self.said());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The gateway's log.
    fn said(&self) -> String {
        fs::read_to_string(self.lab.dir().join("gateway.log")).unwrap()
    }

    /// The sockets that listen for streams, by the kernel's own numbers.
    fn listeners(&self) -> Vec<String> {
        let said = self.lab.on("gw", &["ss", "-Hltne"]);
        let inode =
            |line: &str| line.split_whitespace().find(|word| word.starts_with("ino:")).map(str::to_owned);
        let mut sockets: Vec<_> = said
            .lines()
            .filter(|line| [":853 ", ":443 ", ":8443 "].iter().any(|port| line.contains(port)))
            .filter_map(inode)
            .collect();
        sockets.sort_unstable();
        assert_eq!(sockets.len(), 3, "{said}");
        sockets
    }

    /// Writes the configuration anew.
    fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let file = self.lab.dir().join("sampan.toml");
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    }

    fn dns64(&self) -> Value {
        let status = self.lab.sampan(&["status", "--json"]).unwrap().check().unwrap();
        serde_json::from_str::<Value>(&status).unwrap()["dns64"].clone()
    }
}

/// A directory that any user may pass, as the one that the gateway becomes has to.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A certificate and its key, under names of their own and under those of the configuration.
fn make(dir: &Path) {
    let pair = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    fs::write(dir.join("certificate.pem"), pair.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
}

/// The certificate of now under a name that stays.
fn keep(dir: &Path, name: &str) -> PathBuf {
    fs::copy(dir.join("certificate.pem"), dir.join(name)).unwrap();
    dir.join(name)
}

#[test]
fn k48_a_certificate_changes_while_the_sockets_stay() {
    let secure = Secure::up();
    let dir = secure.dir();
    let first = keep(&dir, "first.pem");
    assert!(secure.shows(&first));
    let sockets = secure.listeners();

    // Renewed as programs do it: one file after the other, and nobody says anything.
    make(&dir);
    let second = keep(&dir, "second.pem");
    secure.soon_shows(&second);
    assert!(!secure.shows(&first));
    assert!(secure.said().contains("new certificate taken over"), "{}", secure.said());

    // By command, without waiting.
    make(&dir);
    let third = keep(&dir, "third.pem");
    let out = secure.lab.sampan(&["reload"]).unwrap().check().unwrap();
    assert!(out.contains("dns64.tls.certificate"), "{out}");
    assert!(secure.shows(&third) && !secure.shows(&second));

    // One that cannot be used: the old one stays, and one line says why. Asking for it says the same, with the place.
    fs::write(dir.join("certificate.pem"), "nonsense").unwrap();
    let refused = secure.lab.sampan(&["reload"]).unwrap();
    assert!(!refused.ok() && refused.stderr.contains("certificate-unusable"), "{}", refused.stderr);
    assert!(refused.stderr.contains("dns64.tls.certificate"), "{}", refused.stderr);
    let complaints = || secure.said().matches("the certificate stays as it is").count();
    let begin = Instant::now();
    while complaints() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", secure.said());
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(complaints(), 1, "{}", secure.said());
    assert!(secure.shows(&third));

    make(&dir);
    let fourth = keep(&dir, "fourth.pem");
    secure.soon_shows(&fourth);
    assert_eq!(secure.listeners(), sockets, "no socket was closed and opened again");
}

/// A key that the gateway may read only as long as it has root's powers: it works, and the log says at once that a new one
/// will not. When the operator has repaired that, nobody has to tell the gateway.
#[test]
fn a_key_that_cannot_be_read_again_is_told_before_it_matters() {
    let secure = Secure::with(|dir| {
        let key = dir.join("key.pem");
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        // Somebody else's, so that it makes no difference which user the gateway becomes.
        chown(&key, Some(65_534), Some(65_534)).unwrap();
    });
    let dir = secure.dir();
    assert!(secure.shows(&keep(&dir, "first.pem")));
    let said = secure.said();
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(complaints.len(), 1, "{said}");
    for word in ["Permission denied", "key.pem", "the certificate stays as it is", "chgrp sampan"] {
        assert!(complaints[0].contains(word), "{word}: {said}");
    }
    make(&dir);
    let second = keep(&dir, "second.pem");
    fs::set_permissions(dir.join("key.pem"), Permissions::from_mode(0o644)).unwrap();
    secure.soon_shows(&second);
}

/// RFC 7050 §3 over the transports that nobody between client and resolver can change (§4 of it asks for such a path).
#[test]
fn k25_k48_discovery_of_the_prefix_over_tls_and_https() {
    let secure = Secure::up();
    let certificate = secure.dir().join("certificate.pem");
    for how in [&["+tls"][..], &["+https"], &["+https", "-p", "8443"], &["+https", "+https-get"]] {
        let said = secure.kdig(&certificate, &[how, &["+short", "AAAA", "ipv4only.arpa"]].concat());
        let mut found: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        found.sort_unstable();
        let expected = [170, 171].map(|n| secure.lab.embed([192, 0, 0, n].into()).to_string());
        assert_eq!(found, expected, "{how:?}");
        let name = secure.kdig(&certificate, &[how, &["+short", "-x", &expected[0]]].concat());
        assert_eq!(name.trim(), "ipv4only.arpa.", "{how:?}");
    }
    let dns64 = secure.dns64();
    assert_eq!(dns64["tls"], serde_json::json!(["[::]:853"]));
    assert_eq!(dns64["https"], serde_json::json!(["[::]:443", "[::]:8443"]));
}

/// Questions count for the unit of who asked, by what became of them; names are kept only from when the operator says
/// so until the operator says no.
#[test]
fn questions_are_counted_by_unit_and_class_and_names_only_on_demand() {
    let secure = Secure::up();
    let before = secure.dns64();
    let ask = |name: &str| {
        let server = format!("@{}", secure.lab.plan().gateway6);
        secure.lab.on("client1", &["dig", &server, "+tries=1", "+time=8", "AAAA", name]);
    };
    // The second one comes from the cache; the lab allows no private destinations.
    for name in ["dual.tinh.example", "short.tinh.example", "short.tinh.example", "private.tinh.example"] {
        ask(name);
    }
    ask("portal.broken.example");
    ask("nothing.tinh.example");
    let after = secure.dns64();
    let grew = |row: usize, class: &str| {
        let of = |status: &Value| status["units"][row][class].as_u64().unwrap();
        of(&after) - of(&before)
    };
    assert_eq!(after["units"][0]["unit"], "Lab office");
    assert_eq!(
        ["native", "synthesised", "ipv4_only", "failed", "other"].map(|class| grew(0, class)),
        [1, 2, 1, 1, 1],
        "{after:#}"
    );
    assert_eq!(after["units"][1]["unit"], Value::Null);
    assert_eq!(after["names"], serde_json::json!([]));
    let page = secure.lab.sampan(&["status"]).unwrap().check().unwrap();
    assert!(page.contains("Lab office") && page.contains("SYNTHESISED"), "{page}");

    secure.rewrite(|text| text.replace("[dns64]\n", "[dns64]\ntop-names = 2\n"));
    secure.lab.sampan(&["reload"]).unwrap().check().unwrap();
    for name in ["Dual.tinh.example", "short.tinh.example", "SHORT.tinh.example", "short.tinh.example"] {
        ask(name);
    }
    assert_eq!(
        secure.dns64()["names"],
        serde_json::json!([
            { "class": "synthesised", "name": "short.tinh.example.", "count": 3 },
            { "class": "native", "name": "dual.tinh.example.", "count": 1 },
        ])
    );
    // A unit that comes has a row of its own, and the others keep theirs whatever the order in the file.
    secure.rewrite(|text| {
        let new = "[[unit]]\nname = \"New\"\nprefixes = [\"2001:db8:77::/64\"]\n\n[[unit]]\n";
        text.replace("top-names = 2\n", "").replacen("[[unit]]\n", new, 1)
    });
    secure.lab.sampan(&["reload"]).unwrap().check().unwrap();
    ask("only6.tinh.example");
    let last = secure.dns64();
    assert_eq!(last["names"], serde_json::json!([]));
    let names: Vec<_> = last["units"].as_array().unwrap().iter().map(|row| row["unit"].clone()).collect();
    assert_eq!(names, ["Lab office".into(), "New".into(), Value::Null]);
    assert_eq!(
        last["units"][0]["native"].as_u64().unwrap(),
        after["units"][0]["native"].as_u64().unwrap() + 2
    );
    assert_eq!(last["units"][1]["native"], 0);
}

/// A resolver behind TLS, and the file of authorities that the operator names: what counts is what the file holds at the
/// last reload.
#[test]
fn resolvers_are_believed_as_the_file_of_authorities_says_now() {
    let files = open_dir();
    let dir = files.path();
    make(dir);
    let mut lab = TestLab::up();
    let path = |name: &str| dir.join(name).display().to_string();
    let resolver = format!(
        "server:\n  directory: \"\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  do-daemonize: no\n  \
         use-syslog: no\n  interface: {DNS_UPSTREAM}@853\n  access-control: 0.0.0.0/0 allow\n  \
         module-config: \"iterator\"\n  tls-port: 853\n  tls-service-pem: \"{}\"\n  tls-service-key: \"{}\"\n  \
         domain-insecure: \"example.\"\n  local-zone: \"example.\" nodefault\n\
         remote-control:\n  control-enable: no\nstub-zone:\n  name: \"tinh.example.\"\n  stub-addr: {DNS_UPSTREAM}\n",
        path("certificate.pem"),
        path("key.pem"),
    );
    fs::write(path("unbound.conf"), resolver).unwrap();
    lab.start("server", "unbound", &["unbound", "-d", "-c", &path("unbound.conf")]);

    // At first an authority that has nothing to do with it.
    let other = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    fs::write(path("authorities.pem"), other.cert.pem()).unwrap();
    let file = lab.dir().join("sampan.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(
        &format!("upstream = [\"{DNS_UPSTREAM}:53\"]"),
        &format!(
            "upstream = [\"tls://{DNS_UPSTREAM}#{NAME}\"]\nupstream-ca = \"{}\"",
            path("authorities.pem")
        ),
    );
    fs::write(&file, text).unwrap();
    let out = lab.sampan(&["reload"]).unwrap().check().unwrap();
    assert!(out.contains("dns64.upstream-ca"), "{out}");
    let ask = |name: &str| {
        let server = format!("@{}", lab.plan().gateway6);
        lab.on("client1", &["dig", &server, "+tries=1", "+time=8", "AAAA", name])
    };
    assert!(ask("portal.tinh.example").contains("status: SERVFAIL"));

    // Another content under the same name; nothing in the configuration has changed.
    fs::copy(path("certificate.pem"), path("authorities.pem")).unwrap();
    let out = lab.sampan(&["reload"]).unwrap().check().unwrap();
    assert!(out.contains("dns64.upstream-ca"), "{out}");
    let expected = lab.embed(SERVER).to_string();
    let begin = Instant::now();
    // The failure is kept for five seconds.
    while !ask("portal.tinh.example").contains(&expected) {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", ask("portal.tinh.example"));
        std::thread::sleep(Duration::from_millis(500));
    }
    // A file without authorities is refused, and what was believed before still is.
    fs::write(path("authorities.pem"), "nobody").unwrap();
    let refused = lab.sampan(&["reload"]).unwrap();
    assert!(!refused.ok() && refused.stderr.contains("authorities-unusable"), "{}", refused.stderr);
    assert!(ask("short.tinh.example").contains(&expected));
}

/// The bounds of `[dns64.connections]` are those that clients meet.
#[test]
fn connections_are_bounded_as_configured() {
    let files = open_dir();
    make(files.path());
    let lab = TestLab::with(|options| {
        let dir = files.path().display();
        options.config_extra = format!(
            "\n[dns64.connections]\nper-client = 2\nidle = 4\nhandshake = 3\n\
             [dns64.tls]\ncertificate = \"{dir}/certificate.pem\"\nkey = \"{dir}/key.pem\"\nlisten = [\"::\"]\n"
        );
    });
    let gateway = lab.plan().gateway6;
    let connect =
        |port: u16| lab.node("client1").netns().run(|| TcpStream::connect((gateway, port))).unwrap().unwrap();
    let counter = |name: &str| {
        let status = lab.sampan(&["status", "--json"]).unwrap().check().unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        let counters = status["dns64"]["counters"].as_array().unwrap();
        counters.iter().find(|counter| counter["name"] == name).unwrap()["value"].as_u64().unwrap()
    };
    let is_closed = |mut stream: TcpStream, seconds: u64| {
        stream.set_read_timeout(Some(Duration::from_secs(seconds))).unwrap();
        match stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    };
    let plain = connect(53);
    let tls = connect(853);
    // Each port accepts by itself: only when both are in is it known who is the third.
    let begin = Instant::now();
    while counter("tcp_connections") < 2 {
        assert!(begin.elapsed() < Duration::from_secs(2), "neither refused nor served");
    }
    let too_many = connect(53);
    // The usual bounds are 10 s idle and 5 s for a handshake.
    assert!(is_closed(too_many, 2), "the third connection was served");
    assert!(is_closed(tls, 4), "a handshake that never came did not end");
    assert!(is_closed(plain, 3), "an idle connection stayed");
    assert_eq!((counter("tcp_refused"), counter("tls_failed")), (1, 1));
}
