//! Sampan beside Debian's tayga, both stateless and with the same mappings: the same valid packets go into both, and
//! what comes out is compared field by field. Every kind of difference is explained in `docs/rfc/deviations.md`; one
//! that is not explained makes the test fail, and so does an explanation that nothing needs any more.
//!
//! Packets are put into the translators' TUN devices and taken from them by packet sockets, as the kernel would, so that
//! neither the kernel's own opinion of a packet nor its hop limits stand between. The kernel itself is told to drop
//! everything.
//!
//! Environment: `SAMPAN_TAYGA_PACKETS` how many (small, on every push), `SAMPAN_SEED` from where (1),
//! `SAMPAN_REPORT` a file for the figures; `tests/campaign tayga` sets them.

#[path = "../../support/campaign.rs"]
mod campaign;
mod errors;
mod explain;
mod generate;
#[path = "../../siit/packet.rs"]
#[allow(dead_code, reason = "the other target uses the rest of it")]
mod packet;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender};
use sampan::lab::netns::Netns;
use sampan::lab::tool::{Place, Tool, until};
use serde_json::json;

use self::explain::{Difference, EXPLANATIONS};
use self::generate::{Case, MAPS, MTU, OWN4, OWN6, PREFIX, cases};
use crate::support::SAMPAN;

/// Packets on every push.
const SMALL: usize = 8_000;
/// Packets between two comparisons.
const BATCH: usize = 500;
/// Length of the prefix.
const PREFIX_LEN: u8 = 96;
/// Both translators' device.
const DEVICE: &str = "nat64";
/// Begins the payload of the packets that show where one answer ends and the next begins.
const MARK: &[u8] = b"sampan beside tayga ";

#[test]
fn stateless_translation_is_that_of_tayga_but_for_known_differences() {
    let wanted = campaign::number("SAMPAN_TAYGA_PACKETS", SMALL as u64) as usize;
    let seed = campaign::number("SAMPAN_SEED", 1);
    let began = Instant::now();
    let mut pair = Pair::up();
    let mut cases = cases(seed);
    let mut tally = Tally::default();
    while tally.packets < wanted && tally.unexplained.len() < 100 {
        let batch: Vec<Case> = cases.by_ref().take(BATCH.min(wanted - tally.packets)).collect();
        let (ours, theirs) = pair.exchange(&batch);
        for ((case, ours), theirs) in batch.iter().zip(&ours).zip(&theirs) {
            tally.compare(case, ours, theirs);
        }
    }
    let idle: Vec<&str> =
        EXPLANATIONS.iter().map(|e| e.id).filter(|id| !tally.explained.contains_key(id)).collect();
    let report = json!({
        "packets": tally.packets,
        "seed": seed,
        "seconds": began.elapsed().as_secs_f64(),
        "translated_by_both": tally.by_both,
        "alike_but_for_hops": tally.alike,
        "classes": tally.classes,
        "explained": tally.explained,
        "explanations_not_needed": idle,
        "unexplained": tally.unexplained,
    });
    campaign::report(&format!("{report:#}"));
    assert!(tally.unexplained.is_empty(), "{}", tally.unexplained.join("\n"));
    assert!(idle.is_empty(), "explained differences that no longer occur: {idle:?}");
    // A comparison of nothing would find no difference either.
    assert!(tally.by_both * 2 > tally.packets, "both translated only {} of {}", tally.by_both, tally.packets);
}

#[test]
fn every_difference_from_tayga_is_in_the_book_and_nothing_else() {
    let book =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rfc/deviations.md")).unwrap();
    let titles: BTreeSet<&str> = book.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let wanted: Vec<String> = EXPLANATIONS.iter().map(|e| format!("{} {}", e.id, e.title)).collect();
    assert_eq!(titles, wanted.iter().map(String::as_str).collect());
}

/// The packets that come out for one packet.
type Answer = Vec<Vec<u8>>;

