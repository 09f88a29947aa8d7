//! ICMP errors through an engine that has one session of each protocol. What comes out, and whether anything does, is
//! known beforehand; and no error changes a session (D-52), so the engine is used again and again.

use std::cell::RefCell;
use std::net::IpAddr;

use sampan::nat64::settings::SessionRow;
use sampan::verdict::DropReason;
use sampan::wire::packet::Offload;
use sampan::xlat::FlowPair;

use super::box_judge::{flow, number};
use super::build::{self, Flow};
use super::bytes::Bytes;
use super::gateway::{Gateway, settings};
use super::judge_error::{self, Links};
use super::naive;

/// The peer of all sessions.
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

/// An engine with a session of each protocol.
pub struct Bench {
    gateway: Gateway,
    rows: Vec<SessionRow>,
    flows: Vec<(u8, FlowPair)>,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// Data: `[how, kind, code, rest (4), hops]`, then a description of the quote; or any packet.
pub fn icmp_quote(data: &[u8]) {
    BENCH.with_borrow_mut(|bench| bench.get_or_insert_with(Bench::new).take(data));
}

impl Bench {
    /// One that has done no more than that.
    pub fn new() -> Self {
        let mut gateway = Gateway::new(settings(), 1);
        for packet in Self::first_packets() {
            gateway.feed(0, packet, Offload::default());
            assert_eq!(gateway.run().len(), 1);
        }
        let rows = gateway.session_rows();
        let flows = rows.iter().map(|row| (number(row.protocol), flow(row))).collect();
        Self { gateway, rows, flows }
    }

    /// The packets that make the sessions.
    pub fn first_packets() -> Vec<Vec<u8>> {
        let y = settings().pool6[0].embed(std::net::Ipv4Addr::new(203, 0, 113, 9));
        let client = build::addr6(1, 1);
        let flows = [
            Flow::Tcp { src: 40_001, dst: 443, flags: 2 },
            Flow::Udp { src: 40_002, dst: 53 },
            Flow::Echo { reply: false, id: 40_003 },
        ];
        let packet = |flow| {
            let (protocol, l4) = build::transport(flow, true, b"first packet");
            build::ip(client.into(), y.into(), 64, protocol, &l4)
        };
        flows.map(packet).into()
    }

    fn take(&mut self, data: &[u8]) {
        let mut data = Bytes::new(data);
        let input = self.input(&mut data);
        let is_error = naive::read(&input, true)
            .is_ok_and(|ip| naive::transport(&input, &ip).is_ok() && naive::is_icmp_error(&input, &ip));
        if !is_error {
            return;
        }
        let settings = self.gateway.settings();
        let links = Links { mtu6: settings.mtu.v6.into(), mtu4: settings.mtu.v4.into() };
        let pref64 = settings.pool6[0];
        let before = self.gateway.totals();
        self.gateway.feed(0, input.clone(), Offload::default());
        let out = self.gateway.run();
        let after = self.gateway.totals();
        assert_eq!(after.out_originated, before.out_originated, "D-67: an error about an error");
        let expected = judge_error::read(&input).and_then(|error| {
            let in_prefix = |addr| matches!(addr, IpAddr::V6(a) if pref64.contains(a));
            let from_client = !error.ip.is_v6();
            let (_, flow) = *self.flows.iter().find(|(p, flow)| error.is_about(flow, *p, from_client))?;
            error.head(links)?;
            let passes = error.ip.hops >= 2 && !error.ip.routed && !in_prefix(error.ip.src);
            passes.then_some((error, flow))
        });
        match (&out[..], expected) {
            ([out], Some((error, flow))) => {
                judge_error::translated(&error, out, &flow, links, error.ip.hops - 1);
                let src = naive::read(&out.0, true).map(|ip| ip.src);
                let kept: IpAddr = match error.ip.src {
                    IpAddr::V4(v4) => pref64.embed(v4).into(),
                    IpAddr::V6(_) => flow.src4.into(),
                };
                assert_eq!(src, Ok(kept), "D-57, D-58");
            }
            ([], None) => {}
            // RFC 5927 §4.1: of TCP only the client's SYN is on its way.
            ([], Some((error, _))) if error.quoted.protocol == naive::TCP => {
                let not_in_flight = DropReason::NotInFlight as usize;
                assert_eq!(after.drops[not_in_flight], before.drops[not_in_flight] + 1);
                let seq = &error.quote[error.quoted.l4 + 4..error.quoted.l4 + 8];
                assert!(error.ip.is_v6() || *seq != build::SEQ, "an error about the client's SYN is refused");
            }
            ([], Some((error, _))) => {
                panic!("{}/{} was not translated: {input:02x?}", error.kind, error.code)
            }
            (out, _) => panic!("{input:02x?} became {out:02x?}"),
        }
        assert_eq!(self.gateway.session_rows(), self.rows, "D-52: errors change no session");
    }

