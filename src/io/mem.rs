//! A device of queues, for tests, fuzzers and the model: the same engine and worker run on it.

use std::collections::VecDeque;
use std::io;

use super::{Device, Received};
use crate::wire::packet::{Offload, PacketBuf};

/// Packets to be received, and packets that were sent, oldest first.
#[derive(Debug, Default)]
pub struct MemDevice {
    /// To be received.
    pub input: VecDeque<(Vec<u8>, Offload)>,
    /// Sent.
    pub output: VecDeque<(Vec<u8>, Offload)>,
    /// Refuse what is sent.
    pub refuse: bool,
}

impl Device for MemDevice {
    fn recv(&mut self, packet: &mut PacketBuf) -> io::Result<Received> {
        let Some((bytes, offload)) = self.input.pop_front() else { return Ok(Received::Nothing) };
        packet.fill(&bytes);
        packet.offload = offload;
        Ok(Received::Packet)
    }

    fn send(&mut self, packet: &mut PacketBuf) -> io::Result<()> {
        if self.refuse {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.output.push_back((packet.bytes().to_vec(), packet.offload));
        Ok(())
    }
}
