//! Ctrl-C, SIGTERM and SIGHUP as one flag, so that a laboratory is always taken down in order.
//!
//! Nothing is done inside a signal handler: a small thread waits for the signals and sets the flag, every wait
//! of the laboratory looks at the flag, and the error it returns makes the guards drop.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::error::LabError;

static STOP: AtomicBool = AtomicBool::new(false);
static WATCHING: OnceLock<bool> = OnceLock::new();

/// Starts to watch; from now on these signals no longer end the process. Calling it again changes nothing.
pub fn watch() -> Result<(), LabError> {
    if *WATCHING.get_or_init(start_thread) {
        Ok(())
    } else {
        Err(LabError::Step("cannot watch for Ctrl-C: the signal handlers could not be installed".into()))
    }
}

/// Whether the person at the keyboard, or the system, wants us to end.
pub fn requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// [`LabError::Interrupted`] if an end was requested.
pub fn check() -> Result<(), LabError> {
    if requested() { Err(LabError::Interrupted) } else { Ok(()) }
}

fn start_thread() -> bool {
    let (ready, installed) = mpsc::channel();
    let spawned = thread::Builder::new().name("lab-signals".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
            return;
        };
        runtime.block_on(async move {
            let handlers = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            );
            let (Ok(mut int), Ok(mut term), Ok(mut hup)) = handlers else {
                return;
            };
            if ready.send(()).is_err() {
                return;
            }
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    _ = hup.recv() => {}
                }
                STOP.store(true, Ordering::Relaxed);
            }
        });
    });
    spawned.is_ok() && installed.recv().is_ok()
}
