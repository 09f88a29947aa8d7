//! The key file: 16 random bytes as 32 hexadecimal digits, made when it is missing.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::StartError;
use crate::io::random;
use crate::nat64::settings::Key;

/// Reads the key, or makes one that only the owner can read.
pub fn read_or_make(path: &Path) -> Result<Key, StartError> {
    let failed = |reason: String| StartError::KeyFile { file: path.display().to_string(), reason };
    match fs::read_to_string(path) {
        Ok(text) => parse(text.trim()).ok_or_else(|| failed("it does not hold 32 hexadecimal digits".into())),
        Err(e) if e.kind() == ErrorKind::NotFound => make(path).map_err(|e| failed(e.to_string())),
        Err(e) => Err(failed(e.to_string())),
    }
}

fn make(path: &Path) -> io::Result<Key> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let key = Key(random()?);
    let text: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    Ok(key)
}

fn parse(text: &str) -> Option<Key> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut key = [0; 16];
    for (slot, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/key");
        let key = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), key);
        assert_ne!(key, Key([0; 16]));
        fs::write(&path, "short").unwrap();
        assert!(matches!(read_or_make(&path), Err(StartError::KeyFile { .. })));
        fs::write(&path, "zz".repeat(16)).unwrap();
        assert!(read_or_make(&path).is_err());
    }
}
