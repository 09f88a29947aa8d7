//! Checked settings of ports and quotas: how ports are chosen, how long they rest, and who may have how much.

use std::time::Duration;

/// RFC 6888 REQ-8: how long a freed port should rest before somebody else gets it.
pub const HOLD_DOWN: Duration = Duration::from_secs(120);
/// First port above the system ports; RFC 4787 REQ-3a keeps both ranges apart.
pub const FIRST_USER_PORT: u16 = 1024;
/// Length of the IPv6 prefix that one network quota counts.
pub const NETWORK_LEN: u8 = 64;

/// How blocks come to subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignment {
    /// When a subscriber appears, from those that are free; a journal remembers them.
    #[default]
    Dynamic,
    /// The first block of every declared subscriber is a keyed permutation of its number.
    Permuted,
}

/// What happens when the pool address of a subscriber has no more ports for it (RFC 7857 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Its new mappings are refused.
    #[default]
    Hard,
    /// It gets ports of another address.
    Soft,
}

/// Which waiting sessions give way when the session table is full. None that was ever answered does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None.
    Off,
    /// The oldest unanswered one whose mapping lives on (RFC 6888 REQ-11d: no mapping is deleted to make room).
    #[default]
    Sessions,
    /// The oldest unanswered one, and its mapping with it if it was the last.
    Mappings,
}

/// How ports are chosen and given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    /// An even port becomes an even one, for UDP (RFC 4787 REQ-4).
    pub parity: bool,
    /// Ports below 1024 become ports below 1024, and others others (RFC 4787 REQ-3a).
    pub range: bool,
    /// The client's port keeps its place inside the block where that is free. Otherwise every place is equally likely.
    pub preserve: bool,
    /// What a subscriber gets when its address has nothing left.
    pub pairing: Pairing,
    /// How long a freed port rests, except a TCP port (RFC 6888 REQ-8a).
    pub hold_down: Duration,
    /// Most ports that rest, of all workers together; beyond it the one that has rested longest is let go.
    pub hold_down_max: u32,
    /// How long a block without mappings stays with its subscriber.
    pub block_idle: Duration,
    /// Most blocks of one subscriber; 0 is no limit.
    pub max_blocks: u16,
    /// Blocks of each pool address that subscribers share who have their most; 0 is none.
    pub overflow_blocks: u16,
}

impl Default for PortPolicy {
    fn default() -> Self {
        Self {
            parity: true,
            range: true,
            preserve: false,
            pairing: Pairing::Hard,
            hold_down: HOLD_DOWN,
            hold_down_max: 65_536,
            block_idle: HOLD_DOWN,
            max_blocks: 0,
            overflow_blocks: 0,
        }
    }
}

/// How much one account may have. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Ports and ICMP identifiers (mappings).
    pub ports: u32,
    /// Sessions.
    pub sessions: u32,
    /// Sessions that nobody has answered yet.
    pub unanswered: u32,
    /// New sessions per second.
    pub new_per_second: u32,
}

/// Quotas of everybody, and what happens when the tables are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of one subscriber.
    pub subscriber: Quota,
    /// Of one /64, when a subscriber is smaller than that.
    pub network: Quota,
    /// What gives way when the session table is full.
    pub eviction: Eviction,
}
