//! How a question ended: one variant, one counter, one row in `docs/dns64.md`.

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// How a question ended. Every datagram or TCP message that arrives ends as exactly one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $variant,)*
        }

        impl Outcome {
            /// All outcomes, in table order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in counters and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

outcomes! {
    /// An AAAA question with real AAAA records, handed on.
    Native = "native",
    /// An AAAA question answered with records made from A records.
    Synthesised = "synthesised",
    /// An AAAA question for a name with neither record.
    NoData = "nodata",
    /// An AAAA question for a name whose A records may not be translated (RFC 6052 §3.1, or the operator's word);
    /// answered as empty.
    SpecialPurpose = "special_purpose",
    /// An AAAA question for a name that does not exist.
    NxDomain = "nxdomain",
    /// No usable answer from any upstream, or the upstream's own error, handed on.
    ServFail = "servfail",
    /// The upstream found the AAAA answer bogus by DNSSEC; nothing is made from A records then.
    Bogus = "bogus",
    /// An AAAA question for a name that needs the translator, while that is down.
    TranslatorDown = "translator_down",
    /// Any other question, handed on with its answer unchanged.
    Forwarded = "forwarded",
    /// An A question of a client that gets no A records.
    Filtered = "filtered",
    /// Answered here: `ipv4only.arpa` and the reverse names of its synthetic addresses.
    Local = "local",
    /// A PTR question inside a translation prefix, answered from `in-addr.arpa`.
    Reverse = "reverse",
    /// An ANY question over UDP, told to come back over TCP.
    AnyToTcp = "any_to_tcp",
    /// A zone transfer or another type that a resolver does not serve.
    RefusedType = "refused_type",
    /// The client is not in the allowed networks.
    NotAllowed = "not_allowed",
    /// A malformed query with a readable header.
    FormErr = "formerr",
    /// An opcode other than QUERY.
    NotImp = "notimp",
    /// An EDNS version above 0.
    BadVers = "badvers",
    /// Not a query at all (too short, or a response); no reply is sent.
    Ignored = "ignored",
    /// Too many questions in flight; dropped (UDP) or answered SERVFAIL (TCP).
    Busy = "busy",
    /// A client over its limit; told to come back over TCP, or dropped.
    Limited = "limited",
}

/// What an outcome means for an organisation on its way to IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Reached over IPv6.
    Native,
    /// Reached through the translator.
    Synthesised,
    /// Has only IPv4 that is not reached.
    Ipv4Only,
    /// Could not be answered.
    Failed,
    /// Everything else: other types, names that do not exist, bad queries.
    Other,
}

impl Class {
    /// All classes, in table order.
    pub const ALL: [Self; 5] = [Self::Native, Self::Synthesised, Self::Ipv4Only, Self::Failed, Self::Other];

    /// The name in counters and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Synthesised => "synthesised",
            Self::Ipv4Only => "ipv4_only",
            Self::Failed => "failed",
            Self::Other => "other",
        }
    }
}

impl Outcome {
    /// The class that it counts in.
    pub const fn class(self) -> Class {
        match self {
            Self::Native => Class::Native,
            Self::Synthesised => Class::Synthesised,
            Self::SpecialPurpose => Class::Ipv4Only,
            Self::ServFail | Self::Bogus | Self::TranslatorDown | Self::Busy => Class::Failed,
            Self::NoData
            | Self::NxDomain
            | Self::Forwarded
            | Self::Filtered
            | Self::Local
            | Self::Reverse
            | Self::AnyToTcp
            | Self::RefusedType
            | Self::NotAllowed
            | Self::FormErr
            | Self::NotImp
            | Self::BadVers
            | Self::Ignored
            | Self::Limited => Class::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_indexes_match() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, i);
            assert_eq!(Outcome::ALL.iter().filter(|o| o.name() == outcome.name()).count(), 1);
        }
    }
}
