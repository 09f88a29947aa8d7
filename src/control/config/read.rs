//! Reads a TOML tree into the sections without stopping at the first mistake.
//!
//! Serde's derived readers end at the first error; here each key is read by itself, so one run of `sampan check`
//! names everything there is to repair.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use hickory_proto::rr::Name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FastMode, Level, ListenOn, Mode, Need, Row};
use crate::addr::{Prefix4, Prefix6, PrefixAny, PrefixError};
use crate::control::problem::{Fault, Problems};
use crate::dns64::{Mode as Synthesis, OnError, Transport, WhenDown};
use crate::io::dns_net::{Over, Upstream};
use crate::nat64::policy::{Assignment, Eviction, Pairing};
use crate::nat64::settings::{Filter, HoldSyn, Protocol, StrayTcp};
use crate::siit::settings::{Hairpin, ZeroChecksum};
use crate::text::shown;
use crate::xlat::eam::Home;
use crate::xlat::pref64::{Pref64, Pref64Error};

/// A value and the path of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// What the operator wrote.
    pub value: T,
    /// Path such as `unit[0].prefixes[1]`.
    pub path: String,
}

/// Something that can stand behind a key.
pub trait Value: Sized {
    /// Keys below it, when it is a table or a list of tables.
    const ROWS: &'static [Row] = &[];
    /// Whether it is a list.
    const LIST: bool = false;

    /// What it is, for the reference.
    fn kind() -> String;

    /// A correct value in TOML.
    fn example() -> String;

    /// Reads it; what is wrong goes to the problems.
    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self>;
}

/// The text, and the problems found in it.
pub struct Reader<'a> {
    text: &'a str,
    /// What is wrong so far, and where keys stand.
    pub problems: Problems,
}

impl<'a> Reader<'a> {
    /// A reader of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, problems: Problems::default() }
    }

    /// Parses the notation and reads the whole file as one section. `None` when the notation is broken.
    pub fn file<T: Value>(&mut self) -> Option<T> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let line = error.span().map(|span| self.line(span.start));
            self.problems.error_at_line(line, Fault::Syntax { message: shown(error.message(), 200) });
        }
        if !errors.is_empty() {
            return None;
        }
        let span = tree.span();
        T::read(&Spanned::new(span, DeValue::Table(tree.into_inner())), "", self)
    }

    /// Reads the key of `row` in a table.
    pub fn key<T: Value>(&mut self, table: &DeTable<'_>, parent: &str, row: &Row) -> Option<At<T>> {
        let path = join(parent, row.key);
        let Some((key, value)) = table.get_key_value(row.key) else {
            if matches!(row.need, Need::Required) {
                let example = if T::LIST && !T::ROWS.is_empty() {
                    format!("[[{path}]]")
                } else if T::ROWS.is_empty() {
                    format!("{} = {}", row.key, T::example())
                } else {
                    format!("[{path}]")
                };
                self.problems.error(&path, Fault::Missing { key: row.key.into(), example });
            }
            return None;
        };
        let line = self.line(key.span().start);
        self.problems.places.note(&path, line);
        T::read(value, &path, self).map(|value| At { value, path })
    }

    /// Complains about the keys of a table that have no row.
    pub fn unknown_keys(&mut self, table: &DeTable<'_>, parent: &str, rows: &[Row]) {
        for key in table.keys().filter(|key| !rows.iter().any(|row| row.key == key.get_ref())) {
            let written = shown(key.get_ref(), 60);
            let path = join(parent, &written);
            let line = self.line(key.span().start);
            self.problems.places.note(&path, line);
            let near = rows
                .iter()
                .map(|row| (distance(row.key, &written), row.key))
                .min()
                .filter(|(distance, near)| *distance <= 1 + near.len() / 4);
            self.problems.error(
                &path,
                match near {
                    Some((_, near)) => Fault::MisspeltKey { key: written, near: near.into() },
                    None => Fault::UnknownKey {
                        key: written,
                        known: rows.iter().map(|row| row.key).collect::<Vec<_>>().join(", "),
                    },
                },
            );
        }
    }

    /// The table behind `value`.
    pub fn table<'v, 'i, T: Value>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        path: &str,
    ) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type::<T>(value, path);
        }
        table
    }

    fn wrong_type<T: Value>(&mut self, value: &Spanned<DeValue<'_>>, path: &str) {
        let found = value.get_ref().type_str().to_owned();
        self.problems.error(path, Fault::WrongType { found, example: T::example() });
    }

    fn text_of<'v, T: Value>(&mut self, value: &'v Spanned<DeValue<'_>>, path: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type::<T>(value, path);
        }
        text
    }

    fn line(&self, offset: usize) -> u32 {
        let before = self.text.as_bytes().iter().take(offset);
        u32::try_from(before.filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX).saturating_add(1)
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// Edit distance between two short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

impl<T: Value> Value for Vec<At<T>> {
    const ROWS: &'static [Row] = T::ROWS;
    const LIST: bool = true;

    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn example() -> String {
        format!("[{}]", T::example())
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type::<Self>(value, path);
            return None;
        };
        let mut list = Self::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let line = reader.line(item.span().start);
            reader.problems.places.note(&path, line);
            list.extend(T::read(item, &path, reader).map(|value| At { value, path }));
        }
        Some(list)
    }
}

