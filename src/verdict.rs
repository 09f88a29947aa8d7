//! What became of a packet. One [`DropReason`] is one counter and one row for the operator.

/// How the life of a packet that came in has ended (or paused).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It left as its translation, whole or in pieces.
    Translated,
    /// It waits, and will be settled later.
    Held,
    /// It was not ours but the machine's, which has got it.
    Returned,
    /// It was refused for the named reason.
    Dropped(DropReason),
}

/// What a packet that goes out is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The translation of one packet.
    Translated,
    /// One of several pieces of a translation.
    Piece,
    /// An ICMP error or notice of our own.
    Originated,
    /// A packet that is the machine's.
    Returned,
}

/// How the life of held packets has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// They became part of another packet.
    Absorbed,
    /// They were dropped for the named reason.
    Dropped(DropReason),
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $meaning:literal,)+) => {
        /// Why a packet was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)+
        }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// Name of the counter.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the counter means, for the operator.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

drop_reasons! {
    Truncated "truncated" "shorter than its headers",
    BadVersion "bad_version" "neither IPv4 nor IPv6",
    BadLength "bad_length" "a length field contradicts the packet or another field",
    BadIpv4Checksum "bad_ipv4_checksum" "IPv4 header checksum is wrong",
    BadIcmpChecksum "bad_icmp_checksum" "checksum of an ICMP error is wrong",
    BadOffload "bad_offload" "offload data from the device contradicts the packet",
    Oversize "oversize" "the translation would be longer than 65535 bytes",
    ExtensionChain "extension_chain" "IPv6 extension headers too many, too long or out of place",
    RoutingHeader "routing_header" "IPv6 routing header with segments left (RFC 7915 5.1)",
    SourceRoute "source_route" "IPv4 source route that has not been used up (RFC 7915 4.1)",
    Fragment "fragment" "a fragment of a message that is not translated in pieces",
    FragmentTiny "fragment_tiny" "a first fragment without the whole transport header (RFC 7112)",
    FragmentOverlap "fragment_overlap" "fragments that overlap; the whole set is given up (RFC 5722)",
    FragmentDuplicate "fragment_duplicate" "a fragment that was there already",
    FragmentLimit "fragment_limit" "more fragments or datagrams than one source or datagram may have waiting",
    FragmentStoreFull "fragment_store_full" "the store for waiting fragments is full",
    FragmentTimeout "fragment_timeout" "the rest of the datagram did not come in time",
    ProtocolRefused "protocol_refused" "IGMP, ICMP of the other family or an IPv6 extension header as a protocol",
    UnknownProtocol "unknown_protocol" "neither TCP, UDP nor ICMP (RFC 6146 3.4)",
    IcmpType "icmp_type" "an ICMP message that has no translation (RFC 7915 4.2, 5.2)",
    IcmpQuote "icmp_quote" "an ICMP error whose quoted packet cannot be read or is itself an ICMP error",
    IcmpPointer "icmp_pointer" "a parameter problem whose pointer has no counterpart",
    UdpZeroChecksum "udp_zero_checksum" "UDP over IPv6 without checksum (RFC 8200 8.1)",
    UdpNoChecksum "udp_no_checksum" "UDP over IPv4 without checksum, in pieces or not wanted (RFC 7915 4.5)",
    IllegalSource "illegal_source" "source address that no packet may come from",
    IllegalDestination "illegal_destination" "multicast or otherwise unusable destination",
    SourceInPool6 "source_in_pool6" "IPv6 source inside pool6 (RFC 6146 3.5)",
    SourceNotServed "source_not_served" "IPv6 source belongs to no unit",
    NotPool6 "not_pool6" "IPv6 destination outside pool6",
    NotPool4 "not_pool4" "IPv4 destination outside pool4",
    SourceNotMapped "source_not_mapped" "source address without an IPv4 counterpart (RFC 7915 6)",
    NonGlobal "non_global" "non-global IPv4 under the well-known prefix (RFC 6052 3.1)",
    NotAllowed "not_allowed" "non-global IPv4 destination that no allow list names",
    OwnAddress "own_address" "IPv4 destination that is an address of the gateway itself",
    HopLimit "hop_limit" "hop limit or TTL used up",
    PacketTooBig "packet_too_big" "too big for the next hop and may not be cut; the sender was told",
    SegmentTooBig "segment_too_big" "a segment of a super-packet is too big for the next hop; the sender was told",
    NoBib "no_bib" "nobody has a mapping for this pool address and port",
    NoSession "no_session" "no session, and this packet may not create one",
    Filtered "filtered" "refused by address-dependent filtering or policy",
    SynUnanswered "syn_unanswered" "a SYN from IPv4 that no client called back in time (RFC 6146 3.5.2.2)",
    SynMet "syn_met" "a SYN from IPv4 that waited and was met by the client's own (RFC 5382 REQ-4)",
    SynRepeated "syn_repeated" "another copy of a SYN from IPv4 that waits already",
    SynStoreFull "syn_store_full" "the store for waiting SYNs from IPv4 is full",
    NotInFlight "not_in_flight" "an ICMP error that quotes a TCP segment which is not on its way (RFC 5927 4.1)",
    PortsExhausted "ports_exhausted" "no free port for this subscriber",
    QuotaPorts "quota_ports" "the subscriber, its network or its unit has all the ports that it may have",
    QuotaSessions "quota_sessions" "the subscriber, its network or its unit has all the sessions that it may have",
    QuotaUnanswered "quota_unanswered" "too many sessions of the subscriber, its network or its unit wait for an answer",
    QuotaRate "quota_rate" "too many new sessions per second of the subscriber, its network or its unit",
    TableFull "table_full" "session, BIB or subscriber table is full",
    RingFull "ring_full" "the ring to the owning worker is full",
    DeviceWrite "device_write" "the device refused the packet",
    Shutdown "shutdown" "still in a ring when the gateway stopped",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_in_order() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
