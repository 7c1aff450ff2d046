//! PostgreSQL and RabbitMQ servers of a test's own, to be killed and restarted.

use std::path::PathBuf;
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
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new(SCRIPT).args(["stop", &path(&self.folder)]).status();
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
    pub async fn start_with_tls(certificates: &std::path::Path) -> Self {
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

    /// Runs `rabbitmqctl` on it, and gives what that says.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let more = arguments.iter().map(|argument| (*argument).to_owned());
        run(["ctl".to_owned(), path(&self.0.folder)].into_iter().chain(more).collect()).await
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

/// One of each, started side by side.
pub async fn both() -> (PrivatePostgres, PrivateRabbit) {
    tokio::join!(PrivatePostgres::start(), PrivateRabbit::start())
}
