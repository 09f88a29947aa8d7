//! A device that neither allocates nor looks at what it is given: a fixed set of packets, again and again.

use std::io;

use sampan::io::{Device, Received};
use sampan::wire::packet::{Offload, PacketBuf};

/// Hands out its packets in turn until the ration is used up, and counts what it is sent.
pub struct Carousel {
    packets: Vec<(Vec<u8>, Offload)>,
    next: usize,
    ration: u64,
    /// Packets sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}

impl Carousel {
    pub fn new(packets: Vec<(Vec<u8>, Offload)>) -> Self {
        Self { packets, next: 0, ration: 0, sent: 0, sent_bytes: 0 }
    }

    /// Allows `packets` more to be received.
    pub fn allow(&mut self, packets: u64) {
        self.ration += packets;
    }

    /// Replaces the packets.
    pub fn replace(&mut self, packets: Vec<(Vec<u8>, Offload)>) {
        self.packets = packets;
        self.next = 0;
    }

    pub fn is_done(&self) -> bool {
        self.ration == 0
    }
}

impl Device for Carousel {
    fn recv(&mut self, packet: &mut PacketBuf) -> io::Result<Received> {
        if self.ration == 0 || self.packets.is_empty() {
            return Ok(Received::Nothing);
        }
        self.ration -= 1;
        let (bytes, offload) = &self.packets[self.next];
        self.next = (self.next + 1) % self.packets.len();
        packet.fill(bytes);
        packet.offload = *offload;
        Ok(Received::Packet)
    }

    fn send(&mut self, packet: &mut PacketBuf) -> io::Result<()> {
        self.sent += 1;
        self.sent_bytes += packet.len() as u64;
        Ok(())
    }
}
