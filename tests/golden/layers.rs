//! Field notation to bytes: one line for each layer, as `README.md` describes it. Written from the RFCs; uses no line
//! of the code under test.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::naive::{self, put};

/// One line of a packet: its first word, its other words, and its `name=value` settings.
#[derive(Clone, Debug)]
pub struct Layer {
    word: String,
    args: Vec<String>,
    fields: BTreeMap<String, String>,
}

/// Numbers that packets which came out have taught: `$name`.
pub type Names = BTreeMap<String, u64>;

type Result<T> = std::result::Result<T, String>;

impl Layer {
    pub fn parse(line: &str) -> Result<Self> {
        if let Some(text) = line.strip_prefix("text ") {
            let text = text.trim().trim_matches('"').to_owned();
            return Ok(Self { word: "text".to_owned(), args: vec![text], fields: BTreeMap::new() });
        }
        let mut words = line.split_whitespace();
        let word = words.next().ok_or("an empty line")?.to_owned();
        let (mut args, mut fields) = (Vec::new(), BTreeMap::new());
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => {
                    fields.insert(name.to_owned(), value.to_owned());
                }
                None => args.push(word.to_owned()),
            }
        }
        Ok(Self { word, args, fields })
    }

    fn has(&self, arg: &str) -> bool {
        self.args.iter().any(|a| a == arg)
    }

    fn is_ip(&self) -> bool {
        self.word == "ip4" || self.word == "ip6"
    }

    fn arg(&self, at: usize) -> Result<&str> {
        self.args.get(at).map(String::as_str).ok_or_else(|| format!("`{}` needs more words", self.word))
    }

    /// `A > B`.
    fn ends(&self) -> Result<(&str, &str)> {
        match self.arg(1)? {
            ">" => Ok((self.arg(0)?, self.arg(2)?)),
            other => Err(format!("`{}` has `{other}` where `>` should be", self.word)),
        }
    }
}

/// The bytes of a packet. Names that are not known yet are learnt from `actual`, the packet that it should be equal to.
pub fn encode(layers: &[Layer], names: &mut Names, actual: Option<&[u8]>) -> Result<Vec<u8>> {
    let missing = missing(layers, names)?;
    let Some(actual) = actual else {
        return match missing.first() {
            Some(name) => Err(format!("{name} is not known here")),
            None => Encoder::new(names, true).packet(layers),
        };
    };
    let mut all = names.clone();
    for name in &missing {
        // Where the number stands: what differs when it does, with all checksums left out.
        let with = |value: u64| {
            let mut tried = names.clone();
            tried.extend(missing.iter().map(|m| (m.clone(), 0)));
            tried.insert(name.clone(), value);
            Encoder::new(&tried, false).packet(layers)
        };
        let (zeroes, ones) = (with(0)?, with(u64::MAX)?);
        let Some(from) = (0..zeroes.len()).find(|i| zeroes[*i] != ones[*i]) else { continue };
        let to = (from..zeroes.len()).find(|i| zeroes[*i] == ones[*i]).unwrap_or(zeroes.len());
        let value = actual.get(from..to).unwrap_or(&[]).iter().fold(0, |n, b| n << 8 | u64::from(*b));
        all.insert(name.clone(), value);
    }
    let bytes = Encoder::new(&all, true).packet(layers)?;
    all.retain(|name, _| name.starts_with('$'));
    *names = all;
    Ok(bytes)
}

/// Names in `layers` whose numbers are not known.
fn missing(layers: &[Layer], names: &Names) -> Result<Vec<String>> {
    let mut encoder = Encoder::new(names, false);
    encoder.packet(layers)?;
    Ok(encoder.missing)
}

struct Encoder<'a> {
    names: &'a Names,
    /// Whether checksums are computed.
    sums: bool,
    missing: Vec<String>,
    stars: usize,
}

/// A part of a datagram.
struct Piece {
    offset: u16,
    more: bool,
    id: u32,
}

