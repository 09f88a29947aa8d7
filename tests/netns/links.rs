//! Where the programs of the fast path stand: on the interface that has the addresses, and what comes with a tag is not its.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use pnet_datalink::{Channel, Config, MacAddr};
use sampan::lab::Host;
use sampan::lab::plan::{Plan, SERVER};

use crate::fastpath::{came_up, counter, lab, paths, talk};
use crate::packet::udp;
use crate::support::{SAMPAN, TestLab};

fn carried(lab: &TestLab) -> u64 {
    counter(lab, "segments_v6_to_v4") + counter(lab, "segments_v4_to_v6")
}

#[test]
fn flows_ride_over_a_bridge_that_has_the_addresses() {
    let mut lab = lab("mode = \"require\"");
    let config = lab.dir().join("sampan.toml").display().to_string();
    lab.on("gw", &[SAMPAN, "stop", "--flush", "--config", &config]);
    assert!(lab.wait_service("gateway", Duration::from_secs(10)).unwrap());
    let address = format!("{}/64", lab.plan().gateway6);
    for command in [
        "link add br0 type bridge",
        "address flush dev lan0 scope global",
        "link set lan0 master br0",
        "link set br0 up",
        &format!("address add {address} dev br0 nodad"),
    ] {
        let argv: Vec<_> = ["ip"].into_iter().chain(command.split(' ')).collect();
        lab.on("gw", &argv);
    }
    lab.restart_gateway().unwrap();
    let page = lab.sampan(&["status"]).unwrap().check().unwrap();
    assert!(page.contains("clients on br0, IPv4 on wan0"), "{page}");
    let (up, fast) = (came_up(&lab), carried(&lab));
    talk(&lab, 4321, 100);
    assert_eq!(paths(&lab, 4321), ["fast"]);
    assert_eq!((came_up(&lab) - up, carried(&lab) - fast), (3, 197));
}

/// A frame with a tag belongs to another network, whatever addresses it has.
#[test]
fn a_frame_with_a_tag_is_left_alone() {
    let lab = lab("mode = \"require\"");
    let server = lab.udp("server", (SERVER, 4321));
    let client = lab.udp("client1", (Plan::client6(1), 5000));
    let to = SocketAddr::new(lab.embed(SERVER).into(), 4321);
    let mut bytes = [0; 100];
    for _ in 0..3 {
        client.send_to(b"question", to).unwrap();
        let (_, from) = server.recv_from(&mut bytes).unwrap();
        server.send_to(b"answer", from).unwrap();
        client.recv_from(&mut bytes).unwrap();
    }
    assert_eq!(paths(&lab, 4321), ["fast"]);
    let packet = udp((Plan::client6(1), 5000).into(), to, b"by hand").bytes();
    let mut cable = Cable::of(&lab.node("client1"), mac(&lab, lab.plan().gateway6));
    let before = carried(&lab);

    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    cable.send(&[0x81, 0x00, 0x00, 0x05, 0x86, 0xdd], &packet);
    let nothing = server.recv_from(&mut bytes).unwrap_err().kind();
    assert!(matches!(nothing, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{nothing:?}");
    assert_eq!(carried(&lab), before);
    // It was the tag.
    cable.send(&[0x86, 0xdd], &packet);
    let (len, _) = server.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..len], carried(&lab)), (&b"by hand"[..], before + 1));
}

/// The gateway's Ethernet address, as the first client has learnt it.
fn mac(lab: &TestLab, gateway: Ipv6Addr) -> MacAddr {
    let neighbour = lab.on("client1", &["ip", "-6", "neigh", "show", &gateway.to_string()]);
    let address = neighbour.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    address.unwrap_or_else(|| panic!("{neighbour}")).parse().unwrap()
}

/// The client's end of its cable.
struct Cable {
    send: Box<dyn pnet_datalink::DataLinkSender>,
    from: MacAddr,
    to: MacAddr,
}

impl Cable {
    fn of(host: &Host, to: MacAddr) -> Self {
        let (channel, from) = host
            .netns()
            .run(|| {
                let all = pnet_datalink::interfaces();
                let interface = all.into_iter().find(|interface| interface.name == "eth0").unwrap();
                (pnet_datalink::channel(&interface, Config::default()).unwrap(), interface.mac.unwrap())
            })
            .unwrap();
        let Channel::Ethernet(send, _) = channel else { panic!("an unknown kind of channel") };
        Self { send, from, to }
    }

    /// What stands between addresses and packet, and the packet.
    fn send(&mut self, kind: &[u8], packet: &[u8]) {
        let frame = [&self.to.octets(), &self.from.octets(), kind, packet].concat();
        self.send.send_to(&frame, None).unwrap().unwrap();
    }
}
