//! Programs that the laboratory runs: found, started in the right place, waited for with a limit.

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::LabError;
use super::interrupt;
use super::netns::{Netns, replace_files};

/// Where servers and network tools are; not in everyone's `PATH`.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where a program runs.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// In which namespace, if not the host's.
    pub netns: Option<Netns>,
    /// Files seen at other places: `(file, place)`.
    pub files: Vec<(PathBuf, &'static str)>,
}

impl Place {
    /// Moves the calling thread there.
    pub fn enter(&self) -> Result<(), LabError> {
        if let Some(netns) = &self.netns {
            netns.enter()?;
        }
        if self.files.is_empty() { Ok(()) } else { replace_files(&self.files) }
    }
}

/// A command line to be.
#[derive(Clone, Debug)]
pub struct Tool {
    program: String,
    args: Vec<String>,
    input: String,
    limit: Duration,
    place: Place,
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Tool {
    /// A program by name or path.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            input: String::new(),
            limit: Duration::from_secs(30),
            place: Place::default(),
        }
    }

    /// Its arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// What it reads.
    pub fn input(mut self, input: impl Into<String>) -> Self {
        self.input = input.into();
        self
    }

    /// How long it may run.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Where it runs.
    pub fn at(mut self, place: &Place) -> Self {
        self.place = place.clone();
        self
    }

    /// Runs it to its end and collects what it prints. A failing exit is not an error here; see [`Output::check`].
    pub fn run(self) -> Result<Output, LabError> {
        interrupt::check()?;
        let began = Instant::now();
        let mut child = self.spawn(|command| {
            // In its own process group Ctrl-C does not reach it: we decide, and see no half-done step.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input to the end may still succeed.
            let _ = stdin.write_all(self.input.as_bytes());
        }
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let ended = wait(&mut child, self.limit);
        if !matches!(ended, Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (joined(stdout), joined(stderr));
        match ended? {
            Some(status) => {
                Ok(Output { command: self.line(), status, stdout, stderr, took: began.elapsed() })
            }
            None => Err(LabError::TimedOut {
                what: format!("`{}` (limit {} s)", self.line(), self.limit.as_secs()),
                look: format!("what it said: {}", tail(&format!("{stdout}\n{stderr}"))),
            }),
        }
    }

    /// Starts it in the background, in its own process group, with its words in a log file.
    pub fn start(self, log: &std::path::Path) -> Result<Child, LabError> {
        interrupt::check()?;
        let doing = format!("write {}", log.display());
        let out = File::create(log).map_err(LabError::io(doing.clone()))?;
        let err = out.try_clone().map_err(LabError::io(doing))?;
        self.spawn(move |command| {
            command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        })
    }

    /// Becomes that program; returns only if it cannot.
    pub fn become_it(self) -> LabError {
        if let Err(error) = self.place.enter() {
            return error;
        }
        match find(&self.program) {
            None => LabError::MissingTool(self.program),
            Some(path) => {
                let source = Command::new(path).args(&self.args).env("PATH", search_path()).exec();
                LabError::Io { doing: format!("run {}", self.program), source }
            }
        }
    }

    fn spawn(&self, set_up: impl FnOnce(&mut Command) + Send) -> Result<Child, LabError> {
        let path = find(&self.program).ok_or_else(|| LabError::MissingTool(self.program.clone()))?;
        let mut command = Command::new(path);
        command.args(&self.args).env("PATH", search_path()).env("LC_ALL", "C.UTF-8");
        set_up(&mut command);
        // The thread that starts a program gives it its namespaces.
        thread::scope(|scope| {
            let starter = scope.spawn(move || {
                self.place.enter()?;
                command.spawn().map_err(LabError::io(format!("run {}", self.program)))
            });
            starter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn line(&self) -> String {
        let mut line = self.program.clone();
        for arg in &self.args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }
}

impl Output {
    /// Whether it ended with exit code 0.
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// What it printed, or an error if it failed.
    pub fn check(self) -> Result<String, LabError> {
        if self.ok() {
            return Ok(self.stdout);
        }
        let status = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".into(),
        };
        let said = tail(&format!("{}\n{}", self.stdout, self.stderr));
        Err(LabError::Tool { command: self.command, status, said })
    }
}

/// Finds a program in `PATH` and in the system directories.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return path.is_file().then_some(path);
    }
    env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Waits for a child: `None` when the limit is reached, an error when an end was requested.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, LabError> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().map_err(LabError::io("wait for a program"))? {
            return Ok(Some(status));
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Asks again and again until `ready` says yes, the limit is reached or an end is requested.
pub fn until(limit: Duration, mut ready: impl FnMut() -> bool) -> Result<bool, LabError> {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return Ok(true);
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a text, on one line.
pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(4)).copied().collect::<Vec<_>>().join(" | ");
    if last.is_empty() { "(nothing was said)".into() } else { last }
}

fn search_path() -> std::ffi::OsString {
    let now = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&now).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    env::join_paths(dirs).unwrap_or(now)
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before a read error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(reader: JoinHandle<String>) -> String {
    reader.join().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_status_and_input_arrive() {
        let out = Tool::new("sh").args(["-c", "cat; echo wrong >&2; exit 3"]).input("hello\n").run().unwrap();
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("hello\n", "wrong\n"));
        let error = out.check().unwrap_err().to_string();
        assert!(error.contains("exit code 3") && error.contains("hello | wrong"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_the_limit() {
        let began = Instant::now();
        let error = Tool::new("sleep").args(["30"]).limit(Duration::from_millis(100)).run().unwrap_err();
        assert!(matches!(error, LabError::TimedOut { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_missing_program_names_the_remedy() {
        let error = Tool::new("no-such-tool-here").run().unwrap_err().to_string();
        assert!(error.contains("deploy/install-deps"), "{error}");
    }
}