impl<'a> Encoder<'a> {
    fn new(names: &'a Names, sums: bool) -> Self {
        Self { names, sums, missing: Vec::new(), stars: 0 }
    }

    /// A packet, and what its end is: `cut N`, `pad N`, then data that belongs to nobody.
    fn packet(&mut self, layers: &[Layer]) -> Result<Vec<u8>> {
        let Some((first, rest)) = layers.split_first() else { return Err("no layers".to_owned()) };
        // The last end is ours; one before it belongs to a packet that we quote.
        let quotes = rest.iter().any(Layer::is_ip);
        let ends = |l: &Layer| l.word == "cut" || l.word == "pad" || l.word == "end";
        let end = if quotes { rest.iter().position(|l| l.word == "end") } else { rest.iter().position(ends) };
        let (inner, tail) = rest.split_at(end.unwrap_or(rest.len()));
        let mut bytes = match first.word.as_str() {
            "ip4" => self.ip4(first, inner)?,
            "ip6" => self.ip6(first, inner)?,
            _ => self.data(&layers[..1 + inner.len()])?,
        };
        for layer in tail {
            match layer.word.as_str() {
                "cut" => bytes.truncate(self.number(layer.arg(0)?)? as usize),
                "pad" => bytes.resize(self.number(layer.arg(0)?)? as usize, 0),
                "end" => {}
                _ => bytes.extend(self.data(std::slice::from_ref(layer))?),
            }
        }
        Ok(bytes)
    }

    fn ip4(&mut self, layer: &Layer, rest: &[Layer]) -> Result<Vec<u8>> {
        let (src, dst) = addresses(layer)?;
        let (IpAddr::V4(src4), IpAddr::V4(dst4)) = (src, dst) else {
            return Err("ip4 needs IPv4 addresses".to_owned());
        };
        let (options, rest) = options(rest)?;
        let (protocol, payload, piece) = self.payload(rest, src, dst)?;
        let header = 20 + options.len();
        let piece = piece.unwrap_or(Piece { offset: 0, more: false, id: 0 });
        let mut out = vec![0; 20];
        out[0] = self.field(layer, "first", 0x40 | (header / 4) as u64)? as u8;
        out[1] = self.field(layer, "tos", 0)? as u8;
        let len = self.field(layer, "len", (header + payload.len()) as u64)?;
        put(&mut out, 2, len as u16);
        let id = self.field(layer, "id", piece.id.into())?;
        put(&mut out, 4, id as u16);
        let more = piece.more || layer.has("more");
        let flags = if layer.has("df") { 0x4000 } else { 0 } | if more { 0x2000 } else { 0 };
        put(&mut out, 6, flags | piece.offset >> 3);
        out[8] = self.field(layer, "ttl", 64)? as u8;
        out[9] = self.field(layer, "protocol", protocol.into())? as u8;
        out[12..16].copy_from_slice(&src4.octets());
        out[16..20].copy_from_slice(&dst4.octets());
        out.extend(options);
        let sum = self.sum(layer, !naive::sum(&[&out]))?;
        put(&mut out, 10, sum);
        out.extend(payload);
        Ok(out)
    }

