//! Asks a running gateway over its admin socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::words::CliFault;
use crate::control::admin::{AskError, Refusal, ask};
use crate::text::shown;

/// How long a gateway may think about an answer; a reload of thousands of units is the slowest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ClientError {
    /// Nobody can be asked.
    Fault(CliFault),
    /// The gateway refused.
    Refused(Refusal),
}

impl From<CliFault> for ClientError {
    fn from(fault: CliFault) -> Self {
        Self::Fault(fault)
    }
}

/// The way to one gateway.
pub(super) struct Client {
    socket: PathBuf,
    patience: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// For the gateway that listens on `socket`. Nothing is sent yet.
    pub(super) fn new(socket: &Path) -> Result<Self, CliFault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliFault::NoGateway {
            socket: socket.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self { socket: socket.to_owned(), patience: PATIENCE, runtime })
    }

    /// Reads `target`, such as `/v1/status`.
    pub(super) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let body = self.send(Method::GET, target)?;
        serde_json::from_slice(&body).map_err(|error| self.odd(&error).into())
    }

    /// Has `target` done; the answer may be empty.
    pub(super) fn post(&self, target: &str) -> Result<Bytes, ClientError> {
        self.send(Method::POST, target)
    }

    /// What an answer that cannot be understood is called.
    pub(super) fn odd(&self, reason: &dyn std::fmt::Display) -> CliFault {
        CliFault::OddAnswer { socket: self.name(), reason: shown(&reason.to_string(), 200) }
    }

    /// Whether somebody still listens.
    pub(super) fn is_answered(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
    }

    fn name(&self) -> String {
        self.socket.display().to_string()
    }

    fn send(&self, method: Method, target: &str) -> Result<Bytes, ClientError> {
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(self.patience, self.exchange(method, target)).await.unwrap_or_else(|_| {
                Err(CliFault::Silent { socket: self.name(), seconds: self.patience.as_secs() })
            })
        });
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice(&body) {
            Ok(refusal) => Err(ClientError::Refused(refusal)),
            Err(error) => Err(self.odd(&format!("HTTP {status}, {error}")).into()),
        }
    }

    async fn exchange(&self, method: Method, target: &str) -> Result<(StatusCode, Bytes), CliFault> {
        ask(&self.socket, method, target).await.map_err(|error| match error {
            AskError::Connect(error) if error.kind() == ErrorKind::PermissionDenied => {
                CliFault::NoPermission { socket: self.name() }
            }
            AskError::Connect(error) => {
                CliFault::NoGateway { socket: self.name(), reason: error.to_string() }
            }
            AskError::Odd(reason) => self.odd(&reason),
        })
    }
}

/// Writes `value` so that it can stand in a query.
pub(super) fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut client = Client::new(&path).unwrap();
        client.patience = Duration::from_millis(100);
        let answer = client.get::<serde_json::Value>("/v1/status");
        assert!(matches!(answer, Err(ClientError::Fault(CliFault::Silent { .. }))), "{answer:?}");
    }

    #[test]
    fn queries_hold_any_name() {
        assert_eq!(encoded("Sở A&b=1"), "S%E1%BB%9F%20A%26b%3D1");
        assert_eq!(encoded("2001:db8::1"), "2001%3Adb8%3A%3A1");
    }
}
