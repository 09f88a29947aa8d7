//! After the sockets are open the gateway keeps one capability, CAP_NET_ADMIN, for routes and the TUN.
//!
//! When the system has a user `sampan` the process becomes that user; otherwise it stays root without root's other
//! powers. Either way it can never get them back. Must run while the process has a single thread.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, User, setegid, setgid, setgroups, setuid};

/// The user to become, when it exists.
const USER: &str = "sampan";

/// Makes files that the group of the later user may use, when there is such a user.
pub fn as_group<R>(make: impl FnOnce() -> R) -> R {
    let user = User::from_name(USER).ok().flatten().filter(|_| Uid::effective().is_root());
    // Without the power to do so the files belong to the present group, as they did.
    let changed = user.is_some_and(|user| setegid(user.gid).is_ok());
    let made = make();
    if changed {
        // It was ours a moment ago.
        let _ = setegid(Gid::current());
    }
    made
}

/// Drops everything that is not needed any more. Says who the process is now.
pub fn drop_all() -> Result<String, String> {
    let keep: CapsHashSet = [Capability::CAP_NET_ADMIN].into_iter().collect();
    let mut who = format!("uid {}", Uid::current());
    if Uid::effective().is_root()
        && let Some(user) = User::from_name(USER).map_err(|e| e.to_string())?
    {
        nix::sys::prctl::set_keepcaps(true).map_err(|e| format!("keep capabilities: {e}"))?;
        setgroups(&[user.gid]).map_err(|e| format!("setgroups: {e}"))?;
        setgid(user.gid).map_err(|e| format!("setgid: {e}"))?;
        setuid(user.uid).map_err(|e| format!("setuid: {e}"))?;
        who = format!("user {USER}");
    }
    // The bounding set needs CAP_SETPCAP; a process without it has a smaller set already.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::all().difference(&keep) {
            // Fails for a capability that this kernel does not know.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
    }
    caps::set(None, CapSet::Effective, &keep).map_err(|e| e.to_string())?;
    caps::set(None, CapSet::Permitted, &keep).map_err(|e| e.to_string())?;
    caps::clear(None, CapSet::Inheritable).map_err(|e| e.to_string())?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| e.to_string())?;
    Ok(who)
}
