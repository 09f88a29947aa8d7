//! The record of a laboratory on disk: written before anything is made, removed after everything is gone.
//!
//! It is how `sampan lab exec` finds a laboratory, and how `sampan lab down --all` finds what a killed run left.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::options::Options;

/// Where laboratories keep their files; gone when the last one is.
const ROOT: &str = "/run/sampan-lab";

/// One laboratory's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// What it was built from.
    pub options: Options,
    /// Who takes it down; nobody for `lab up`, which leaves it running.
    pub owner: Option<Owner>,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks.
    pub started: u64,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: start_time(pid).unwrap_or(0) }
    }

    /// Whether that very process still lives.
    pub fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl State {
    /// Takes the name: the directory appears with its record in it, or not at all if another laboratory has it.
    pub fn create(&self) -> Result<PathBuf, LabError> {
        let dir = dir(&self.options.id);
        let text = serde_json::to_string_pretty(self).map_err(|e| LabError::Step(e.to_string()))?;
        let draft = Path::new(ROOT).join(format!(".draft-{}-{}", std::process::id(), self.options.id));
        let written = write_in(&draft, &text).and_then(|()| fs::rename(&draft, &dir));
        if let Err(error) = written {
            // The draft is ours alone; if it cannot be removed the first error says more.
            let _ = fs::remove_dir_all(&draft);
            let _ = fs::remove_dir(ROOT);
            let taken = [std::io::ErrorKind::DirectoryNotEmpty, std::io::ErrorKind::AlreadyExists];
            return Err(if taken.contains(&error.kind()) {
                LabError::AlreadyUp(self.options.id.clone())
            } else {
                LabError::io(format!("make {}", dir.display()))(error)
            });
        }
        Ok(dir)
    }

    /// Writes the record again, after a change of owner.
    pub fn save(&self) -> Result<(), LabError> {
        let file = dir(&self.options.id).join("state.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| LabError::Step(e.to_string()))?;
        fs::write(&file, text).map_err(LabError::io(format!("write {}", file.display())))
    }

    /// Reads the record of a laboratory.
    pub fn load(id: &str) -> Result<Self, LabError> {
        let file = dir(id).join("state.json");
        let text = fs::read_to_string(&file).map_err(|_| LabError::NotUp(id.into()))?;
        serde_json::from_str(&text).map_err(|why| {
            LabError::Step(format!(
                "{} is damaged ({why}): `sampan lab down --all` removes it",
                file.display()
            ))
        })
    }
}

/// A laboratory's directory.
pub fn dir(id: &str) -> PathBuf {
    Path::new(ROOT).join(id)
}

/// Names of all laboratories that have a directory.
pub fn ids() -> Vec<String> {
    let mut ids: Vec<_> = fs::read_dir(ROOT)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    ids.sort();
    ids
}

/// Removes a laboratory's directory, and the common one when it is empty.
pub fn remove(id: &str) -> Result<(), LabError> {
    let dir = dir(id);
    // Maps of the fast path lie on a file system of their own.
    let pins = dir.join(super::gateway::PINS);
    crate::io::fastpath::remove_pins(&pins).map_err(LabError::io(format!("remove {}", pins.display())))?;
    match fs::remove_dir_all(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(LabError::io(format!("remove {}", dir.display()))(error)),
    }
    // Fails while another laboratory is there, as it should.
    let _ = fs::remove_dir(ROOT);
    Ok(())
}

/// Another laboratory that ends at this moment may take the common directory away once or twice.
fn write_in(draft: &Path, text: &str) -> std::io::Result<()> {
    let mut tries = 0;
    while let Err(error) = fs::create_dir_all(draft) {
        tries += 1;
        if tries > 5 {
            return Err(error);
        }
    }
    fs::write(draft.join("state.json"), text)
}

/// Field 22 of `/proc/PID/stat`; the second field may hold spaces, so counting starts behind its bracket.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // A zombie is no owner any more.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_another_start_time_does_not() {
        let me = Owner::this();
        assert!(me.alive());
        assert!(!Owner { started: me.started + 1, ..me }.alive());
    }
}
