//! The packets of the golden files as seeds of the fuzzers.

use std::path::Path;

use crate::naive;

/// Offload data of no offload, and settings of nothing special.
const NO_OFFLOAD: [u8; 8] = [0; 8];
const NO_SETTINGS: [u8; 16] = [0; 16];

/// Writes `packets`, in order those of one file, under `dir/TARGET/`.
pub fn write(dir: &Path, name: &str, packets: &[Vec<u8>]) -> std::io::Result<()> {
    let put = |target: &str, number: usize, data: &[u8]| {
        let dir = dir.join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(format!("{}-{number}", name.replace('/', "-"))), data)
    };
    let mut fragments = vec![0];
    // One worker, plain settings.
    let mut sequence = vec![0, 0, 0];
    for (number, packet) in packets.iter().enumerate().filter(|(_, p)| p.len() <= 2048) {
        put("wire_parse", number, &[&NO_OFFLOAD, &packet[..]].concat())?;
        let target = if packet.first().is_some_and(|b| b >> 4 == 6) { "xlat_6to4" } else { "xlat_4to6" };
        put(target, number, &[&NO_SETTINGS, &packet[..]].concat())?;
        // Any packet: see `icmp_quote`.
        put("icmp_quote", number, &[&[7], &packet[..]].concat())?;
        if let Ok(len) = u8::try_from(packet.len()) {
            // No time step; any bytes: see `fragments`.
            if naive::read(packet, true).is_ok_and(|ip| ip.fragment.is_some()) {
                fragments.extend([&[0, 255, len], &packet[..]].concat());
            }
            // Any bytes, queue 0: see `whole_box`.
            sequence.extend([&[8, len], &packet[..], &[0]].concat());
        }
    }
    if fragments.len() > 1 {
        put("fragments", 0, &fragments)?;
    }
    put("whole_box", 0, &sequence)
}
