//! Programs and maps into the kernel: probe, load or take over, attach, detach, remove.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use aya::maps::{Map, MapData};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};
use aya::{EbpfError, EbpfLoader, include_bytes_aligned};
use caps::{CapSet, Capability};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nameindex;
use nix::sys::statfs::{FsType, statfs};

use super::fault::Fault;
use super::{Config, Side, index};

/// Built by `deploy/build-bpf`, which a test runs to compare.
static OBJECT: &[u8] = include_bytes_aligned!("../bpf/fastpath.bpf.o");
/// All maps, each pinned under its name.
const MAPS: [&str; 9] =
    ["index6", "index4", "records", "config", "scopes", "counters", "buckets", "idents", "notices"];
/// Beginning of the names under which programs are pinned.
const PROGRAM: &str = "program-";
/// Where our filters stand among those of an interface; both fixed, so that a successor replaces them.
const PRIORITY: u16 = 0x5a6;
const BPF_FS: FsType = FsType(0xcafe_4a11);
const OLDEST_KERNEL: (u32, u32) = (6, 1);

impl Side {
    const fn program(self) -> &'static str {
        match self {
            Self::Inside => "sampan_v6",
            Self::Outside => "sampan_v4",
        }
    }

    const fn handle(self) -> TcHandle {
        match self {
            Self::Inside => TcHandle::new(0, 6),
            Self::Outside => TcHandle::new(0, 4),
        }
    }
}

/// Whether there is any use in trying.
pub(super) fn probe() -> Result<(), Fault> {
    let name = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = name.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        return Err(Fault::OldKernel { found: release });
    }
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if !has(Capability::CAP_NET_ADMIN) {
        return Err(Fault::NoPrivileges { reason: "no CAP_NET_ADMIN".into() });
    }
    let may_load = has(Capability::CAP_SYS_ADMIN) || has(Capability::CAP_BPF) && has(Capability::CAP_PERFMON);
    if !may_load {
        return Err(Fault::NoPrivileges { reason: "no CAP_BPF and CAP_PERFMON".into() });
    }
    Ok(())
}

/// The programs of both sides.
pub(super) struct Programs {
    inside: SchedClassifier,
    outside: SchedClassifier,
}

impl Programs {
    const fn of(&mut self, side: Side) -> &mut SchedClassifier {
        match side {
            Side::Inside => &mut self.inside,
            Side::Outside => &mut self.outside,
        }
    }
}

/// The programs over the maps in `config.pin_dir`: those that are there, or new ones. Another gateway's programs that
/// come from the same object are as good as new: having them checked again would be a third of a start.
pub(super) fn load(config: &Config) -> Result<Programs, Fault> {
    let pins = &config.pin_dir;
    let failed = |e: io::Error| pins_fault(pins, &e);
    prepare(pins).map_err(failed)?;
    if MAPS.iter().any(|name| !pins.join(name).exists()) {
        // None is there, or a start broke off in the middle.
        unpin(pins, |_| true).map_err(failed)?;
    }
    let names = [Side::Inside, Side::Outside].map(pinned_name);
    if names.iter().any(|name| !pins.join(name).exists()) {
        unpin(pins, |name| name.starts_with(PROGRAM)).map_err(failed)?;
        make(config, &names)?;
    }
    let [inside, outside] = names.map(|name| SchedClassifier::from_pin(pins.join(name)));
    let refused = |e| refused(&EbpfError::ProgramError(e));
    Ok(Programs { inside: inside.map_err(refused)?, outside: outside.map_err(refused)? })
}

/// Has the kernel check the programs, and pins them under `names`.
fn make(config: &Config, names: &[String; 2]) -> Result<(), Fault> {
    let pins = &config.pin_dir;
    let mut loader = EbpfLoader::new();
    let flows = config.max_flows.clamp(1, index::MOST);
    let lines = index::lines_for(flows);
    for (name, count) in [("records", flows), ("index6", lines), ("index4", lines)] {
        loader.map_max_entries(name, count);
    }
    for name in MAPS {
        loader.map_pin_path(name, pins.join(name));
    }
    let mut programs = loader.load(OBJECT).map_err(|e| refused(&e))?;
    for (side, name) in [Side::Inside, Side::Outside].into_iter().zip(names) {
        let missing = || Fault::Refused { reason: format!("no program {} in the object", side.program()) };
        let program = programs.program_mut(side.program()).and_then(|p| p.try_into().ok());
        let program: &mut SchedClassifier = program.ok_or_else(missing)?;
        program.load().map_err(|e| refused(&EbpfError::ProgramError(e)))?;
        program.pin(pins.join(name)).map_err(|e| pins_fault(pins, &io::Error::other(e)))?;
    }
    Ok(())
}

/// The name under which the program of a side is pinned: another object has another one.
fn pinned_name(side: Side) -> String {
    // FNV-1a; nobody chooses what goes in, and a version that differs in one byte has another number.
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = OBJECT.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{PROGRAM}{}-{hash:016x}", side.program())
}

