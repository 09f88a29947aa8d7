//! Watches the certificate that DNS clients see, so that a renewed one is taken over without anybody's doing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::control::certificates::read_own;
use crate::control::plan::TlsPlan;
use crate::io::dns_net::{Change, Shared};
use crate::text::Lang;

/// Between two looks. Looking costs two system calls; notices of the kernel would miss what symbolic links do.
const LOOK: Duration = Duration::from_secs(2);

/// Takes a new certificate over when both files have come to rest. `tls` says which files these are now. Never ends by
/// itself.
///
/// The first look reads the files once more: whether this process still may, without its powers, shows now and not
/// when the certificate is renewed.
pub async fn watch(shared: Arc<Shared>, tls: impl Fn() -> Option<TlsPlan>) {
    let mut watch = Watch::default();
    loop {
        if let Some(tls) = tls()
            && watch.wants_reading(Stamp::of(&tls))
        {
            renew(&tls, &shared);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn renew(tls: &TlsPlan, shared: &Shared) {
    match read_own(tls) {
        Ok(new) if shared.config().certificate.as_ref() != Some(&new) => {
            shared.apply([Change::Certificate(Some(new))]);
            tracing::info!(file = %tls.certificate.display(), "new certificate taken over");
        }
        Ok(_) => {}
        Err((key, fault)) => {
            let (what, remedy) = (fault.what(Lang::En), fault.remedy(Lang::En));
            tracing::error!(key, "the certificate stays as it is: {what}; {remedy}");
        }
    }
}

/// Decides when to read.
#[derive(Debug, Default)]
struct Watch {
    /// What was there at the last look.
    seen: Option<Stamp>,
    /// What was read last, for better or worse.
    read: Option<Stamp>,
}

impl Watch {
    /// Whether there is something new that did not change between the last look and this one: whoever writes the
    /// certificate first and the key a moment later shall not be blamed.
    fn wants_reading(&mut self, now: Stamp) -> bool {
        let is_first = self.seen.is_none();
        let rests = self.seen.as_ref() == Some(&now);
        let is_new = self.read.as_ref() != Some(&now);
        self.seen = Some(now.clone());
        let wants = is_new && (rests || is_first);
        if wants {
            self.read = Some(now);
        }
        wants
    }
}

/// What tells one state of the files from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp([(PathBuf, Option<[i64; 6]>); 2]);

impl Stamp {
    fn of(tls: &TlsPlan) -> Self {
        Self([&tls.certificate, &tls.key].map(|file| (file.clone(), look_at(file))))
    }
}

/// Device and file, size and times; what changes with its permissions is the last of them.
fn look_at(file: &Path) -> Option<[i64; 6]> {
    let meta = fs::metadata(file).ok()?;
    let nanos = |seconds: i64, rest: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(rest);
    Some([
        meta.dev() as i64,
        meta.ino() as i64,
        meta.size() as i64,
        meta.mode().into(),
        nanos(meta.mtime(), meta.mtime_nsec()),
        nanos(meta.ctime(), meta.ctime_nsec()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_once_they_rest_and_once_only() {
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["certificate", "key"].map(|name| dir.path().join(name));
        let tls = TlsPlan::of_files(&certificate, &key);
        let mut watch = Watch::default();
        let mut look = || watch.wants_reading(Stamp::of(&tls));
        assert!(look(), "missing files, too, are tried once");
        assert!(!look() && !look());
        fs::write(&certificate, "1").unwrap();
        assert!(!look());
        fs::write(&key, "12").unwrap();
        assert!(!look(), "something changed since the last look");
        assert!(look() && !look());
        // Another file under the same name.
        fs::write(dir.path().join("new"), "1").unwrap();
        fs::rename(dir.path().join("new"), &certificate).unwrap();
        assert!(!look() && look() && !look());
        // It may be read now: worth another try.
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert!(!look() && look() && !look());
    }
}