    /// The error to be sent.
    pub fn input(&self, data: &mut Bytes<'_>) -> Vec<u8> {
        let how = data.byte();
        if how & 7 == 7 {
            let mut packet = data.rest().to_vec();
            if how & 8 != 0 {
                naive::fix(&mut packet);
            }
            return packet;
        }
        let (protocol, flow) = self.flows[usize::from(how >> 1 & 3) % self.flows.len()];
        let is_v6 = how & 1 == 1;
        let kinds: &[u8] = if is_v6 { &[1, 2, 3, 4] } else { &[3, 11, 12, 3, 4] };
        let kind = data.byte();
        let kind = if kind & 0x80 == 0 { kinds[usize::from(kind) % kinds.len()] } else { kind & 0x7f };
        let (code, rest, hops) = (data.byte(), data.long(), data.byte());
        let mut quote = quoted(data, protocol, &flow, is_v6);
        let mut rest = rest;
        if how & 16 != 0 {
            append_extension(data, &mut quote, is_v6, &mut rest);
        }
        let (src, dst): (IpAddr, IpAddr) = match is_v6 {
            true => (build::addr6(7, 7).into(), flow.dst6.into()),
            false => ([192, 0, 2, 77].into(), flow.src4.into()),
        };
        let mut packet =
            build::icmp_error(src, dst, if hops < 4 { hops } else { 64 }, kind, code, rest, &quote);
        if how & 32 != 0 {
            build::spoil(data, &mut packet);
        }
        packet
    }
}

/// A packet of the flow as it was seen behind the gateway, cut short or spoilt as the data says.
fn quoted(data: &mut Bytes<'_>, protocol: u8, flow: &FlowPair, is_v6: bool) -> Vec<u8> {
    let look = data.byte();
    let (src, dst): (IpAddr, IpAddr) = match is_v6 {
        true => (flow.dst6.into(), flow.src6.into()),
        false => (flow.src4.into(), PEER),
    };
    let described = match (protocol, is_v6) {
        (naive::TCP, true) => Flow::Tcp { src: flow.peer_port, dst: flow.port6, flags: 16 },
        (naive::TCP, false) => Flow::Tcp { src: flow.port4, dst: flow.peer_port, flags: 16 },
        (naive::UDP, true) => Flow::Udp { src: flow.peer_port, dst: flow.port6 },
        (naive::UDP, false) => Flow::Udp { src: flow.port4, dst: flow.peer_port },
        (_, true) => Flow::Echo { reply: look & 1 == 0, id: flow.port6 },
        (_, false) => Flow::Echo { reply: look & 1 == 1, id: flow.port4 },
    };
    let mut quote = build::packet(data, src, dst, described);
    if look & 2 != 0 {
        build::spoil(data, &mut quote);
    }
    if look & 4 != 0 {
        let keep = data.byte();
        quote.truncate(if look & 8 != 0 { usize::from(keep) * 8 } else { keep.into() });
    }
    if look & 16 != 0 && quote.first().is_some_and(|b| b >> 4 == 4) && quote.len() >= 20 {
        naive::fix_header4(&mut quote);
    }
    quote
}

/// Pads the quote and puts an extension structure with one object behind it (RFC 4884 §7, §8).
fn append_extension(data: &mut Bytes<'_>, quote: &mut Vec<u8>, is_v6: bool, rest: &mut u32) {
    let unit = if is_v6 { 8 } else { 4 };
    let least = data.one_of(&[128, 128, 64, 136]);
    quote.resize(quote.len().min(1024).max(least).next_multiple_of(unit), 0);
    let words = (quote.len() / unit) as u32 & 0xff;
    *rest = if is_v6 { *rest & 0x00ff_ffff | words << 24 } else { *rest & 0xff00_ffff | words << 16 };
    let object = data.take(8).to_vec();
    let mut extension = vec![0x20, 0, 0, 0, 0, 4 + object.len() as u8, 1, 1];
    extension.extend(object);
    let sum = !naive::sum(&[&extension]);
    naive::put(&mut extension, 2, sum);
    quote.extend(extension);
}
