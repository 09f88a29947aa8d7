//! Where the two differ, and why that is known. `docs/rfc/deviations.md` says the same in full.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::generate::{Case, OWN4, ROUTER6};
use super::read::{fields, hex, kind};

type Fields = BTreeMap<String, String>;

/// One packet and what came out for it.
pub struct Seen {
    class: &'static str,
    /// Whether it goes from IPv4 to IPv6.
    to6: bool,
    input: Fields,
    ours: Vec<Fields>,
    theirs: Vec<Fields>,
}

impl Seen {
    /// What each of them made of it, as far as that packet is there.
    fn both(&self, d: &Difference) -> [&Fields; 2] {
        static NONE: Fields = Fields::new();
        [&self.ours, &self.theirs].map(|packets| packets.get(d.packet).unwrap_or(&NONE))
    }
}

/// One field that differs, or the whole outcome.
pub struct Difference {
    /// Of which packet that came out, from 0.
    pub packet: usize,
    /// The field's name, or `outcome`.
    pub field: String,
    pub ours: String,
    pub theirs: String,
}

/// A difference that is known.
pub struct Explanation {
    pub id: &'static str,
    /// The title in the book.
    pub title: &'static str,
    pub applies: fn(&Seen, &Difference) -> bool,
}

/// Nothing came out.
const NOTHING: &str = "nothing";

