//! Our router advertisements as a client's kernel and our own reader see them.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use sampan::io::ra::Opened;
use sampan::lab::gateway::GATEWAY;
use sampan::lab::plan::{GW_INSIDE, TUN};
use sampan::wire::nd::{ALL_NODES, ALL_ROUTERS, Advertisement};

use crate::support::TestLab;

const CLIENT: &str = "client1";
const DEVICE: &str = "eth0";
/// Intervals of 600 s: 1800 s are 0x0708 in units of eight seconds before the code of /96.
const LIFETIME: [u8; 2] = [7, 8];

fn lab(more: &str) -> TestLab {
    let lab = TestLab::with(|options| {
        options.config_extra.push_str(&format!("\n[ra]\ninterfaces = [\"{GW_INSIDE}\"]\n{more}"));
    });
    for (key, value) in [("forwarding", "0"), ("accept_ra", "1")] {
        lab.on(CLIENT, &["sysctl", "-qw", &format!("net.ipv6.conf.{DEVICE}.{key}={value}")]);
    }
    lab
}

/// What the client's kernel tells of options in router advertisements (RTM_NEWNDUSEROPT).
struct UserOptions(OwnedFd);

impl UserOptions {
    fn listen(lab: &TestLab) -> Self {
        /// RTNLGRP_ND_USEROPT.
        const GROUP: u32 = 1 << (20 - 1);
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket =
                socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute).unwrap();
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP)).unwrap();
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000)).unwrap();
            socket
        };
        Self(lab.node(CLIENT).netns().run(open).unwrap())
    }

    /// The next option as it was in the advertisement.
    fn next(&self) -> Option<Vec<u8>> {
        const RTM_NEWNDUSEROPT: u16 = 68;
        let mut bytes = [0; 4096];
        let len = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()).ok()?;
        // struct nlmsghdr, struct nduseroptmsg, the option.
        assert!(len > 32 && u16::from_ne_bytes([bytes[4], bytes[5]]) == RTM_NEWNDUSEROPT);
        let option = usize::from(u16::from_ne_bytes([bytes[18], bytes[19]]));
        assert_eq!(bytes[24..26], [134, 0], "of an advertisement");
        Some(bytes[32..32 + option].to_vec())
    }

    /// Waits for an option that begins like this.
    #[track_caller]
    fn expect(&self, begins: &[u8]) -> Vec<u8> {
        let begin = Instant::now();
        let mut seen = Vec::new();
        while begin.elapsed() < Duration::from_secs(20) {
            match self.next() {
                Some(option) if option.starts_with(begins) => return option,
                Some(option) => seen.push(option),
                None => {}
            }
        }
        panic!("no option that begins with {begins:02x?}, but {seen:02x?}");
    }

    /// Everything that comes within a time.
    fn during(&self, time: Duration) -> Vec<Vec<u8>> {
        let begin = Instant::now();
        let mut seen = Vec::new();
        while begin.elapsed() < time {
            seen.extend(self.next());
        }
        seen
    }
}

/// Sends Router Solicitations from a client, with these bytes behind the type.
fn solicit(lab: &TestLab, times: usize, rest: &[u8], hops: i32) {
    let send = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6).unwrap();
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &hops).unwrap();
        let index = nix::net::if_::if_nametoindex(DEVICE).unwrap();
        let to = SockaddrIn6::from(SocketAddrV6::new(ALL_ROUTERS, 0, 0, index));
        let message = [&[133], rest].concat();
        for _ in 0..times {
            sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty()).unwrap();
        }
    };
    lab.node(CLIENT).netns().run(send).unwrap();
}

const SOUND: [u8; 7] = [0; 7];

fn stop(lab: &mut TestLab, how: &[&str]) {
    let stopped = lab.sampan(&[&["stop"], how].concat()).unwrap();
    assert!(stopped.ok(), "{}{}", stopped.stdout, stopped.stderr);
    assert!(lab.wait_service(GATEWAY, Duration::from_secs(10)).unwrap());
}

/// A PREF64 option for the laboratory's prefix (RFC 8781 §4).
fn pref64(lifetime: [u8; 2]) -> Vec<u8> {
    let prefix: Ipv6Addr = "2001:db8:64::".parse().unwrap();
    [&[38, 2], &lifetime[..], &prefix.octets()[..12]].concat()
}