    fn ip6(&mut self, layer: &Layer, rest: &[Layer]) -> Result<Vec<u8>> {
        let (src, dst) = addresses(layer)?;
        let (IpAddr::V6(src6), IpAddr::V6(dst6)) = (src, dst) else {
            return Err("ip6 needs IPv6 addresses".to_owned());
        };
        let mut chain = Vec::new();
        let mut rest = rest;
        while let Some((first, others)) = rest.split_first()
            && let Some(extension) = self.extension(first)?
        {
            chain.push(extension);
            rest = others;
        }
        let (protocol, payload, piece) = self.payload(rest, src, dst)?;
        if let Some(piece) = piece {
            let mut header = vec![0; 8];
            put(&mut header, 2, piece.offset | u16::from(piece.more));
            header[4..8].copy_from_slice(&piece.id.to_be_bytes());
            chain.push((44, header));
        }
        let mut next = protocol;
        for (number, bytes) in chain.iter_mut().rev() {
            // Unless the line itself said what comes next.
            if bytes[0] == 0 {
                bytes[0] = next;
            }
            next = *number;
        }
        let mut out = vec![0; 40];
        let word = 0x6000_0000 | self.field(layer, "tc", 0)? << 20 | self.field(layer, "flow", 0)?;
        out[..4].copy_from_slice(&(word as u32).to_be_bytes());
        out[6] = self.field(layer, "next", next.into())? as u8;
        out[7] = self.field(layer, "hop", 64)? as u8;
        out[8..24].copy_from_slice(&src6.octets());
        out[24..40].copy_from_slice(&dst6.octets());
        out.extend(chain.into_iter().flat_map(|(_, bytes)| bytes));
        let len = self.field(layer, "len", (out.len() - 40 + payload.len()) as u64)?;
        put(&mut out, 4, len as u16);
        out.extend(payload);
        Ok(out)
    }

    /// An extension header: its number and its bytes.
    fn extension(&mut self, layer: &Layer) -> Result<Option<(u8, Vec<u8>)>> {
        let mut bytes =
            vec![self.field(layer, "next", 0)? as u8, self.field(layer, "words", 0)? as u8, 1, 4, 0, 0, 0, 0];
        let number = match layer.word.as_str() {
            "hop-by-hop" => 0,
            "destination" => 60,
            "routing" => {
                bytes[2] = 0;
                bytes[3] = self.field(layer, "left", 0)? as u8;
                43
            }
            "fragment" => {
                let offset = self.field(layer, "offset", 0)? as u16;
                bytes[1] = 0;
                put(&mut bytes, 2, offset & 0xfff8 | u16::from(layer.has("more")));
                let id = self.field(layer, "id", 0)? as u32;
                bytes[4..8].copy_from_slice(&id.to_be_bytes());
                44
            }
            _ => return Ok(None),
        };
        Ok(Some((number, bytes)))
    }

    /// Everything behind the IP header, or the part of it that a `piece FROM..TO` line at the end names.
    fn payload(
        &mut self,
        layers: &[Layer],
        src: IpAddr,
        dst: IpAddr,
    ) -> Result<(u8, Vec<u8>, Option<Piece>)> {
        let (layers, piece) = match layers.split_last() {
            Some((last, others)) if last.word == "piece" => (others, Some(last)),
            _ => (layers, None),
        };
        let (protocol, bytes) = self.transport(layers, src, dst)?;
        let Some(line) = piece else { return Ok((protocol, bytes, None)) };
        let (from, to) = line.arg(0)?.split_once("..").ok_or("piece FROM..TO")?;
        let from = self.number(from)? as usize;
        let to = if to.is_empty() { bytes.len() } else { self.number(to)? as usize };
        let part = bytes.get(from..to).ok_or_else(|| format!("no bytes {from}..{to} of {}", bytes.len()))?;
        let more = !line.has("last") && (line.has("more") || to < bytes.len());
        let offset = self.field(line, "offset", from as u64)? as u16;
        let id = self.field(line, "id", 0)? as u32;
        Ok((protocol, part.to_vec(), Some(Piece { offset, more, id })))
    }