impl Value for u64 {
    fn kind() -> String {
        "number".into()
    }

    fn example() -> String {
        "300".into()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(number) = value.get_ref().as_integer() else {
            reader.wrong_type::<Self>(value, path);
            return None;
        };
        let read = Self::from_str_radix(number.as_str(), number.radix()).ok();
        if read.is_none() {
            let value = shown(number.as_str(), 40);
            reader.problems.error(path, Fault::OutOfRange { value, low: 0, high: i64::MAX.unsigned_abs() });
        }
        read
    }
}

impl Value for bool {
    fn kind() -> String {
        "true or false".into()
    }

    fn example() -> String {
        "true".into()
    }

    fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            reader.wrong_type::<Self>(value, path);
        }
        read
    }
}

/// Implements [`Value`] for something written as a string.
macro_rules! text_value {
    ($type:ty, $kind:literal, $example:literal, $read:expr) => {
        impl Value for $type {
            fn kind() -> String {
                $kind.into()
            }

            fn example() -> String {
                format!("{:?}", $example)
            }

            fn read(value: &Spanned<DeValue<'_>>, path: &str, reader: &mut Reader<'_>) -> Option<Self> {
                let text = reader.text_of::<Self>(value, path)?;
                let read: fn(&str) -> Result<Self, Option<Fault>> = $read;
                match read(text) {
                    Ok(value) => Some(value),
                    Err(fault) => {
                        let bad = || Fault::BadValue { value: shown(text, 80), example: Self::example() };
                        reader.problems.error(path, fault.unwrap_or_else(bad));
                        None
                    }
                }
            }
        }
    };
}

text_value!(String, "string", "Office of Finance", |text| Ok(text.to_owned()));
text_value!(PathBuf, "path", "/var/lib/sampan/key", |text| Ok(text.into()));
text_value!(Prefix6, "IPv6 prefix", "2001:db8:6::/64", |text| text
    .parse()
    .map_err(|error| prefix_fault(text, error, 128)));
text_value!(Prefix4, "IPv4 prefix", "198.51.100.0/28", |text| text
    .parse()
    .map_err(|error| prefix_fault(text, error, 32)));
text_value!(PrefixAny, "IPv6 or IPv4 prefix", "2001:db8:6::/64", |text| text
    .parse()
    .map_err(|error| prefix_fault(text, error, if text.contains(':') { 128 } else { 32 })));