#[test]
fn l01_l10_l11_a_client_learns_prefix_and_resolver_and_they_are_taken_back() {
    let mut lab = lab("dns = [\"2001:db8:6::1\"]\n");
    let options = UserOptions::listen(&lab);
    solicit(&lab, 1, &SOUND, 255);
    let resolver: Ipv6Addr = "2001:db8:6::1".parse().unwrap();
    let rdnss = |lifetime: u32| [&[25, 3, 0, 0], &lifetime.to_be_bytes()[..], &resolver.octets()].concat();
    assert_eq!(options.expect(&[25]), rdnss(1800));
    assert_eq!(options.expect(&[38]), pref64(LIFETIME));

    // The translator is down: its prefix is taken back at once, the resolver stays.
    let prefix = lab.options().pref64.to_string();
    lab.on("gw", &["ip", "-6", "route", "del", &prefix, "dev", TUN]);
    assert_eq!(options.expect(&[38, 2, 0, 0]), pref64([0, 0]));
    lab.on("gw", &["ip", "-6", "route", "add", &prefix, "dev", TUN]);
    assert_eq!(options.expect(&[38, 2, 7]), pref64(LIFETIME));

    // A restart takes nothing back.
    stop(&mut lab, &[]);
    lab.restart_gateway().unwrap();
    let seen = options.during(Duration::from_secs(3));
    assert!(seen.contains(&pref64(LIFETIME)), "{seen:02x?}");
    assert!(seen.iter().all(|option| *option == rdnss(1800) || *option == pref64(LIFETIME)), "{seen:02x?}");

    stop(&mut lab, &["--flush"]);
    assert_eq!(options.expect(&[25, 3, 0, 0, 0, 0, 0, 0]), rdnss(0));
    assert_eq!(options.expect(&[38, 2, 0, 0]), pref64([0, 0]));
}

#[test]
fn l08_l11_our_own_reader_takes_it_and_solicitations_are_answered_at_their_pace() {
    let lab = lab("");
    let opened = lab.node(CLIENT).netns().run(|| Opened::new(DEVICE)).unwrap().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let socket = opened.start().unwrap();
    let hear = |time: Duration| {
        let begin = Instant::now();
        let mut heard = Vec::new();
        while let Some(left) = time.checked_sub(begin.elapsed()) {
            let next = runtime.block_on(async { tokio::time::timeout(left, socket.hear()).await });
            let Ok(next) = next else { break };
            let next = next.unwrap();
            if next.bytes.first() == Some(&134) {
                let read = Advertisement::read(&next.bytes, next.src, next.hop_limit);
                heard.push(read.unwrap_or_else(|| panic!("RFC 4861 §6.1.2: {next:?}")));
            }
        }
        heard
    };
    // The first three come within 32 s, whoever asks; what is asked within 3 s of one is answered together.
    solicit(&lab, 200, &SOUND, 255);
    let answers = hear(Duration::from_secs(6));
    assert!((1..=3).contains(&answers.len()), "{}", answers.len());
    for answer in &answers {
        let told: Vec<_> = answer.pref64.iter().map(|(prefix, time)| (prefix.to_string(), *time)).collect();
        assert_eq!(told, [(lab.options().pref64.to_string(), 1800)]);
        assert_eq!((answer.router_lifetime, answer.managed, answer.other), (0, false, false));
        let link = lab.on("gw", &["ip", "-o", "link", "show", GW_INSIDE]);
        let ours: Vec<_> = answer.link_layer.unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert!(link.contains(&format!("link/ether {}", ours.join(":"))), "{ours:?} {link}");
    }

    // What is not sound is answered as if nobody had asked. First the three initial ones have to be over.
    hear(Duration::from_secs(34));
    for (rest, hops) in
        [(&SOUND[..], 64), (&[1, 0, 0, 0, 0, 0, 0], 255), (&[0; 3], 255), (&[0, 0, 0, 0, 0, 0, 0, 9, 0], 255)]
    {
        solicit(&lab, 5, rest, hops);
    }
    assert_eq!(hear(Duration::from_secs(5)), []);
    solicit(&lab, 1, &SOUND, 255);
    assert_eq!(hear(Duration::from_secs(2)).len(), 1);

    // RFC 8781 §5.2: a router that says something else is reported, once.
    let other =
        Advertisement { pref64: vec![("64:ff9b::/96".parse().unwrap(), 600)], ..Advertisement::default() };
    let send = || {
        let source = socket.identity().unwrap().link_local;
        for _ in 0..3 {
            socket.send(source, &other.write(source, ALL_NODES)).unwrap();
        }
    };
    lab.node(CLIENT).netns().run(send).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let log = std::fs::read_to_string(lab.dir().join("gateway.log")).unwrap();
    let told = log.lines().filter(|line| line.contains("other translation prefixes")).count();
    assert_eq!(told, 1, "L-08\n{log}");
}
