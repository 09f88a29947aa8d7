//! One request to an admin socket.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Larger than a page of [`super::MAX_PAGE`] rows.
const MAX_ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody can be asked.
    Connect(io::Error),
    /// What came makes no sense.
    Odd(String),
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
            Self::Odd(reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Sends a request for `target`, such as `/v1/status`, and reads the answer. Waits as long as it takes.
pub async fn ask(socket: &Path, method: Method, target: &str) -> Result<(StatusCode, Bytes), AskError> {
    let stream = UnixStream::connect(socket).await.map_err(AskError::Connect)?;
    let odd = |error: hyper::Error| AskError::Odd(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "sampan")
        .body(Empty::<Bytes>::new())
        .map_err(|error| AskError::Odd(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(odd)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| AskError::Odd(error.to_string()))?.to_bytes()))
    };
    // The connection has to be driven while the answer is awaited; it may end first.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(odd(error)),
        },
    }
}
