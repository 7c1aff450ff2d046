//! A server that gives canned answers: what the commands do with an answer is tested apart from who gives it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One canned answer.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Gives its answers in turn, the last one for ever, and remembers what it was asked.
pub struct Canned {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    pub fn answering(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let remembered = asked.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            let mut at = 0;
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                let answer = &answers[at.min(answers.len() - 1)];
                if let Some(request) = serve(stream, answer) {
                    remembered.lock().expect("no panic while locked").push(request);
                    at += 1;
                }
            }
        });
        Self { url, asked }
    }

    /// Method, path, then headers and body of interest, of every request.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic while locked").clone()
    }
}

impl Answer {
    /// None, and the connection stays open.
    pub fn never() -> Self {
        Self { status: 0, body: String::new() }
    }
}

/// An answer in JSON.
pub fn json(status: u16, body: &serde_json::Value) -> Answer {
    Answer { status, body: body.to_string() }
}

fn serve(mut stream: TcpStream, answer: &Answer) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (mut length, mut kept) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.starts_with("authorization:") || line.starts_with("if-match:") {
            kept.push_str(&format!(" | {line}"));
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = first.trim_end().trim_end_matches(" HTTP/1.1");
    let request = format!("{request}{kept} {}", String::from_utf8_lossy(&body)).trim_end().to_owned();
    if answer.status == 0 {
        std::mem::forget(stream);
        return Some(request);
    }
    let text = format!(
        "HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
        answer.status,
        answer.body.len(),
        answer.body
    );
    stream.write_all(text.as_bytes()).ok()?;
    Some(request)
}
