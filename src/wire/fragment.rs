//! Where a fragment lies in its datagram (RFC 791 §3.1, RFC 8200 §4.5).

/// Length of an IPv6 Fragment Header.
pub const HEADER: usize = 8;

/// Offset, flag and identification of a fragment of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in bytes, a multiple of 8.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Identification; 16 bits in IPv4.
    pub id: u32,
}

impl Fragment {
    /// Whether the "fragment" is the whole datagram (RFC 6946).
    pub const fn is_atomic(self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Writes an IPv6 Fragment Header.
    pub fn write(&self, next_header: u8, out: &mut [u8; HEADER]) {
        let [hi, lo] = (self.offset & 0xfff8 | u16::from(self.more)).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        *out = [next_header, 0, hi, lo, a, b, c, d];
    }
}
