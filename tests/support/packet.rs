//! Packets as values. [`Packet::bytes`] has etherparse write them, [`Packet::parse`] has etherparse read them and
//! recompute every checksum: neither uses a line of the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type, IpDscp,
    IpEcn, IpNumber, Ipv4Header, Ipv4HeaderSlice, Ipv4Options, Ipv6FlowLabel, Ipv6Header, Ipv6HeaderSlice,
    NetSlice, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const CWR: u8 = 0x80;

/// A packet of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Type of service or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// IPv4 only.
    pub id: u16,
    /// IPv4 only.
    pub df: bool,
    /// IPv4 only.
    pub options: Vec<u8>,
    /// IPv6 only.
    pub flow_label: u32,
    /// IPv6 only.
    pub extensions: Vec<Extension>,
    pub l4: L4,
}

/// An IPv6 extension header: its number and its bytes; the first byte is filled in when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub number: u8,
    pub bytes: Vec<u8>,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp {
        src: u16,
        dst: u16,
        data: Vec<u8>,
    },
    Echo {
        reply: bool,
        id: u16,
        seq: u16,
        data: Vec<u8>,
    },
    /// An ICMP error, or any other ICMP message that is no echo.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: Vec<u8>,
    },
    Other {
        protocol: u8,
        data: Vec<u8>,
    },
}

impl Extension {
    pub fn hop_by_hop() -> Self {
        Self { number: 0, bytes: vec![0, 0, 1, 4, 0, 0, 0, 0] }
    }

