//! The TCP state machine of RFC 6146 §3.5.2.2, as a function of state, side and flags.

use crate::wire::l4::TcpFlags;

/// State of a session. UDP and ICMP sessions are always [`State::Active`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// UDP or ICMP.
    Active,
    /// A SYN came from IPv4.
    V4Init,
    /// A SYN came from IPv6.
    V6Init,
    /// Both SYNs were seen.
    Established,
    /// A FIN came from IPv4.
    V4Fin,
    /// A FIN came from IPv6.
    V6Fin,
    /// Both FINs were seen.
    BothFin,
    /// A RST was seen, or the established session was idle too long.
    Trans,
}

impl State {
    /// The RFC's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::V4Init => "V4_INIT",
            Self::V6Init => "V6_INIT",
            Self::Established => "ESTABLISHED",
            Self::V4Fin => "V4_FIN_RCV",
            Self::V6Fin => "V6_FIN_RCV",
            Self::BothFin => "V4_FIN_RCV+V6_FIN_RCV",
            Self::Trans => "TRANS",
        }
    }
}

/// Where a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The IPv6 client.
    V6,
    /// The IPv4 peer.
    V4,
}

/// Which lifetime a session gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It keeps what is left.
    Keep,
    /// TCP_TRANS while opening.
    TransOpen,
    /// TCP_TRANS while closing.
    TransClose,
    /// TCP_EST.
    Established,
    /// The UDP lifetime.
    Udp,
    /// The ICMP lifetime.
    Icmp,
}

/// What a segment does to a session that exists. Every segment is forwarded.
#[inline]
pub const fn segment(state: State, side: Side, flags: TcpFlags) -> (State, Lifetime) {
    let syn = flags.has(TcpFlags::SYN);
    let fin = flags.has(TcpFlags::FIN);
    let rst = flags.has(TcpFlags::RST);
    match (state, side) {
        (State::Active, _) => (State::Active, Lifetime::Keep),
        (State::V4Init, Side::V6) if syn => (State::Established, Lifetime::Established),
        (State::V4Init, _) => (State::V4Init, Lifetime::Keep),
        (State::V6Init, Side::V4) if syn => (State::Established, Lifetime::Established),
        (State::V6Init, Side::V6) if syn => (State::V6Init, Lifetime::TransOpen),
        (State::V6Init, _) => (State::V6Init, Lifetime::Keep),
        (State::Established, _) if rst => (State::Trans, Lifetime::TransClose),
        (State::Established, Side::V4) if fin => (State::V4Fin, Lifetime::Keep),
        (State::Established, Side::V6) if fin => (State::V6Fin, Lifetime::Keep),
        (State::Established, _) => (State::Established, Lifetime::Established),
        (State::V4Fin, Side::V6) if fin => (State::BothFin, Lifetime::TransClose),
        (State::V4Fin, _) => (State::V4Fin, Lifetime::Established),
        (State::V6Fin, Side::V4) if fin => (State::BothFin, Lifetime::TransClose),
        (State::V6Fin, _) => (State::V6Fin, Lifetime::Established),
        (State::BothFin, _) => (State::BothFin, Lifetime::Keep),
        (State::Trans, _) if rst => (State::Trans, Lifetime::Keep),
        (State::Trans, _) => (State::Established, Lifetime::Established),
    }
}

/// What becomes of a session whose lifetime is over: an established one gets a last chance (§3.5.2.2), every
/// other one is deleted.
pub const fn timeout(state: State) -> Option<(State, Lifetime)> {
    match state {
        State::Established => Some((State::Trans, Lifetime::TransClose)),
        State::Active
        | State::V4Init
        | State::V6Init
        | State::V4Fin
        | State::V6Fin
        | State::BothFin
        | State::Trans => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Lifetime::{Keep, TransClose, TransOpen};
    use Side::*;
    use State::*;

    const SYN: u8 = TcpFlags::SYN;
    const FIN: u8 = TcpFlags::FIN;
    const RST: u8 = TcpFlags::RST;
    const ACK: u8 = TcpFlags::ACK;

    #[test]
    fn f30_every_row_of_the_table() {
        let rows = [
            (V4Init, V6, SYN, Established, Lifetime::Established),
            (V4Init, V4, SYN, V4Init, Keep),
            (V4Init, V6, ACK, V4Init, Keep),
            (V6Init, V4, SYN, Established, Lifetime::Established),
            (V6Init, V4, SYN | ACK, Established, Lifetime::Established),
            (V6Init, V6, SYN, V6Init, TransOpen),
            (V6Init, V4, RST, V6Init, Keep),
            (V6Init, V6, ACK, V6Init, Keep),
            (Established, V4, FIN, V4Fin, Keep),
            (Established, V6, FIN, V6Fin, Keep),
            (Established, V4, RST, Trans, TransClose),
            (Established, V6, RST | ACK, Trans, TransClose),
            (Established, V6, ACK, Established, Lifetime::Established),
            (V4Fin, V6, FIN, BothFin, TransClose),
            (V4Fin, V4, FIN, V4Fin, Lifetime::Established),
            (V4Fin, V6, RST, V4Fin, Lifetime::Established),
            (V6Fin, V4, FIN, BothFin, TransClose),
            (V6Fin, V4, RST, V6Fin, Lifetime::Established),
            (V6Fin, V6, ACK, V6Fin, Lifetime::Established),
            (BothFin, V6, ACK, BothFin, Keep),
            (BothFin, V4, RST, BothFin, Keep),
            (Trans, V6, ACK, Established, Lifetime::Established),
            (Trans, V4, SYN, Established, Lifetime::Established),
            (Trans, V4, RST, Trans, Keep),
        ];
        for (state, side, flags, next, lifetime) in rows {
            assert_eq!(
                segment(state, side, TcpFlags(flags)),
                (next, lifetime),
                "{state:?} {side:?} {flags:#x}"
            );
        }
        assert_eq!(timeout(Established), Some((Trans, TransClose)));
        for state in [V4Init, V6Init, V4Fin, V6Fin, BothFin, Trans, Active] {
            assert_eq!(timeout(state), None);
        }
    }
}