/// What was seen.
#[derive(Default)]
struct Tally {
    packets: usize,
    by_both: usize,
    alike: usize,
    classes: BTreeMap<&'static str, usize>,
    explained: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

impl Tally {
    fn compare(&mut self, case: &Case, ours: &[Vec<u8>], theirs: &[Vec<u8>]) {
        self.packets += 1;
        *self.classes.entry(case.class).or_default() += 1;
        let family = |packets: &[Vec<u8>]| packets.first().is_some_and(|p| p[0] >> 4 != case.bytes[0] >> 4);
        self.by_both += usize::from(family(ours) && family(theirs));
        let (seen, differences) = explain::differences(case, ours, theirs);
        // The first one is about every packet.
        let hops = |d: &Difference| (EXPLANATIONS[0].applies)(&seen, d);
        self.alike += usize::from(differences.iter().all(hops));
        let mut unknown = Vec::new();
        for difference in differences {
            match EXPLANATIONS.iter().find(|e| (e.applies)(&seen, &difference)) {
                Some(known) => *self.explained.entry(known.id).or_default() += 1,
                None => unknown.push(difference),
            }
        }
        if !unknown.is_empty() {
            let all = |packets: &[Vec<u8>]| {
                packets.iter().map(|p| format!("\n    {}", read::hex(p))).collect::<String>()
            };
            let lines: String = unknown
                .iter()
                .map(|Difference { packet, field, ours, theirs }| {
                    format!("\n  {field} of packet {packet}: ours {ours}, theirs {theirs}")
                })
                .collect();
            self.unexplained.push(format!(
                "packet {} ({}):{lines}\n  in\n    {}\n  ours{}\n  theirs{}",
                self.packets,
                case.class,
                read::hex(&case.bytes),
                all(ours),
                all(theirs)
            ));
        }
    }
}

/// Both translators, each in a namespace of its own.
struct Pair {
    _removal: Removal,
    ours: Translator,
    theirs: Translator,
    _files: tempfile::TempDir,
}

/// One translator and a packet socket on its device.
struct Translator {
    name: &'static str,
    send: Box<dyn DataLinkSender>,
    receive: Box<dyn DataLinkReceiver>,
    marks: u64,
    child: Child,
}

impl Pair {
    fn up() -> Self {
        let files = tempfile::tempdir().unwrap();
        let id = format!("tayga{}", std::process::id());
        // Whatever happens from here on, nothing stays.
        let removal = Removal(id.clone());
        let ours = Translator::up(&id, "ours", files.path(), |_| {
            fs::write(files.path().join("sampan.toml"), sampan_config(files.path())).unwrap();
            let config = files.path().join("sampan.toml").display().to_string();
            Tool::new(SAMPAN).args(["run", "--config", &config])
        });
        let theirs = Translator::up(&id, "theirs", files.path(), |place| {
            let config = files.path().join("tayga.conf").display().to_string();
            fs::write(&config, tayga_config()).unwrap();
            Tool::new("tayga").args(["-c", &config, "--mktun"]).at(place).run().unwrap().check().unwrap();
            let up = ["link", "set", DEVICE, "mtu", &MTU.to_string(), "up"];
            Tool::new("ip").args(up).at(place).run().unwrap().check().unwrap();
            Tool::new("tayga").args(["-c", &config, "--nodetach"])
        });
        Self { _removal: removal, ours, theirs, _files: files }
    }