text_value!(Ipv4Addr, "IPv4 address", "198.51.100.1", |text| text.parse().map_err(|_| None));
text_value!(Ipv6Addr, "IPv6 address", "2001:db8::1", |text| text.parse().map_err(|_| None));
text_value!(Pref64, "translation prefix", "2001:db8:64::/96", |text| {
    text.parse().map_err(|error| match error {
        Pref64Error::Prefix(error) => prefix_fault(text, error, 96),
        Pref64Error::Length(len) => Some(Fault::Pref64Length { len }),
        Pref64Error::OctetU => Some(Fault::OctetU),
    })
});
text_value!(RangeInclusive<u16>, "port range", "1024-65535", |text| {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| None);
    Ok(port(low)?..=port(high)?)
});
text_value!(SocketAddr, "address with optional port", "[2001:db8:6::1]:53", |text| {
    address(text, 53).ok_or(None)
});
text_value!(ListenOn<853>, "address with optional port", "[2001:db8:6::1]:853", |text| {
    address(text, 853).map(ListenOn).ok_or(None)
});
text_value!(ListenOn<443>, "address with optional port", "[2001:db8:6::1]:443", |text| {
    address(text, 443).map(ListenOn).ok_or(None)
});
text_value!(Upstream, "resolver", "[2001:db8:6::1]:53", |text| upstream(text).ok_or(None));
text_value!(Name, "domain name", "intranet.example", |text| {
    let name = Name::from_utf8(text).map_err(|_| None)?;
    if name.is_root() || text.contains(char::is_whitespace) { Err(None) } else { Ok(absolute(name)) }
});
text_value!(Synthesis, "`synthesise`, `pass` or `always`", "synthesise", |text| match text {
    "synthesise" => Ok(Synthesis::Synthesise),
    "pass" => Ok(Synthesis::Pass),
    "always" => Ok(Synthesis::Always),
    _ => Err(None),
});
text_value!(OnError, "`use-a` or `fail`", "use-a", |text| match text {
    "use-a" => Ok(OnError::UseA),
    "fail" => Ok(OnError::Fail),
    _ => Err(None),
});
text_value!(WhenDown, "`stale`, `servfail` or `nodata`", "stale", |text| match text {
    "stale" => Ok(WhenDown::Stale),
    "servfail" => Ok(WhenDown::ServFail),
    "nodata" => Ok(WhenDown::NoData),
    _ => Err(None),
});
text_value!(Transport, "`udp`, `tcp`, `tls` or `https`", "udp", |text| match text {
    "udp" => Ok(Transport::Udp),
    "tcp" => Ok(Transport::Tcp),
    "tls" => Ok(Transport::Tls),
    "https" => Ok(Transport::Https),
    _ => Err(None),
});
text_value!(
    Filter,
    "`endpoint-independent` or `address-dependent`",
    "endpoint-independent",
    |text| match text {
        "endpoint-independent" => Ok(Filter::EndpointIndependent),
        "address-dependent" => Ok(Filter::AddressDependent),
        _ => Err(None),
    }
);
text_value!(Assignment, "`dynamic` or `permuted`", "dynamic", |text| match text {
    "dynamic" => Ok(Assignment::Dynamic),
    "permuted" => Ok(Assignment::Permuted),
    _ => Err(None),
});
text_value!(Pairing, "`hard` or `soft`", "hard", |text| match text {
    "hard" => Ok(Pairing::Hard),
    "soft" => Ok(Pairing::Soft),
    _ => Err(None),
});
text_value!(Eviction, "`sessions`, `mappings` or `off`", "sessions", |text| match text {
    "sessions" => Ok(Eviction::Sessions),
    "mappings" => Ok(Eviction::Mappings),
    "off" => Ok(Eviction::Off),
    _ => Err(None),
});
text_value!(Protocol, "`tcp`, `udp` or `icmp`", "tcp", |text| match text {
    "tcp" => Ok(Protocol::Tcp),
    "udp" => Ok(Protocol::Udp),
    "icmp" => Ok(Protocol::Icmp),
    _ => Err(None),
});
text_value!(HoldSyn, "`tell`, `silent` or `off`", "tell", |text| match text {
    "tell" => Ok(HoldSyn::Tell),
    "silent" => Ok(HoldSyn::Silent),
    "off" => Ok(HoldSyn::Off),
    _ => Err(None),
});
text_value!(StrayTcp, "`static`, `forward` or `drop`", "static", |text| match text {
    "static" => Ok(StrayTcp::Static),
    "forward" => Ok(StrayTcp::Forward),
    "drop" => Ok(StrayTcp::Drop),
    _ => Err(None),
});
text_value!(Mode, "`routed`, `onlink` or `shared`", "routed", |text| match text {
    "routed" => Ok(Mode::Routed),
    "onlink" => Ok(Mode::OnLink),
    "shared" => Ok(Mode::Shared),
    _ => Err(None),
});
text_value!(FastMode, "`auto`, `on`, `off` or `require`", "auto", |text| match text {
    "auto" => Ok(FastMode::Auto),
    "on" => Ok(FastMode::On),
    "off" => Ok(FastMode::Off),
    "require" => Ok(FastMode::Require),
    _ => Err(None),
});
text_value!(Home, "`ipv6` or `ipv4`", "ipv6", |text| match text {
    "ipv6" => Ok(Home::V6),
    "ipv4" => Ok(Home::V4),
    _ => Err(None),
});
text_value!(ZeroChecksum, "`drop` or `compute`", "drop", |text| match text {
    "drop" => Ok(ZeroChecksum::Drop),
    "compute" => Ok(ZeroChecksum::Compute),
    _ => Err(None),
});
text_value!(Hairpin, "`intrinsic`, `simple` or `off`", "intrinsic", |text| match text {
    "intrinsic" => Ok(Hairpin::Intrinsic),
    "simple" => Ok(Hairpin::Simple),
    "off" => Ok(Hairpin::Off),
    _ => Err(None),
});
text_value!(Level, "`error`, `warn`, `info`, `debug` or `trace`", "info", |text| match text {
    "error" => Ok(Level::Error),
    "warn" => Ok(Level::Warn),
    "info" => Ok(Level::Info),
    "debug" => Ok(Level::Debug),
    "trace" => Ok(Level::Trace),
    _ => Err(None),
});