    pub fn destination_options() -> Self {
        Self { number: 60, bytes: vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// A routing header of 24 bytes.
    pub fn routing(segments_left: u8) -> Self {
        let mut bytes = vec![0; 24];
        bytes[1] = 2;
        bytes[3] = segments_left;
        Self { number: 43, bytes }
    }

    pub fn fragment(offset: u16, more: bool, id: u32) -> Self {
        let mut bytes = vec![0, 0];
        bytes.extend((offset & 0xfff8 | u16::from(more)).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        Self { number: 44, bytes }
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn at(addr: impl ToString, port: u16) -> SocketAddr {
    SocketAddr::new(ip(&addr.to_string()), port)
}

pub fn udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Packet {
    Packet::new(src.ip(), dst.ip(), L4::Udp { src: src.port(), dst: dst.port(), data: data.to_vec() })
}

/// The first sequence number of both ends of every connection.
pub const ISN: u32 = 0x0102_0304;

/// A segment that fits a connection whose ends both begin at [`ISN`] and acknowledge nothing but each other's SYN.
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8, data: &[u8]) -> Packet {
    let l4 = L4::Tcp {
        src: src.port(),
        dst: dst.port(),
        flags,
        seq: if flags & SYN != 0 { ISN } else { ISN + 1 },
        ack: if flags & ACK != 0 { ISN + 1 } else { 0 },
        window: 0x4000,
        options: Vec::new(),
        data: data.to_vec(),
    };
    Packet::new(src.ip(), dst.ip(), l4)
}

/// The same segment with other numbers.
pub fn numbered(mut packet: Packet, new_seq: u32, new_ack: u32) -> Packet {
    let L4::Tcp { seq, ack, .. } = &mut packet.l4 else { panic!("{packet:?}") };
    (*seq, *ack) = (new_seq, new_ack);
    packet
}

pub fn echo_request(src: IpAddr, dst: IpAddr, id: u16, data: &[u8]) -> Packet {
    Packet::new(src, dst, L4::Echo { reply: false, id, seq: 7, data: data.to_vec() })
}

pub fn echo_reply(src: IpAddr, dst: IpAddr, id: u16, data: &[u8]) -> Packet {
    Packet::new(src, dst, L4::Echo { reply: true, id, seq: 7, data: data.to_vec() })
}

/// An ICMP message of the family of `src`.
pub fn error(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: u32, quote: &[u8]) -> Packet {
    Packet::new(src, dst, L4::Icmp { kind, code, rest: rest.to_be_bytes(), data: quote.to_vec() })
}

pub fn other(src: IpAddr, dst: IpAddr, protocol: u8, data: &[u8]) -> Packet {
    Packet::new(src, dst, L4::Other { protocol, data: data.to_vec() })
}

impl Packet {
    pub fn new(src: IpAddr, dst: IpAddr, l4: L4) -> Self {
        Self {
            src,
            dst,
            tos: 0,
            hops: 64,
            id: 0,
            df: false,
            options: Vec::new(),
            flow_label: 0,
            extensions: Vec::new(),
            l4,
        }
    }

    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    pub fn df(mut self, df: bool) -> Self {
        self.df = df;
        self
    }

    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Ports of TCP or UDP, or twice the identifier of an echo.
    pub fn ports(&self) -> (u16, u16) {
        match &self.l4 {
            L4::Tcp { src, dst, .. } | L4::Udp { src, dst, .. } => (*src, *dst),
            L4::Echo { id, .. } => (*id, *id),
            L4::Icmp { .. } | L4::Other { .. } => panic!("{self:?} has no ports"),
        }
    }

    /// Transport address of the source.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.src, self.ports().0)
    }

    /// Transport address of the destination.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.dst, self.ports().1)
    }

    /// Type and code, the four bytes behind the checksum as a number, and the rest of an ICMP message.
    pub fn icmp(&self) -> (u8, u8, u32, &[u8]) {
        match &self.l4 {
            L4::Icmp { kind, code, rest, data } => (*kind, *code, u32::from_be_bytes(*rest), data),
            L4::Tcp { .. } | L4::Udp { .. } | L4::Echo { .. } | L4::Other { .. } => {
                panic!("{self:?} is no ICMP error")
            }
        }
    }

    /// Payload of the transport.
    pub fn data(&self) -> &[u8] {
        match &self.l4 {
            L4::Tcp { data, .. }
            | L4::Udp { data, .. }
            | L4::Echo { data, .. }
            | L4::Icmp { data, .. }
            | L4::Other { data, .. } => data,
        }
    }

    /// The packet on a wire, every length and checksum right.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.bytes4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.bytes6(src, dst),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("{self:?} mixes families")
            }
        }
    }

    fn bytes4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let mut header = Ipv4Header::new(0, self.hops, IpNumber(0), src.octets(), dst.octets()).unwrap();
        header.dscp = IpDscp::try_new(self.tos >> 2).unwrap();
        header.ecn = IpEcn::try_new(self.tos & 3).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.df;
        header.options = Ipv4Options::try_from(&self.options[..]).unwrap();
        let (protocol, transport) = match &self.l4 {
            L4::Tcp { data, .. } => {
                let mut tcp = self.tcp_header();
                tcp.checksum = tcp.calc_checksum_ipv4(&header, data).unwrap();
                (6, [&tcp.to_bytes()[..], data].concat())
            }
            L4::Udp { src, dst, data } => {
                let udp = UdpHeader::with_ipv4_checksum(*src, *dst, &header, data).unwrap();
                (17, [&udp.to_bytes()[..], data].concat())
            }
            L4::Echo { reply, id, seq, data } => {
                let echo = IcmpEchoHeader { id: *id, seq: *seq };
                let kind = if *reply { Icmpv4Type::EchoReply(echo) } else { Icmpv4Type::EchoRequest(echo) };
                (1, [&Icmpv4Header::with_checksum(kind, data).to_bytes()[..], data].concat())
            }
            L4::Icmp { kind, code, rest, data } => {
                let kind = Icmpv4Type::Unknown { type_u8: *kind, code_u8: *code, bytes5to8: *rest };
                (1, [&Icmpv4Header::with_checksum(kind, data).to_bytes()[..], data].concat())
            }
            L4::Other { protocol, data } => (*protocol, data.clone()),
        };
        header.protocol = IpNumber(protocol);
        header.set_payload_len(transport.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &transport].concat()
    }

    fn bytes6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let mut header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
            payload_length: 0,
            next_header: IpNumber(0),
            hop_limit: self.hops,
            source: src.octets(),
            destination: dst.octets(),
        };
        let icmp = |kind: Icmpv6Type, data: &[u8]| {
            let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), data).unwrap();
            (58, [&header.to_bytes()[..], data].concat())
        };
        let (protocol, transport) = match &self.l4 {
            L4::Tcp { data, .. } => {
                let mut tcp = self.tcp_header();
                tcp.checksum = tcp.calc_checksum_ipv6(&header, data).unwrap();
                (6, [&tcp.to_bytes()[..], data].concat())
            }
            L4::Udp { src, dst, data } => {
                let udp = UdpHeader::with_ipv6_checksum(*src, *dst, &header, data).unwrap();
                (17, [&udp.to_bytes()[..], data].concat())
            }
            L4::Echo { reply, id, seq, data } => {
                let echo = IcmpEchoHeader { id: *id, seq: *seq };
                let kind = if *reply { Icmpv6Type::EchoReply(echo) } else { Icmpv6Type::EchoRequest(echo) };
                icmp(kind, data)
            }
            L4::Icmp { kind, code, rest, data } => {
                icmp(Icmpv6Type::Unknown { type_u8: *kind, code_u8: *code, bytes5to8: *rest }, data)
            }
            L4::Other { protocol, data } => (*protocol, data.clone()),
        };
        let mut next = protocol;
        let mut payload = transport;
        for extension in self.extensions.iter().rev() {
            let mut bytes = extension.bytes.clone();
            bytes[0] = next;
            bytes.extend(payload);
            payload = bytes;
            next = extension.number;
        }
        header.next_header = IpNumber(next);
        header.set_payload_length(payload.len()).unwrap();
        [&header.to_bytes()[..], &payload].concat()
    }

    fn tcp_header(&self) -> TcpHeader {
        let L4::Tcp { src, dst, flags, seq, ack, window, options, .. } = &self.l4 else {
            panic!("{self:?} is not TCP");
        };
        let mut tcp = TcpHeader::new(*src, *dst, *seq, *window);
        tcp.acknowledgment_number = *ack;
        tcp.fin = flags & FIN != 0;
        tcp.syn = flags & SYN != 0;
        tcp.rst = flags & RST != 0;
        tcp.psh = flags & PSH != 0;
        tcp.ack = flags & ACK != 0;
        tcp.urg = flags & 0x20 != 0;
        tcp.ece = flags & 0x40 != 0;
        tcp.cwr = flags & CWR != 0;
        tcp.set_options_raw(options).unwrap();
        tcp
    }

    /// Reads a packet that must be flawless: lengths agree with each other and with the bytes, and every checksum
    /// is what etherparse computes from scratch. IPv6 extension headers are not understood.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let sliced = SlicedPacket::from_ip(bytes).map_err(|e| format!("{e}: {bytes:02x?}"))?;
        let (mut packet, payload, judge) = match sliced.net.ok_or("no network layer")? {
            NetSlice::Ipv4(v4) => {
                let header = v4.header();
                let packet = Self::header4(&header, bytes)?;
                (packet, v4.payload().clone(), Judge::V4(header.source(), header.destination()))
            }
            NetSlice::Ipv6(v6) => {
                if !v6.extensions().is_empty() {
                    return Err("has extension headers".into());
                }
                let header = v6.header();
                let packet = Self::header6(&header, bytes)?;
                (packet, v6.payload().clone(), Judge::V6(header.source(), header.destination()))
            }
            NetSlice::Arp(_) => return Err("ARP".into()),
        };
        packet.l4 = match sliced.transport {
            None => L4::Other { protocol: payload.ip_number.0, data: payload.payload.to_vec() },
            Some(TransportSlice::Tcp(tcp)) => {
                let header = tcp.to_header();
                judge.check(tcp.checksum(), judge.tcp(&header, tcp.payload()))?;
                L4::Tcp {
                    src: tcp.source_port(),
                    dst: tcp.destination_port(),
                    flags: tcp.slice()[13],
                    seq: tcp.sequence_number(),
                    ack: tcp.acknowledgment_number(),
                    window: tcp.window_size(),
                    options: tcp.options().to_vec(),
                    data: tcp.payload().to_vec(),
                }
            }
            Some(TransportSlice::Udp(udp)) => {
                if usize::from(udp.length()) != payload.payload.len() {
                    return Err(format!("UDP length {} in {}", udp.length(), payload.payload.len()));
                }
                judge.check(udp.checksum(), judge.udp(&udp.to_header(), udp.payload()))?;
                L4::Udp { src: udp.source_port(), dst: udp.destination_port(), data: udp.payload().to_vec() }
            }
            Some(TransportSlice::Icmpv4(icmp)) => Self::icmp4(&icmp)?,
            Some(TransportSlice::Icmpv6(icmp)) => Self::icmp6(&icmp, &judge)?,
            Some(TransportSlice::Igmp(_)) => return Err("IGMP".into()),
        };
        Ok(packet)
    }

    fn header4(header: &Ipv4HeaderSlice, bytes: &[u8]) -> Result<Self, String> {
        if usize::from(header.total_len()) != bytes.len() {
            return Err(format!("total length {} of {} bytes", header.total_len(), bytes.len()));
        }
        let sum = header.to_header().calc_header_checksum();
        if sum != header.header_checksum() {
            return Err(format!("IPv4 checksum {:#06x}, not {sum:#06x}", header.header_checksum()));
        }
        if header.more_fragments() || header.fragments_offset().value() != 0 {
            return Err("a fragment".into());
        }
        let mut packet = Self::new(
            header.source_addr().into(),
            header.destination_addr().into(),
            L4::Other { protocol: 0, data: Vec::new() },
        );
        packet.tos = header.dcp().value() << 2 | header.ecn().value();
        packet.hops = header.ttl();
        packet.id = header.identification();
        packet.df = header.dont_fragment();
        packet.options = header.options().to_vec();
        Ok(packet)
    }

    fn header6(header: &Ipv6HeaderSlice, bytes: &[u8]) -> Result<Self, String> {
        if usize::from(header.payload_length()) + 40 != bytes.len() {
            return Err(format!("payload length {} of {} bytes", header.payload_length(), bytes.len()));
        }
        let mut packet = Self::new(
            header.source_addr().into(),
            header.destination_addr().into(),
            L4::Other { protocol: 0, data: Vec::new() },
        );
        packet.tos = header.traffic_class();
        packet.hops = header.hop_limit();
        packet.flow_label = header.flow_label().value();
        Ok(packet)
    }

    fn icmp4(icmp: &Icmpv4Slice) -> Result<L4, String> {
        let sum = Icmpv4Header::with_checksum(unknown4(icmp), icmp.payload_behind_8()).checksum;
        if sum != icmp.checksum() {
            return Err(format!("ICMPv4 checksum {:#06x}, not {sum:#06x}", icmp.checksum()));
        }
        let data = icmp.payload_behind_8().to_vec();
        Ok(match (icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()) {
            (kind @ (0 | 8), 0, [a, b, c, d]) => L4::Echo {
                reply: kind == 0,
                id: u16::from_be_bytes([a, b]),
                seq: u16::from_be_bytes([c, d]),
                data,
            },
            (kind, code, rest) => L4::Icmp { kind, code, rest, data },
        })
    }

    fn icmp6(icmp: &Icmpv6Slice, judge: &Judge) -> Result<L4, String> {
        let Judge::V6(src, dst) = *judge else { return Err("ICMPv6 in IPv4".into()) };
        if !icmp.is_checksum_valid(src, dst) {
            return Err(format!("ICMPv6 checksum {:#06x}", icmp.checksum()));
        }
        let data = icmp.slice()[8..].to_vec();
        Ok(match (icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()) {
            (kind @ (128 | 129), 0, [a, b, c, d]) => L4::Echo {
                reply: kind == 129,
                id: u16::from_be_bytes([a, b]),
                seq: u16::from_be_bytes([c, d]),
                data,
            },
            (kind, code, rest) => L4::Icmp { kind, code, rest, data },
        })
    }
}

