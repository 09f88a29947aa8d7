//! What can go wrong in the laboratory, each with one line that says what to do.

use std::fmt;
use std::io;

/// An operator failure of the laboratory.
#[derive(Debug)]
pub enum LabError {
    /// Namespaces and TUN devices need root.
    NotRoot,
    /// The kernel's TUN device is not there.
    NoTun,
    /// A program that the laboratory runs is not installed.
    MissingTool(String),
    /// A program ended with an error.
    Tool {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said, shortened to its last lines.
        said: String,
    },
    /// A program or a service did not get ready or finish in time.
    TimedOut {
        /// What was waited for.
        what: String,
        /// Where to look.
        look: String,
    },
    /// A system call or a file operation failed.
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The options do not make a network.
    Options(String),
    /// A laboratory of that name is already up.
    AlreadyUp(String),
    /// No laboratory of that name is up.
    NotUp(String),
    /// There is no such host in this laboratory.
    NoHost {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A step of the demonstration did not show what it should.
    Step(String),
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl LabError {
    /// An [`LabError::Io`] maker for `map_err`.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// The same for calls that report an errno.
    pub fn errno(doing: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let doing = doing.into();
        move |errno| Self::Io { doing, source: errno.into() }
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => {
                write!(f, "the lab needs root for network namespaces: run it as root or with sudo")
            }
            Self::NoTun => write!(
                f,
                "/dev/net/tun is missing: load it with `modprobe tun` (in a container: pass the device through)"
            ),
            Self::MissingTool(tool) => {
                write!(f, "`{tool}` is not installed: run `deploy/install-deps demo` as root")
            }
            Self::Tool { command, status, said } => write!(f, "`{command}` ended with {status}: {said}"),
            Self::TimedOut { what, look } => write!(f, "{what} took too long; look at {look}"),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Options(why) => write!(f, "{why}"),
            Self::AlreadyUp(id) => {
                write!(f, "lab `{id}` is already up: use it, or remove it with `sampan lab down --id {id}`")
            }
            Self::NotUp(id) => write!(
                f,
                "lab `{id}` is not up: start it with `sampan lab up`, or list labs with `sampan lab status`"
            ),
            Self::NoHost { name, known } => write!(f, "no host `{name}` in this lab; there are {known}"),
            Self::Step(why) => write!(f, "{why}"),
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for LabError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io { source, .. } = self { Some(source) } else { None }
    }
}