/// An address whose port may be left out.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let with_port = text.parse::<SocketAddr>().ok();
    with_port.or_else(|| Some((bare.parse::<IpAddr>().ok()?, port).into()))
}

/// `address`, `tls://address#name` or `https://address/path#name`.
fn upstream(text: &str) -> Option<Upstream> {
    let named = |text: &str| {
        let (place, name) = text.split_once('#')?;
        let name = Name::from_ascii(name).ok().filter(|name| !name.is_root())?;
        Some((place.to_owned(), name.to_ascii().trim_end_matches('.').to_owned()))
    };
    if let Some(rest) = text.strip_prefix("tls://") {
        let (place, name) = named(rest)?;
        return Some(Upstream { addr: address(&place, 853)?, over: Over::Tls { name } });
    }
    if let Some(rest) = text.strip_prefix("https://") {
        let (place, name) = named(rest)?;
        let (place, path) = place.split_once('/')?;
        return Some(Upstream {
            addr: address(place, 443)?,
            over: Over::Https { name, path: format!("/{path}") },
        });
    }
    address(text, 53).map(Upstream::from)
}

/// The name with its root, which people leave out.
fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn prefix_fault(text: &str, error: PrefixError, max: u8) -> Option<Fault> {
    let value = shown(text, 80);
    match error {
        PrefixError::Syntax => None,
        PrefixError::Length => Some(Fault::PrefixLength { value, max }),
        PrefixError::HostBits(meant) => Some(Fault::HostBits { value, meant }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        assert_eq!(distance("pool6", "pool6"), 0);
        assert_eq!(distance("pool6", "pol6"), 1);
        assert_eq!(distance("udp-timeout", "udp_timeout"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