/// Everything behind the first eight bytes, whatever etherparse takes for the header of that type.
trait Behind8<'a> {
    fn payload_behind_8(&self) -> &'a [u8];
}

impl<'a> Behind8<'a> for Icmpv4Slice<'a> {
    fn payload_behind_8(&self) -> &'a [u8] {
        &self.slice()[8..]
    }
}

fn unknown4(icmp: &Icmpv4Slice) -> Icmpv4Type {
    Icmpv4Type::Unknown { type_u8: icmp.type_u8(), code_u8: icmp.code_u8(), bytes5to8: icmp.bytes5to8() }
}

/// Computes transport checksums from scratch.
enum Judge {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

impl Judge {
    fn tcp(&self, header: &TcpHeader, data: &[u8]) -> u16 {
        match *self {
            Self::V4(src, dst) => header.calc_checksum_ipv4_raw(src, dst, data).unwrap(),
            Self::V6(src, dst) => header.calc_checksum_ipv6_raw(src, dst, data).unwrap(),
        }
    }

    fn udp(&self, header: &UdpHeader, data: &[u8]) -> u16 {
        match *self {
            Self::V4(src, dst) => header.calc_checksum_ipv4_raw(src, dst, data).unwrap(),
            Self::V6(src, dst) => header.calc_checksum_ipv6_raw(src, dst, data).unwrap(),
        }
    }

    fn check(&self, found: u16, computed: u16) -> Result<(), String> {
        if found == computed { Ok(()) } else { Err(format!("checksum {found:#06x}, not {computed:#06x}")) }
    }
}