/// A map that is pinned in `pins`.
pub(super) fn map(pins: &Path, name: &'static str) -> Result<MapData, Fault> {
    let refused = |e| refused(&EbpfError::MapError(e));
    // The list of the library's kinds of maps is open.
    #[allow(clippy::wildcard_enum_match_arm)]
    match MapData::from_pin(pins.join(name)).and_then(Map::from_map_data).map_err(refused)? {
        Map::Array(map) | Map::PerCpuArray(map) => Ok(map),
        _ => Err(Fault::Refused { reason: format!("map {name} is of another kind") }),
    }
}

/// A descriptor of the program of `side`.
pub(super) fn program(programs: &mut Programs, side: Side) -> io::Result<OwnedFd> {
    programs.of(side).fd().map_err(io::Error::other)?.as_fd().try_clone_to_owned()
}

/// Puts the program of `side` on an interface, in place of one that a predecessor left there.
pub(super) fn attach(programs: &mut Programs, side: Side, interface: &str) -> Result<(), Fault> {
    let fault = |reason: String| Fault::Interface { name: interface.to_owned(), reason };
    check_link(interface).map_err(fault)?;
    let program = programs.of(side);
    // It is there already, or the next step says what is wrong.
    let _ = qdisc_add_clsact(interface);
    let (kind, handle) = (TcAttachType::Ingress, side.handle());
    let old = SchedClassifierLink::attached(interface, kind, PRIORITY, handle, None)
        .map_err(|e| fault(e.to_string()))?;
    let options =
        || TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle, ..NlOptions::default() });
    let id = match program.attach_to_link(old) {
        Ok(id) => id,
        Err(_) => program
            .attach_with_options(interface, kind, options())
            .map_err(|e| fault(format!("tc does not take the program: {e}")))?,
    };
    let link = program.take_link(id).map_err(|e| fault(e.to_string()))?;
    // The filter is to survive this process.
    std::mem::forget(link);
    Ok(())
}

/// Takes our program of `side` off every interface for which `is_wanted` is false.
pub(super) fn detach(side: Side, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for interface in &if_nameindex()? {
        let name = interface.name().to_string_lossy();
        if is_wanted(&name) {
            continue;
        }
        // No filter, no clsact or no such device any more: then there is nothing to take off.
        let _ = tc::qdisc_detach_program(&name, TcAttachType::Ingress, side.program());
    }
    Ok(())
}

/// Removes what of ours is pinned in `pins` under a name for which `which` is true.
pub(super) fn unpin(pins: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    let found = match fs::read_dir(pins) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for entry in found {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if (MAPS.contains(&&*name) || name.starts_with(PROGRAM)) && which(&name) {
            fs::remove_file(pins.join(&*name))?;
        }
    }
    Ok(())
}

/// Removes the empty directory of the pins, and the file system that was mounted there for it.
pub(super) fn remove_dir(pins: &Path) -> io::Result<()> {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let is_mount = is_bpf_fs(pins) && pins.parent().is_some_and(|parent| device(parent) != device(pins));
    if is_mount {
        umount2(pins, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir(pins) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether `dir` is on a bpf file system.
pub(super) fn is_bpf_fs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| found.filesystem_type() == BPF_FS)
}

/// Makes the directory of the pins, on a bpf file system.
fn prepare(pins: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(pins)?;
    if !is_bpf_fs(pins) {
        mount(
            Some("bpf"),
            pins,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            None::<&str>,
        )?;
    }
    Ok(())
}

/// Only links whose packets begin with an Ethernet header.
fn check_link(interface: &str) -> Result<(), String> {
    let links = nix::ifaddrs::getifaddrs().map_err(|e| e.to_string())?;
    let mut found = false;
    for link in links.filter(|link| link.interface_name == interface) {
        found = true;
        if let Some(address) = link.address.as_ref().and_then(|a| a.as_link_addr()) {
            return if address.hatype() == libc::ARPHRD_ETHER {
                Ok(())
            } else {
                Err("it has no Ethernet header".into())
            };
        }
    }
    Err(if found { "it has no Ethernet header".into() } else { "there is no such interface".into() })
}

fn pins_fault(pins: &Path, error: &io::Error) -> Fault {
    let (path, reason) = (pins.display(), error.to_string());
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Fault::NoPrivileges { reason: format!("{path}: {reason}") };
    }
    Fault::Pins { path: path.to_string(), reason }
}

/// One line about what the kernel did not like. The verifier's report is long; its end has the reason.
fn refused(error: &EbpfError) -> Fault {
    let text = if let EbpfError::ProgramError(ProgramError::LoadError { io_error, verifier_log }) = error {
        let log = verifier_log.to_string();
        let last = log.lines().rev().find(|l| !l.trim().is_empty() && !l.starts_with("processed"));
        format!("{io_error}: {}", last.unwrap_or("no report"))
    } else {
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let reason = crate::text::shown(&text, 300);
    if text.contains("Operation not permitted") || text.contains("Permission denied (os") {
        return Fault::NoPrivileges { reason };
    }
    Fault::Refused { reason }
}