/// The first one that applies counts.
pub const EXPLANATIONS: [Explanation; 26] = [
    Explanation { id: "T-01", title: "How many hops the gateway is", applies: hops },
    Explanation {
        id: "T-02",
        title: "When DF is set",
        applies: |seen, d| {
            let length = seen.both(d)[0].number(&d.field.replace("df", "length")).unwrap_or(0);
            !seen.to6
                && matches!(d.field.as_str(), "df" | "quote df")
                && !seen.input.contains_key(&d.field.replace("df", "place"))
                && match d.ours.as_str() {
                    "0" => length <= 1260,
                    // Tayga has heard of a narrow path to that host, and counts differently.
                    _ => (1261..=1300).contains(&length),
                }
        },
    },
    Explanation {
        id: "T-03",
        title: "Identification of packets that were no fragments",
        applies: |seen, d| {
            let own = seen.both(d)[0].is("source", &address(OWN4));
            let across = !seen.to6 && !seen.input.contains_key("place");
            d.field == "identification" && (across || (own && d.theirs == "0"))
        },
    },
    Explanation {
        id: "T-04",
        title: "Precedence of ICMP errors of our own",
        applies: |seen, d| {
            let own = seen.both(d)[0].is("source", &address(OWN4));
            own && d.field == "traffic class" && (d.ours.as_str(), d.theirs.as_str()) == ("192", "0")
        },
    },
    Explanation {
        id: "T-05",
        title: "Routing headers with segments left",
        applies: |seen, d| {
            let left = seen.input.get("extension 43").is_some_and(|body| &body[4..6] != "00");
            // Nothing is said about ICMP.
            let told = if seen.input.contains_key("icmp type") { NOTHING } else { "IPv6 error 4/0" };
            left && d.is_outcome(told, "IPv4")
        },
    },
    Explanation {
        id: "T-06",
        title: "Source routes that are not used up",
        applies: |seen, d| seen.class == "source route" && d.is_outcome("IPv4 error 3/5", "IPv6"),
    },
    Explanation {
        id: "T-07",
        title: "Extension headers behind a Fragment Header",
        applies: |seen, d| {
            seen.class == "extension header behind fragment header" && d.is_outcome(NOTHING, "IPv4")
        },
    },
    Explanation {
        id: "T-08",
        title: "IPv6 nodes that call each other by IPv4 address",
        applies: |seen, d| {
            seen.class == "two mapped nodes"
                && (d.is_outcome("IPv6", "IPv6 error 1/0") || d.is_outcome("IPv6", NOTHING))
        },
    },
    Explanation {
        id: "T-09",
        title: "What the sender is told about addresses without a mapping",
        applies: |seen, d| {
            seen.class == "odd address"
                && (d.is_outcome("IPv6 error 1/1", "IPv6 error 1/0")
                    || d.is_outcome("IPv6 error 1/1", "IPv6 error 1/5"))
        },
    },
    Explanation {
        id: "T-10",
        title: "UDP without a checksum is told",
        applies: |seen, d| seen.input.is("checksum", "none") && d.is_outcome("IPv4 error 3/13", NOTHING),
    },
    Explanation {
        id: "T-11",
        title: "Parameter Problem",
        applies: |seen, d| {
            let (kind, code, becomes) = if seen.to6 {
                ("12", &["0", "2"][..], "IPv6 error 4/0")
            } else {
                ("4", &["0"][..], "IPv4 error 12/0")
            };
            seen.input.is("icmp type", kind)
                && code.iter().any(|code| seen.input.is("icmp code", code))
                && d.is_outcome(becomes, NOTHING)
        },
    },
    Explanation {
        id: "T-12",
        title: "Address unreachable",
        applies: |seen, d| {
            !seen.to6
                && seen.input.is("icmp type", "1")
                && seen.input.is("icmp code", "3")
                && d.is_outcome("IPv4 error 3/1", NOTHING)
        },
    },
    Explanation {
        id: "T-13",
        title: "Errors about echo replies",
        applies: |seen, d| {
            seen.input.is("quote icmp type", if seen.to6 { "0" } else { "129" })
                && d.ours != NOTHING
                && d.is_outcome(&d.ours, NOTHING)
        },
    },
    Explanation {
        id: "T-14",
        title: "Quotes that end inside of a TCP header or of a fragment",
        applies: |seen, d| {
            let len = seen.input.number("quote data length").unwrap_or(0);
            let tcp = seen.input.is("quote protocol", "6") && !seen.input.contains_key("quote tcp header");
            let piece = seen.input.get("quote place").is_some_and(|place| place.ends_with("more true"));
            ((tcp && len < 20) || (piece && len % 8 != 0))
                && d.ours != NOTHING
                && d.is_outcome(&d.ours, NOTHING)
        },
    },
    Explanation {
        id: "T-15",
        title: "Routers without an IPv4 address",
        applies: |seen, d| {
            let known = [("1", "0"), ("1", "2"), ("2", "0")]
                .iter()
                .any(|(kind, code)| seen.input.is("icmp type", kind) && seen.input.is("icmp code", code));
            seen.input.is("source", &address(ROUTER6))
                && !known
                && d.ours.starts_with("IPv4 error")
                && d.is_outcome(&d.ours, NOTHING)
        },
    },
    Explanation {
        id: "T-16",
        title: "The real address of a router without an IPv4 address",
        applies: |seen, d| {
            let [ours, theirs] = seen.both(d);
            seen.input.is("source", &address(ROUTER6))
                && ours.get("icmp extension").is_some_and(|object| object.contains(&address(ROUTER6)))
                && theirs.is("icmp extension", "")
                && EXTENDED.contains(&d.field.as_str())
        },
    },
    Explanation {
        id: "T-17",
        title: "RFC 4884 extensions",
        applies: |seen, d| {
            let [ours, theirs] = seen.both(d);
            let extension = seen.input.get("icmp extension").map_or("", String::as_str);
            !extension.is_empty()
                && ours.is("icmp extension", extension)
                && theirs.is("icmp extension", "")
                && EXTENDED.contains(&d.field.as_str())
        },
    },
    Explanation {
        id: "T-18",
        title: "Quoted fragments",
        applies: |seen, d| {
            let [ours, theirs] = seen.both(d);
            let place = ["quote place", "quote identification"];
            seen.to6
                && !seen.input.is("quote place", "0 more false")
                && place.iter().all(|name| seen.input.get(*name) == ours.get(*name))
                && !theirs.contains_key("quote place")
                && (d.field == "length" || d.field.starts_with("quote "))
        },
    },
    Explanation {
        id: "T-19",
        title: "Path MTU of quotes with a Fragment Header",
        applies: |seen, d| {
            let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
            !seen.to6
                && seen.input.is("icmp type", "2")
                && seen.input.contains_key("quote place")
                && d.field == "icmp rest"
                && number(&d.ours).map(|mtu| mtu + 8) == number(&d.theirs)
        },
    },
    Explanation {
        id: "T-20",
        title: "Fragments with DF",
        applies: |seen, d| {
            seen.to6
                && seen.input.is("df", "1")
                && !seen.input.is("place", "0 more false")
                && d.is_outcome("IPv6", "IPv6 + IPv6")
        },
    },
    Explanation {
        id: "T-21",
        title: "Protocols that mean something else on the other side",
        applies: |seen, d| {
            let foreign: &[&str] = if seen.to6 { &["2", "0", "43", "44", "58", "60"] } else { &["2", "1"] };
            foreign.iter().any(|protocol| seen.input.is("protocol", protocol))
                && seen.class == "other transport"
                && d.ours == NOTHING
                && d.is_outcome(NOTHING, &d.theirs)
        },
    },
    Explanation {
        id: "T-22",
        title: "Checksums of DCCP and UDP-Lite",
        applies: |seen, d| {
            ["33", "136"].iter().any(|protocol| seen.input.is("protocol", protocol)) && d.field == "data"
        },
    },
    Explanation {
        id: "T-23",
        title: "Addresses of \"this network\"",
        applies: |seen, d| {
            let this = |name| seen.input.get(name).is_some_and(|addr| addr.starts_with("00"));
            seen.to6 && (this("source") || this("destination")) && d.is_outcome(NOTHING, "IPv6")
        },
    },
    Explanation {
        id: "T-24",
        title: "IPv4 addresses of one link",
        applies: |seen, d| {
            let link = |name| seen.input.is(name, &address("169.254.1.1"));
            (link("source") || link("destination")) && d.is_outcome("IPv4 error 3/13", NOTHING)
        },
    },
    Explanation {
        id: "T-25",
        title: "Sources under the prefix that cannot be",
        applies: |seen, d| {
            let illegal = ["2001:db8:64::127.0.0.1", "2001:db8:64::224.0.0.5"];
            illegal.iter().any(|addr| seen.input.is("source", &address(addr)))
                && d.is_outcome(NOTHING, "IPv6 error 1/5")
        },
    },
    Explanation {
        id: "T-26",
        title: "UDP checksums that come out as zero",
        applies: |_, d| {
            matches!(d.field.as_str(), "checksum" | "quote checksum")
                && d.ours != "absent"
                && d.theirs == "none"
        },
    },
];

