//! Who used how much CPU time: control groups for the roles, the scheduler's own figures for the kernel's softirq
//! threads. Nanosecond accounting of the scheduler; a softirq that runs in a process is charged to that process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan::lab::LabError;

/// A control group of our own, removed when dropped.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// `cpu.stat`, there also without the cpu controller.
    Two,
    /// The cpuacct controller.
    One,
}

impl Group {
    /// Makes it, in the first hierarchy that counts CPU time and lets us.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let mut why = "no control group hierarchy that counts CPU time is mounted".to_owned();
        for (root, version) in hierarchies()? {
            let dir = root.join(name);
            match fs::create_dir(&dir) {
                Ok(()) => {
                    let group = Self { dir, version };
                    match group.used() {
                        Ok(_) => return Ok(group),
                        Err(error) => why = error.to_string(),
                    }
                }
                Err(error) => why = format!("cannot make {}: {error}", dir.display()),
            }
        }
        Err(LabError::Step(format!("{why}; mount cgroup2 or cpuacct writable")))
    }

    /// Moves a process and all its threads in.
    pub fn take(&self, pid: u32) -> Result<(), LabError> {
        let file = self.door();
        fs::write(&file, pid.to_string()).map_err(LabError::io(format!("move {pid} into {}", file.display())))
    }

    /// The file that takes process numbers.
    pub fn door(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// CPU time of everything that ever ran inside.
    pub fn used(&self) -> Result<Duration, LabError> {
        let file = self.dir.join(match self.version {
            Version::Two => "cpu.stat",
            Version::One => "cpuacct.usage",
        });
        let text = read(&file)?;
        let value = match self.version {
            Version::Two => text
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "))
                .and_then(|n| n.trim().parse().ok())
                .map(Duration::from_micros),
            Version::One => text.trim().parse().ok().map(Duration::from_nanos),
        };
        value.ok_or_else(|| LabError::Step(format!("{} does not tell the CPU time", file.display())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be taking the last process down.
        for _ in 0..100 {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => break,
            }
        }
        if self.dir.exists() {
            eprintln!("benches/box: could not remove {}", self.dir.display());
        }
    }
}

/// The kernel's softirq threads.
#[derive(Debug)]
pub struct Softirq(Vec<PathBuf>);

impl Softirq {
    /// Finds them.
    pub fn find() -> Result<Self, LabError> {
        let all = fs::read_dir("/proc").map_err(LabError::io("list processes"))?;
        let threads: Vec<_> = all
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
            })
            .map(|path| path.join("schedstat"))
            .collect();
        if threads.is_empty() {
            return Err(LabError::Step(
                "no ksoftirqd thread is visible: run outside of a container's process namespace".into(),
            ));
        }
        Ok(Self(threads))
    }

    /// Their CPU time so far.
    pub fn used(&self) -> Result<Duration, LabError> {
        self.0.iter().map(|file| first_number(file).map(Duration::from_nanos)).sum()
    }
}

/// `/proc/stat` of the whole machine, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    busy: u64,
    idle: u64,
    steal: u64,
}

impl Machine {
    /// Now.
    pub fn now() -> Result<Self, LabError> {
        let text = read(Path::new("/proc/stat"))?;
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).flat_map(str::parse).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
            return Err(LabError::Step("/proc/stat does not begin with the times of all CPUs".into()));
        };
        Ok(Self { busy: user + nice + system + irq + softirq, idle: idle + iowait, steal })
    }

    /// Shares of all CPU time since `before`: busy, and stolen by the host.
    pub fn shares_since(&self, before: &Self) -> (f64, f64) {
        let busy = self.busy.saturating_sub(before.busy) as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        let steal = self.steal.saturating_sub(before.steal) as f64;
        let all = (busy + idle + steal).max(1.0);
        (busy / all, steal / all)
    }
}

/// Mount points, cgroup2 before cpuacct.
fn hierarchies() -> Result<Vec<(PathBuf, Version)>, LabError> {
    let mounts = read(Path::new("/proc/self/mounts"))?;
    let mut found: Vec<_> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
            match kind {
                "cgroup2" => Some((PathBuf::from(place), Version::Two)),
                "cgroup" if options.split(',').any(|o| o == "cpuacct") => {
                    Some((PathBuf::from(place), Version::One))
                }
                _ => None,
            }
        })
        .collect();
    found.sort_by_key(|(_, version)| *version == Version::One);
    Ok(found)
}

fn first_number(file: &Path) -> Result<u64, LabError> {
    read(file)?
        .split_ascii_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| LabError::Step(format!("{} does not begin with a number", file.display())))
}

fn read(file: &Path) -> Result<String, LabError> {
    fs::read_to_string(file).map_err(LabError::io(format!("read {}", file.display())))
}