    /// What each of them makes of each packet.
    fn exchange(&mut self, cases: &[Case]) -> (Vec<Answer>, Vec<Answer>) {
        let Self { ours, theirs, .. } = self;
        std::thread::scope(|scope| {
            let ours = scope.spawn(|| ours.exchange(cases));
            let theirs = scope.spawn(|| theirs.exchange(cases));
            (ours.join().unwrap(), theirs.join().unwrap())
        })
    }
}

/// Removes the namespaces and ends what lives there, also when only one of them came up.
struct Removal(String);

impl Drop for Removal {
    fn drop(&mut self) {
        if let Err(error) = sampan::lab::remove_by_id(&self.0) {
            eprintln!("could not remove {}: {error}", self.0);
        }
    }
}

impl Translator {
    fn up(id: &str, name: &'static str, files: &Path, set_up: impl FnOnce(&Place) -> Tool) -> Self {
        let netns = Netns::named(format!("sampan-{id}-{name}"));
        netns.create().unwrap();
        let place = Place { netns: Some(netns.clone()), files: Vec::new() };
        netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]).unwrap();
        // Packet sockets see what comes in before this does, and what they send does not pass here.
        let rules = "table inet mute { chain in { type filter hook prerouting priority -400; drop; }; \
                     chain out { type filter hook output priority -400; drop; }; }";
        Tool::new("nft").args([rules]).at(&place).run().unwrap().check().unwrap();
        let tool = set_up(&place);
        let log = files.join(format!("{name}.log"));
        let child = tool.at(&place).start(&log).unwrap();
        let device = || {
            let all = netns.run(pnet_datalink::interfaces).unwrap();
            all.into_iter()
                .find(|interface| interface.name == DEVICE && interface.is_up() && interface.is_running())
        };
        let there = until(Duration::from_secs(10), || device().is_some()).unwrap();
        assert!(there, "{name}: no device; {}", fs::read_to_string(&log).unwrap_or_default());
        let config = Config {
            read_buffer_size: 1 << 16,
            read_timeout: Some(Duration::from_millis(200)),
            promiscuous: false,
            ..Config::default()
        };
        let interface = device().unwrap();
        let channel = netns.run(|| pnet_datalink::channel(&interface, config)).unwrap().unwrap();
        let Channel::Ethernet(send, receive) = channel else { panic!("an unknown kind of channel") };
        let mut translator = Self { name, send, receive, marks: 0, child };
        // The device is there before anybody reads from it.
        let since = Instant::now();
        while translator.answer(&[]).is_none() {
            let log = || fs::read_to_string(&log).unwrap_or_default();
            assert!(since.elapsed() < Duration::from_secs(10), "{name} translates nothing; {}", log());
        }
        translator
    }

    fn exchange(&mut self, cases: &[Case]) -> Vec<Answer> {
        let mut out = Vec::with_capacity(cases.len());
        for case in cases {
            let Some(answer) = self.answer(&case.bytes) else {
                let (name, ended) = (self.name, self.child.try_wait());
                panic!("{name} is silent ({ended:?}) after {} {}", case.class, read::hex(&case.bytes));
            };
            out.push(answer);
        }
        out
    }

    /// What comes out for a packet: everything in front of a mark that is sent behind it. Both translators take one
    /// packet after the other.
    fn answer(&mut self, bytes: &[u8]) -> Option<Answer> {
        if !bytes.is_empty() {
            self.send.send_to(bytes, None).unwrap().unwrap();
        }
        self.marks += 1;
        let mark = [MARK, &self.marks.to_be_bytes()[..]].concat();
        let packet = packet::udp("203.0.113.254", "198.51.100.1", &mark);
        self.send.send_to(&packet.bytes(), None).unwrap().unwrap();
        let mut out = Vec::new();
        loop {
            let Ok(packet) = self.receive.next() else { return None };
            if packet.ends_with(&mark) && packet[0] >> 4 == 6 {
                return Some(out);
            }
            // Late marks of a start that took long are nobody's answer.
            if !packet.windows(MARK.len()).any(|window| window == MARK) {
                out.push(packet.to_vec());
            }
        }
    }
}

fn sampan_config(files: &Path) -> String {
    let mut text = format!(
        "[siit]\nprefix = \"{PREFIX}/{PREFIX_LEN}\"\nworkers = 1\nicmp6-pool4 = [\"{OWN4}\"]\nicmp6-source = \"{OWN6}\"\n\
         icmp-errors-per-second = 1000000\nmss-clamp = false\nmtu4 = {MTU}\nmtu6 = {MTU}\n\
         [admin]\nsocket = \"{}\"\n[tun]\nname = \"{DEVICE}\"\n[log]\nlevel = \"error\"\n",
        files.join("admin.sock").display()
    );
    for (ipv4, ipv6) in MAPS {
        text.push_str(&format!("[[siit.eam]]\nipv4 = \"{ipv4}\"\nipv6 = \"{ipv6}\"\n"));
    }
    for prefix in ["203.0.113.0/24", "192.0.2.0/24"] {
        text.push_str(&format!("[[siit.allow]]\nprefix = \"{prefix}\"\n"));
    }
    text
}

fn tayga_config() -> String {
    let mut text =
        format!("tun-device {DEVICE}\nipv4-addr {OWN4}\nipv6-addr {OWN6}\nprefix {PREFIX}/{PREFIX_LEN}\n");
    for (ipv4, ipv6) in MAPS {
        text.push_str(&format!("map {ipv4} {ipv6}\n"));
    }
    text
}