/// What an extension changes beside itself: the quote in front of it makes room or is padded.
const EXTENDED: [&str; 6] =
    ["icmp extension", "length", "quote padding", "quote data", "quote data length", "quote checksum"];

/// Tayga counts a hop and so does the kernel on both sides of its device; we give two of these three back.
fn hops(seen: &Seen, d: &Difference) -> bool {
    match d.field.as_str() {
        "hop limit" => {
            let [ours, theirs] = [&d.ours, &d.theirs].map(|text| text.parse::<u8>().ok());
            theirs.and_then(|hops| hops.checked_add(2)) == ours
        }
        "outcome" => {
            let (across, told) =
                if seen.to6 { ("IPv6", "IPv4 error 11/0") } else { ("IPv4", "IPv6 error 3/0") };
            // Tayga says nothing about echo replies.
            seen.input.is("hop limit", "1") && (d.is_outcome(across, told) || d.is_outcome(across, NOTHING))
        }
        _ => false,
    }
}

/// What came out for a packet, and all differences.
pub fn differences(case: &Case, ours: &[Vec<u8>], theirs: &[Vec<u8>]) -> (Seen, Vec<Difference>) {
    let map = |bytes: &Vec<u8>| fields(bytes).into_iter().collect::<Fields>();
    let seen = Seen {
        class: case.class,
        to6: case.bytes[0] >> 4 == 4,
        input: map(&case.bytes),
        ours: ours.iter().map(map).collect(),
        theirs: theirs.iter().map(map).collect(),
    };
    let mut out = Vec::new();
    let mut add = |packet: usize, field: &str, ours: &str, theirs: &str| {
        if ours != theirs {
            out.push(Difference { packet, field: field.into(), ours: ours.into(), theirs: theirs.into() });
        }
    };
    let (our_outcome, their_outcome) = (outcome(ours), outcome(theirs));
    add(0, "outcome", &our_outcome, &their_outcome);
    if our_outcome == their_outcome {
        for (i, (ours, theirs)) in seen.ours.iter().zip(&seen.theirs).enumerate() {
            for (name, value) in ours {
                add(i, name, value, theirs.get(name).map_or("absent", String::as_str));
            }
            for (name, value) in theirs.iter().filter(|(name, _)| !ours.contains_key(*name)) {
                add(i, name, "absent", value);
            }
        }
    }
    (seen, out)
}

fn outcome(packets: &[Vec<u8>]) -> String {
    match packets {
        [] => NOTHING.into(),
        packets => packets.iter().map(|packet| kind(packet)).collect::<Vec<_>>().join(" + "),
    }
}

/// An address as fields have it.
fn address(text: &str) -> String {
    match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => hex(&Ipv4Addr::octets(&v4)),
        IpAddr::V6(v6) => hex(&Ipv6Addr::octets(&v6)),
    }
}

impl Difference {
    fn is_outcome(&self, ours: &str, theirs: &str) -> bool {
        self.field == "outcome" && self.ours == ours && self.theirs == theirs
    }
}

/// Fields by name.
trait Named {
    fn is(&self, name: &str, value: &str) -> bool;
    fn number(&self, name: &str) -> Option<u32>;
}

impl Named for Fields {
    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|found| found == value)
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }
}
