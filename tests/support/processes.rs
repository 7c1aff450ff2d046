//! Processes that tests start, kill and start again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A child process, and how it was started. Killed when dropped.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Child,
    kills: u32,
}

impl Process {
    /// Starts the command; what it prints goes to the end of `log`.
    pub fn start(name: &str, command: &mut Command, log: PathBuf) -> Self {
        Self::start_with(name, command, &[], log)
    }

    /// The same with variables in its environment.
    pub fn start_with(name: &str, command: &mut Command, environment: &[(&'static str, String)], log: PathBuf) -> Self {
        let program = PathBuf::from(command.get_program());
        let arguments = command.get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
        let environment = environment.to_vec();
        let child = spawn(name, &program, &arguments, &environment, &log);
        Self { name: name.to_owned(), program, arguments, environment, log, child, kills: 0 }
    }

    /// SIGKILL, then the same command again.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// The same command again, after its end.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.name, &self.program, &self.arguments, &self.environment, &self.log);
    }

    /// SIGKILL, then the same command again with these variables more, until it is started once more.
    pub fn kill_and_restart_with(&mut self, more: &[(&'static str, String)]) {
        self.kill();
        let environment = [&self.environment, more].concat();
        self.child = spawn(&self.name, &self.program, &self.arguments, &environment, &self.log);
    }

    /// Starts the same command again after it has died by itself, as it was to.
    pub fn restart(&mut self) {
        assert!(self.has_ended(), "{} still runs", self.name);
        self.child = spawn(&self.name, &self.program, &self.arguments, &self.environment, &self.log);
    }

    /// SIGKILL. Fails when the process had ended by itself before: then nothing was killed.
    pub fn kill(&mut self) {
        let ended = self.child.try_wait().expect("the process can be asked");
        assert!(ended.is_none(), "{} ended by itself: {ended:?}; {}", self.name, self.tail());
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.kills += 1;
    }

    /// How often it was killed while running.
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, by itself or not.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_some()
    }

    /// Waits for its end after a signal from the test.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// The end of what it printed.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the last of {}:\n{}", self.name, self.tail());
        }
    }
}

fn spawn(
    name: &str,
    program: &PathBuf,
    arguments: &[std::ffi::OsString],
    environment: &[(&'static str, String)],
    log: &PathBuf,
) -> Child {
    let output = std::fs::File::options().create(true).append(true).open(log).expect("the log opens");
    let errors = output.try_clone().expect("the log is shared");
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("{name} does not start: {error}"))
}

/// A port that nothing listens on at the moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}
