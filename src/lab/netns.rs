//! Network namespaces: made, entered, emptied and removed.
//!
//! A thread that is in a namespace starts programs there and opens sockets there; no `nsenter` and no unsafe code
//! is needed, and the rest of the process stays where it was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LabError;
use super::tool::Tool;

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";

/// A named network namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace of that name, whether it exists or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// Makes it. Two `ip netns add` at once can disturb each other the first time on a machine, so it tries again.
    pub fn create(&self) -> Result<(), LabError> {
        let mut last = Tool::new("ip").args(["netns", "add", &self.name]).run()?;
        for _ in 0..4 {
            if last.ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
            last = Tool::new("ip").args(["netns", "add", &self.name]).run()?;
        }
        last.check().map(drop)
    }

    /// Moves the calling thread into it, for good.
    pub fn enter(&self) -> Result<(), LabError> {
        let file = File::open(self.path()).map_err(LabError::io(format!("open namespace {}", self.name)))?;
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(LabError::errno(format!("enter namespace {}", self.name)))
    }

    /// Runs `work` on a thread inside; sockets that it returns stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets `/proc/sys/net/…` values inside: `("ipv4/ip_forward", "1")`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .map_err(LabError::io(format!("set net/{key} in {}", self.name)))?;
            }
            Ok(())
        })?
    }

    /// Removes the name; the kernel removes the rest when the last process is gone.
    pub fn delete(&self) -> Result<(), LabError> {
        let path = self.path();
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(LabError::errno(format!("unmount {}", path.display()))(errno)),
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(LabError::io(format!("remove {}", path.display()))(error)),
        }
    }

    /// Names of all namespaces that start with `prefix`.
    pub fn list(prefix: &str) -> Vec<Self> {
        let mut found: Vec<_> = fs::read_dir(NAMED)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .map(Self::named)
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

/// Gives the calling thread its own view of the file system, with some files replaced.
pub fn replace_files(files: &[(PathBuf, &str)]) -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(LabError::errno("make a mount namespace"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(LabError::errno("make the mount namespace private"))?;
    for (with, place) in files {
        if Path::new(place).exists() {
            mount(Some(with), *place, none, MsFlags::MS_BIND, none)
                .map_err(LabError::errno(format!("put {} at {place}", with.display())))?;
        }
    }
    Ok(())
}

/// Ends every process that lives in one of the namespaces: first asked, then forced.
///
/// Only what the laboratory started, or what was started through it, can live there.
pub fn end_processes(namespaces: &[Netns]) {
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut asked = BTreeMap::new();
    loop {
        let alive = pids_in(namespaces);
        if alive.is_empty() {
            return;
        }
        let force = Instant::now() > deadline;
        if Instant::now() > deadline + Duration::from_secs(3) {
            // Not even SIGKILL helped (a process stuck in the kernel); the names can still be removed.
            return;
        }
        for pid in alive {
            let with = if force { Signal::SIGKILL } else { Signal::SIGTERM };
            if asked.insert(pid, with) != Some(with) {
                // The only failure is that it has ended meanwhile.
                let _ = kill(Pid::from_raw(pid), with);
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Processes that live in one of the namespaces; zombies do not count.
pub fn pids_in(namespaces: &[Netns]) -> Vec<i32> {
    let wanted: Vec<_> =
        namespaces.iter().filter_map(|n| fs::metadata(n.path()).ok()).map(|m| (m.dev(), m.ino())).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| wanted.contains(&(m.dev(), m.ino())))
        })
        .collect()
}