    fn transport(&mut self, layers: &[Layer], src: IpAddr, dst: IpAddr) -> Result<(u8, Vec<u8>)> {
        /// IPv6 "no next header"; IPv4 says so with `protocol`.
        const NOTHING: u8 = 59;
        let Some((layer, rest)) = layers.split_first() else { return Ok((NOTHING, Vec::new())) };
        let icmp = if src.is_ipv6() { naive::ICMPV6 } else { naive::ICMP };
        let (protocol, field, mut out) = match layer.word.as_str() {
            "tcp" => (naive::TCP, 16, self.tcp(layer, rest)?),
            "udp" => (naive::UDP, 6, self.udp(layer, rest)?),
            "echo" => (icmp, 2, self.echo(layer, rest, src.is_ipv6())?),
            "icmp" => (icmp, 2, self.icmp(layer, rest)?),
            "protocol" => return Ok((self.number(layer.arg(0)?)? as u8, self.data(rest)?)),
            _ => return Ok((NOTHING, self.data(layers)?)),
        };
        let covered = match protocol {
            naive::UDP => usize::from(naive::word(&out, 4)).min(out.len()),
            _ => out.len(),
        };
        let mut pseudo = Vec::new();
        if protocol != naive::ICMP {
            for addr in [src, dst] {
                match addr {
                    IpAddr::V4(addr) => pseudo.extend(addr.octets()),
                    IpAddr::V6(addr) => pseudo.extend(addr.octets()),
                }
            }
            pseudo.extend((covered as u32).to_be_bytes());
            pseudo.extend([0, protocol]);
        }
        let right = match !naive::sum(&[&pseudo, &out[..covered]]) {
            0 if protocol == naive::UDP => 0xffff,
            sum => sum,
        };
        let sum = self.sum(layer, right)?;
        put(&mut out, field, sum);
        Ok((protocol, out))
    }

    fn tcp(&mut self, layer: &Layer, rest: &[Layer]) -> Result<Vec<u8>> {
        let (options, rest) = options(rest)?;
        let mut out = self.ports(layer)?;
        out.extend((self.field(layer, "seq", 1)? as u32).to_be_bytes());
        out.extend((self.field(layer, "ack", 0)? as u32).to_be_bytes());
        let header = self.field(layer, "header", (20 + options.len()) as u64)?;
        let mut flags = 0;
        for flag in layer.fields.get("flags").map_or("", String::as_str).chars() {
            flags |= 1 << "FSRPAUEC".find(flag).ok_or_else(|| format!("no TCP flag {flag}"))?;
        }
        out.extend([(header as u8) << 2, flags]);
        out.extend((self.field(layer, "window", 0x4000)? as u16).to_be_bytes());
        out.extend([0; 4]);
        out.extend(options);
        out.extend(self.data(rest)?);
        Ok(out)
    }

    fn udp(&mut self, layer: &Layer, rest: &[Layer]) -> Result<Vec<u8>> {
        let mut out = self.ports(layer)?;
        out.extend([0; 4]);
        out.extend(self.data(rest)?);
        let len = self.field(layer, "len", out.len() as u64)?;
        put(&mut out, 4, len as u16);
        Ok(out)
    }

    fn ports(&mut self, layer: &Layer) -> Result<Vec<u8>> {
        let (src, dst) = layer.ends()?;
        let (src, dst) = (self.number(src)? as u16, self.number(dst)? as u16);
        Ok([src.to_be_bytes(), dst.to_be_bytes()].concat())
    }

    fn echo(&mut self, layer: &Layer, rest: &[Layer], is_v6: bool) -> Result<Vec<u8>> {
        let kind = match (layer.arg(0)?, is_v6) {
            ("request", true) => 128,
            ("reply", true) => 129,
            ("request", false) => 8,
            ("reply", false) => 0,
            (other, _) => return Err(format!("echo {other}: request or reply?")),
        };
        let mut out = vec![kind, 0, 0, 0];
        out.extend((self.field(layer, "id", 0)? as u16).to_be_bytes());
        out.extend((self.field(layer, "seq", 1)? as u16).to_be_bytes());
        out.extend(self.data(rest)?);
        Ok(out)
    }

