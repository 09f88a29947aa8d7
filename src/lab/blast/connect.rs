//! Connection rate: connect, one byte each way, reset. Every connection is a new session for the gateway.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;

use super::cpu_time;

/// How long one connection may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Threads of the server; each has one connection at a time.
const SERVER_THREADS: usize = 16;

/// What to open.
#[derive(Clone, Copy, Debug, Args)]
pub struct Load {
    /// Connections at the same time, at most 16
    #[arg(long, default_value_t = 4)]
    pub parallel: u32,
    /// Seconds
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Connections that did all of it.
    pub connections: u64,
    /// Connections that did not.
    pub failed: u64,
    /// How long it took.
    pub seconds: f64,
    /// Connections a second.
    pub per_second: f64,
    /// CPU time of this process.
    pub cpu_seconds: f64,
}

/// Runs the client.
pub fn run(server: SocketAddr, load: &Load) -> io::Result<Report> {
    let began = Instant::now();
    let cpu = cpu_time();
    let end = began + Duration::try_from_secs_f64(load.seconds).unwrap_or(Duration::from_secs(1));
    let parallel = load.parallel.clamp(1, SERVER_THREADS as u32);
    let clients: Vec<_> = (0..parallel)
        .map(|_| {
            thread::spawn(move || {
                let (mut connections, mut failed) = (0u64, 0u64);
                while Instant::now() < end {
                    if once(server).is_ok() {
                        connections += 1;
                    } else {
                        failed += 1;
                        // A refusal comes at once; no busy loop of refusals.
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                (connections, failed)
            })
        })
        .collect();
    let (mut connections, mut failed) = (0, 0);
    for client in clients {
        let counted = client.join().map_err(|_| io::Error::other("a client thread ended early"))?;
        connections += counted.0;
        failed += counted.1;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Report {
        connections,
        failed,
        seconds,
        per_second: connections as f64 / seconds,
        cpu_seconds: (cpu_time() - cpu).as_secs_f64(),
    })
}

/// Answers each connection's byte until the process ends.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    serve_on(&TcpListener::bind(listen)?)
}

fn serve_on(listener: &TcpListener) -> io::Result<()> {
    thread::scope(|scope| {
        for _ in 0..SERVER_THREADS {
            scope.spawn(|| {
                loop {
                    // What goes wrong with one connection is the client's to count.
                    match listener.accept() {
                        Ok((stream, _)) => drop(answer(stream)),
                        Err(_) => thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        }
    });
    Ok(())
}

fn once(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(b"?")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    // Closing with linger 0 sends a reset, so no port stays in TIME_WAIT.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    // Wait for the reset, so that it is the client's and not our FIN that ends the session.
    let _ = stream.read(&mut byte)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_over_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || serve_on(&listener));
        let report = run(server, &Load { parallel: 2, seconds: 0.2 }).unwrap();
        assert!(report.connections > 20, "{report:?}");
        assert_eq!(report.failed, 0, "{report:?}");
    }

    #[test]
    fn refused_connections_are_failures() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let report = run(nobody, &Load { parallel: 1, seconds: 0.05 }).unwrap();
        assert_eq!(report.connections, 0);
        assert!(report.failed > 0);
    }
}
