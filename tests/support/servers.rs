//! PostgreSQL and RabbitMQ servers of a test's own, to be killed and restarted.

use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = "tests/support/servers.sh";

/// A server in a temporary folder; stopped, and its folder removed, when dropped.
struct Server {
    kind: &'static str,
    folder: tempfile::TempDir,
    url: String,
}

impl Server {
    async fn start(kind: &'static str) -> Self {
        Self::start_with(kind, Vec::new()).await
    }

    async fn start_with(kind: &'static str, more: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(kind, folder, more).await
    }

    async fn start_in(kind: &'static str, folder: tempfile::TempDir, more: Vec<String>) -> Self {
        open_to_all(&folder);
        let url = run([vec![format!("start-{kind}"), path(&folder)], more].concat()).await;
        Self { kind, folder, url }
    }

    async fn restart(&mut self, how: &str) {
        self.end(how).await;
        self.start_again().await;
    }

    async fn end(&mut self, how: &str) {
        run(vec![how.to_owned(), path(&self.folder)]).await;
    }

    async fn start_again(&mut self) {
        let url = run(vec![format!("start-{}", self.kind), path(&self.folder)]).await;
        assert_eq!(url, self.url, "the same address as before");
    }

    /// What a broker holds at the moment, for whoever reads why a test failed.
    fn tell(&self) {
        let questions: [&[&str]; 2] = [
            &["list_queues", "name", "consumers", "messages_ready", "messages_unacknowledged"],
            &["list_bindings", "source_name", "destination_name", "routing_key"],
        ];
        for question in questions {
            let asked = Command::new(SCRIPT).arg("ctl").arg(self.folder.path()).args(question).output();
            let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            eprintln!("--- {}:\n{}", question.join(" "), said.unwrap_or_default());
        }
        for entry in std::fs::read_dir(self.folder.path().join("log")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let errors: Vec<&str> = text.lines().filter(|line| line.contains("[error]")).collect();
            let last = errors.len().saturating_sub(100);
            eprintln!("--- errors in {}:\n{}", entry.path().display(), errors[last..].join("\n"));
        }
    }

    /// The server's own process.
    fn id(&self) -> u32 {
        let note = std::fs::read_to_string(self.folder.path().join("pid")).expect("its id is noted");
        note.trim().parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() && self.kind == "rabbit" {
            self.tell();
        }
        let stopped = Command::new(SCRIPT).args(["remove", &path(&self.folder)]).status();
        if !std::thread::panicking() {
            assert!(stopped.is_ok_and(|status| status.success()), "{} stops", self.kind);
        }
    }
}

/// PostgreSQL runs as a user of its own, which must be able to enter.
fn open_to_all(folder: &tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions are set");
}

fn path(folder: &tempfile::TempDir) -> String {
    PathBuf::from(folder.path()).display().to_string()
}

async fn run(arguments: Vec<String>) -> String {
    let script = move || Command::new(SCRIPT).args(arguments).stderr(std::process::Stdio::inherit()).output();
    let output = tokio::task::spawn_blocking(script).await.expect("joined").expect("the script runs");
    assert!(output.status.success(), "{SCRIPT} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A private PostgreSQL.
pub struct PrivatePostgres(Server);

impl PrivatePostgres {
    pub async fn start() -> Self {
        Self(Server::start("postgres").await)
    }

    /// One whose disks can be filled and whose clock can be set, as far as this machine allows it.
    pub async fn start_fragile(room: &str, preload: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("room"), format!("{room}\n")).expect("written");
        if let Some(library) = preload {
            std::fs::write(folder.path().join("clock"), [0; 8]).expect("written");
            std::fs::write(folder.path().join("preload"), format!("{}\n", library.display())).expect("written");
        }
        Self(Server::start_in("postgres", folder, Vec::new()).await)
    }

    /// Where everything of it is.
    pub fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    /// The folder `name` of it, if that is a disk of its own.
    pub fn disk(&self, name: &str) -> Option<PathBuf> {
        let folder = self.folder().join(name);
        let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
        let is_it = |line: &str| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == folder);
        mounts.lines().any(is_it).then_some(folder)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Starts it again, should it have ended by itself.
    pub async fn start_again_if_ended(&mut self) {
        if has_ended(self.0.id()) {
            self.0.start_again().await;
        }
    }

    /// The address of its first database, as superuser.
    pub fn url(&self) -> String {
        self.0.url.clone()
    }

    /// Stops it, cutting off whoever is connected, and starts it again.
    pub async fn restart(&mut self) {
        self.0.restart("stop").await;
    }

    /// SIGKILL, then the same data again.
    pub async fn kill_and_restart(&mut self) {
        self.0.restart("kill").await;
    }
}

/// A private RabbitMQ.
pub struct PrivateRabbit(Server);

impl PrivateRabbit {
    pub async fn start() -> Self {
        Self(Server::start("rabbit").await)
    }

    /// One that also listens with TLS, with `ca.pem`, `server.pem` and `server.key` of the folder `certificates`.
    pub async fn start_with_tls(certificates: &Path) -> Self {
        Self(Server::start_with("rabbit", vec![certificates.display().to_string()]).await)
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.0.url.lines().next().expect("an address").to_owned()
    }

    /// Its address with TLS.
    pub fn tls_url(&self) -> String {
        self.0.url.lines().nth(1).expect("it was started with certificates").to_owned()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Runs `rabbitmqctl` on it, and gives what that says.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let more = arguments.iter().map(|argument| (*argument).to_owned());
        run(["ctl".to_owned(), path(&self.0.folder)].into_iter().chain(more).collect()).await
    }

    /// Where everything of it is.
    pub fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    /// What `rabbitmqctl` says for a broker in `folder` that may be down, or hang.
    pub async fn ask(folder: PathBuf, arguments: &'static [&'static str]) -> Option<String> {
        let script = move || Command::new(SCRIPT).arg("ctl").arg(folder).args(arguments).output();
        let output = tokio::task::spawn_blocking(script).await.ok()?.ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Stops it in good order.
    pub async fn stop(&mut self) {
        self.0.end("stop").await;
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.0.end("kill").await;
    }

    /// Starts it again, on the same port, with the same data.
    pub async fn start_again(&mut self) {
        self.0.start_again().await;
    }

    /// Stops it in good order and starts it again.
    pub async fn restart(&mut self) {
        self.0.restart("stop").await;
    }

    /// SIGKILL, then the same data again.
    pub async fn kill_and_restart(&mut self) {
        self.0.restart("kill").await;
    }
}

/// Whether a process is gone, or only an entry that nobody has collected yet.
fn has_ended(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// One of each, started side by side.
pub async fn both() -> (PrivatePostgres, PrivateRabbit) {
    tokio::join!(PrivatePostgres::start(), PrivateRabbit::start())
}
