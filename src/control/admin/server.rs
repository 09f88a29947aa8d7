//! The socket and the HTTP routes.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{Backend, Cursor, MAX_PAGE, Refusal};
use crate::control::problem::ProblemView;
use crate::faults;
use crate::nat64::settings::{Protocol, RowFilter};
use crate::text::Lang;

/// Rows in a page when the client does not say.
const USUAL_PAGE: usize = 100;

faults! {
    /// Why the admin socket cannot be had.
    pub enum BindFault {
        InUse
            en "another sampan answers on this socket"
                => "stop it with `sampan stop`, or give this one its own admin.socket and tun.name"
            vi "một sampan khác đang trả lời trên socket này"
                => "dừng nó bằng `sampan stop`, hoặc đặt admin.socket và tun.name riêng cho bản này";
        NotASocket
            en "the file exists and is no socket"
                => "move it away, or choose another admin.socket"
            vi "tệp đã tồn tại và không phải socket"
                => "chuyển tệp đi, hoặc chọn admin.socket khác";
        Refused { reason: String }
            en "cannot make the socket: {reason}"
                => "the directory must exist and be writable for root; check admin.socket"
            vi "không tạo được socket: {reason}"
                => "thư mục phải tồn tại và root ghi được; kiểm tra admin.socket";
    }
}

/// Why and where the admin socket cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindError {
    /// Path of the socket.
    pub path: PathBuf,
    /// Why.
    pub fault: BindFault,
}

/// The bound socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // After privileges were dropped this may fail; the next start then finds that nobody answers.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds the socket, for owner and group only. Call it while still privileged. A file left by a crash is replaced;
/// one on which somebody answers is not.
pub fn bind(path: &Path) -> Result<Listener, BindError> {
    let fail = |fault| BindError { path: path.to_owned(), fault };
    let refused = |error: io::Error| fail(BindFault::Refused { reason: error.to_string() });
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(refused)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(fail(BindFault::NotASocket)),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(fail(BindFault::InUse)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(refused)?;
            }
            Err(error) => return Err(refused(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    let socket = UnixListener::bind(path).map_err(refused)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(refused)?;
    socket.set_nonblocking(true).map_err(refused)?;
    Ok(Listener { socket, file })
}

/// Answers until `shutdown` is done, then removes the socket file.
pub async fn serve(
    listener: Listener,
    backend: Arc<dyn Backend>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let Listener { socket, file } = listener;
    let socket = tokio::net::UnixListener::from_std(socket)?;
    let served = axum::serve(socket, router(backend)).with_graceful_shutdown(shutdown).await;
    drop(file);
    served
}

fn router(backend: Arc<dyn Backend>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/health", get(health))
        .route("/v1/sessions", get(sessions))
        .route("/v1/bib", get(bib))
        .route("/v1/drops", get(drops))
        .route("/v1/reload", post(reload))
        .route("/v1/stop", post(stop))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "no-such-request", "there is no such request") })
        .with_state(backend)
}

type Shared = State<Arc<dyn Backend>>;
type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    addr6: Option<std::net::Ipv6Addr>,
    addr4: Option<std::net::Ipv4Addr>,
    port: Option<u16>,
    protocol: Option<Protocol>,
    unit: Option<String>,
    cursor: Option<u64>,
    limit: Option<usize>,
}

impl Rows {
    fn split(self) -> (RowFilter, Option<Cursor>, usize) {
        let Self { addr6, addr4, port, protocol, unit, cursor, limit } = self;
        let filter = RowFilter { addr6, addr4, port, protocol, unit };
        (filter, cursor.map(Cursor), limit.unwrap_or(USUAL_PAGE).clamp(1, MAX_PAGE))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Language {
    lang: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    #[serde(default)]
    flush: bool,
}

async fn status(State(backend): Shared) -> Response {
    answer(move || Ok(backend.status())).await
}

async fn health(State(backend): Shared) -> Response {
    answer(move || Ok(backend.health())).await
}

async fn sessions(State(backend): Shared, asked: Asked<Rows>) -> Response {
    let (filter, cursor, limit) = match asked {
        Ok(Query(rows)) => rows.split(),
        Err(error) => return bad_query(&error),
    };
    answer(move || Ok(backend.sessions(&filter, cursor, limit))).await
}

async fn bib(State(backend): Shared, asked: Asked<Rows>) -> Response {
    let (filter, cursor, limit) = match asked {
        Ok(Query(rows)) => rows.split(),
        Err(error) => return bad_query(&error),
    };
    answer(move || Ok(backend.bib(&filter, cursor, limit))).await
}

async fn drops(State(backend): Shared) -> Response {
    answer(move || Ok(backend.drops())).await
}

async fn reload(State(backend): Shared, asked: Asked<Language>) -> Response {
    let lang = match asked {
        Ok(Query(asked)) => asked.lang.as_deref().and_then(Lang::from_name).unwrap_or_default(),
        Err(error) => return bad_query(&error),
    };
    answer(move || match backend.reload() {
        Ok(report) => Ok(report.view(lang)),
        Err(problems) => {
            Err(Refusal { problems: problems.iter().map(|problem| problem.view(lang)).collect() })
        }
    })
    .await
}

async fn stop(State(backend): Shared, asked: Asked<Stop>) -> Response {
    let flush = match asked {
        Ok(Query(asked)) => asked.flush,
        Err(error) => return bad_query(&error),
    };
    match tokio::task::spawn_blocking(move || backend.stop(flush)).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(_) => failed(),
    }
}

/// Runs a blocking question off the serving thread.
async fn answer<T: Serialize + Send + 'static>(
    ask: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(ask).await {
        Ok(Ok(found)) => Json(found).into_response(),
        Ok(Err(refusal)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response(),
        Err(_) => failed(),
    }
}

fn bad_query(error: &QueryRejection) -> Response {
    refuse(StatusCode::BAD_REQUEST, "bad-query", &error.body_text())
}

fn failed() -> Response {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the gateway could not answer; see its log")
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let problem = ProblemView {
        severity: "error".into(),
        code: code.into(),
        path: String::new(),
        line: None,
        message: message.into(),
        remedy: String::new(),
    };
    (status, Json(Refusal { problems: vec![problem] })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(BindFault::CATALOGUE);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/admin.sock");
        let live = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(bind(&path).unwrap_err().fault, BindFault::InUse);
        drop(live);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a crash leaves the file");
        let again = bind(&path).unwrap();
        drop(again);

        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().fault, BindFault::NotASocket);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
