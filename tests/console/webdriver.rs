//! A headless Chromium through the WebDriver protocol, which is JSON over HTTP.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::eventually;

/// How often a chromedriver is started until one listens.
const STARTS: usize = 5;

/// A browser with one window.
pub struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
}

/// Whether browser and driver are there. In CI they must be; elsewhere the tests that need them say loudly that they are
/// left out.
pub fn is_there() -> bool {
    let has = |name: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
    };
    if has("chromedriver") && (has("chromium") || has("google-chrome") || cfg!(target_os = "macos")) {
        return true;
    }
    let missing = "chromium and chromium-driver are missing (names as in Debian)";
    assert!(std::env::var_os("CI").is_none() && cfg!(target_os = "macos"), "{missing}: ./test installs them");
    eprintln!("\n=== SKIPPED: the console was NOT tested in a browser: {missing} ===\n");
    false
}

/// A chromedriver that listens, and where.
async fn driver() -> (Child, u16) {
    let mut said = String::new();
    // With IPv4 it takes any free port, and ends when that same port is not free for IPv6: with another it gets on.
    for _ in 0..STARTS {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        while let Some(line) = lines.next_line().await.expect("its output is read") {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let port = port.trim_end_matches('.').parse().expect("a port");
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return (driver, port);
            }
            said = said + &line + "\n";
        }
    }
    panic!("chromedriver ended {STARTS} times before it listened:\n{said}");
}

impl Browser {
    /// Lends a browser to `work`, and ends it whatever comes of that: a driver that is only killed leaves its browser behind.
    pub async fn with<T>(work: impl AsyncFnOnce(&Self) -> T) -> T {
        let browser = Self::start().await;
        let outcome = AssertUnwindSafe(work(&browser)).catch_unwind().await;
        browser.close().await;
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    async fn start() -> Self {
        // Fails harmlessly when another test has installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (driver, port) = driver().await;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        let base = format!("http://127.0.0.1:{port}");
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--force-prefers-reduced-motion", "--window-size=1280,900"],
        });
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
        let answer = call(&http, reqwest::Method::POST, &format!("{base}/session"), Some(wanted)).await;
        let id = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}"));
        Self { driver, session: format!("{base}/session/{id}"), http }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        call(&self.http, reqwest::Method::POST, &format!("{}/{path}", self.session), Some(body)).await
    }

    pub async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    pub async fn url(&self) -> String {
        let url = call(&self.http, reqwest::Method::GET, &format!("{}/url", self.session), None).await;
        url.as_str().unwrap_or_default().to_owned()
    }

    /// What a script gives.
    pub async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// What a script hands to its last argument.
    pub async fn run_async(&self, script: &str) -> Value {
        self.post("execute/async", json!({ "script": script, "args": [] })).await
    }

    async fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": params })).await
    }

    /// The size of the window, and whether the system asks for light or dark.
    pub async fn looks(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Runs a script in every page before its own.
    pub async fn before_every_page(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// The whole page as PNG.
    #[allow(dead_code, reason = "`examples/console_shots.rs` takes pictures, tests do not")]
    pub async fn picture(&self) -> Vec<u8> {
        let shot =
            self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "format": "png" })).await;
        let text = shot["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    }

    /// Presses keys, one after the other; `\u{E004}` is Tab, `\u{E007}` Enter, `\u{E00C}` Escape, `\u{E00D}` the space bar.
    pub async fn keys(&self, keys: &str) {
        let presses = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let presses: Vec<Value> = presses.collect();
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] })).await;
    }

    /// Presses a key while another is held.
    pub async fn chord(&self, held: &str, key: &str) {
        let press = |kind: &str, key: &str| json!({ "type": kind, "value": key });
        let presses = [press("keyDown", held), press("keyDown", key), press("keyUp", key), press("keyUp", held)];
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] })).await;
    }

    /// Waits until a script gives `true`.
    pub async fn until(&self, what: &str, script: &str) {
        eventually(what, async || (self.run(script).await == Value::Bool(true)).then_some(())).await;
    }

    /// The text that the page shows.
    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    async fn close(mut self) {
        // A driver that does not answer is what a test has failed of, and says so by itself.
        let _ = self.http.delete(&self.session).send().await;
        let _ = self.driver.kill().await;
    }
}

async fn call(http: &reqwest::Client, method: reqwest::Method, url: &str, body: Option<Value>) -> Value {
    let mut request = http.request(method, url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await.expect("the driver answers").text().await.expect("its answer is read");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let value = answer["value"].clone();
    assert!(value["error"].is_null(), "{url}: {}", value["message"]);
    value
}