    /// `icmp TYPE/CODE` with `rest=` for bytes 4–7, or one of them: `mtu=`, `pointer=` and `words=` (RFC 4884), where the
    /// family has them.
    fn icmp(&mut self, layer: &Layer, rest: &[Layer]) -> Result<Vec<u8>> {
        let (kind, code) = layer.arg(0)?.split_once('/').ok_or("icmp TYPE/CODE")?;
        let mut out = vec![self.number(kind)? as u8, self.number(code)? as u8, 0, 0];
        let number = self.field(layer, "rest", 0)? | self.field(layer, "mtu", 0)?;
        out.extend((number as u32).to_be_bytes());
        for (name, at) in [("pointer4", 4), ("words4", 5), ("words6", 4)] {
            if layer.fields.contains_key(name) {
                out[at] = self.field(layer, name, 0)? as u8;
            }
        }
        let is_quote = rest.first().is_some_and(Layer::is_ip);
        out.extend(if is_quote { self.packet(rest)? } else { self.data(rest)? });
        Ok(out)
    }

    /// `text "..."`, `hex ...`, `fill N`, `zero N`.
    fn data(&mut self, layers: &[Layer]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for layer in layers {
            match layer.word.as_str() {
                "text" => out.extend(layer.arg(0)?.bytes()),
                "hex" => out.extend(hex(&layer.args)?),
                "fill" => {
                    let len = self.number(layer.arg(0)?)? as usize;
                    out.extend((0..len).map(|i| (i % 251) as u8));
                }
                "zero" => {
                    let len = self.number(layer.arg(0)?)? as usize;
                    out.extend(std::iter::repeat_n(0, len));
                }
                other => return Err(format!("`{other}` cannot stand here")),
            }
        }
        Ok(out)
    }

    /// A field of the line, or its default.
    fn field(&mut self, layer: &Layer, name: &str, default: u64) -> Result<u64> {
        layer.fields.get(name).map_or(Ok(default), |text| self.number(text))
    }

    /// A number, or a name for one; `*` is a name of its own each time.
    fn number(&mut self, text: &str) -> Result<u64> {
        let mut name = text.to_owned();
        if text == "*" {
            self.stars += 1;
            name = format!("*{}", self.stars);
        }
        if name.starts_with(['*', '$']) {
            let known = self.names.get(&name);
            if known.is_none() && !self.missing.contains(&name) {
                self.missing.push(name);
            }
            return Ok(known.copied().unwrap_or(0));
        }
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map_err(|_| format!("`{text}` is no number"))
    }

    /// The checksum, or what `sum=` says about it: a number, or `+N` for wrong by N.
    fn sum(&mut self, layer: &Layer, right: u16) -> Result<u16> {
        match layer.fields.get("sum").map(String::as_str) {
            _ if !self.sums => Ok(0),
            None => Ok(right),
            // Wrong by so much, in one's complement.
            Some(text) if text.starts_with('+') => {
                Ok(naive::sum(&[&right.to_be_bytes(), &(self.number(&text[1..])? as u16).to_be_bytes()]))
            }
            Some(text) => Ok(self.number(text)? as u16),
        }
    }
}

/// Options of IPv4 or TCP, when the next line has some.
fn options(rest: &[Layer]) -> Result<(Vec<u8>, &[Layer])> {
    match rest.split_first() {
        Some((first, others)) if first.word == "options" => Ok((hex(&first.args)?, others)),
        _ => Ok((Vec::new(), rest)),
    }
}

fn addresses(layer: &Layer) -> Result<(IpAddr, IpAddr)> {
    let read = |text: &str| text.parse().map_err(|_| format!("`{text}` is no address"));
    let (src, dst) = layer.ends()?;
    Ok((read(src)?, read(dst)?))
}

fn hex(words: &[String]) -> Result<Vec<u8>> {
    let digits: String = words.concat();
    if digits.len() % 2 == 1 || !digits.is_ascii() {
        return Err(format!("`{digits}` is no run of hex bytes"));
    }
    let pairs = (0..digits.len()).step_by(2).map(|i| &digits[i..i + 2]);
    pairs.map(|p| u8::from_str_radix(p, 16).map_err(|_| format!("`{p}` is no hex byte"))).collect()
}
