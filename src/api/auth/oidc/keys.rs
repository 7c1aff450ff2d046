//! The keys that an issuer has published (a JWKS), fetched when they are needed and kept for a while.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::http_client;

/// How long keys serve before they are fetched again in passing.
const FRESH: Duration = Duration::from_secs(3_600);
/// How long keys serve when they cannot be fetched again.
const MOST_STALE: Duration = Duration::from_secs(24 * 3_600);
/// How soon they are fetched again, whatever is asked for: a made-up key's name is no way to have us ask the issuer often.
const AGAIN: Duration = Duration::from_secs(10);
/// How long fetching them may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the published document, and keys in it, at most.
const MOST_BYTES: usize = 1 << 20;
const MOST_KEYS: usize = 100;

/// Keys, and where they come from.
pub(super) struct Keys {
    place: Place,
    state: Mutex<State>,
}

enum Place {
    File(PathBuf),
    Web { url: Url, client: reqwest::Client },
}

#[derive(Default)]
struct State {
    keys: Vec<Key>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
    /// Why the last try failed.
    problem: Option<String>,
}

struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<String>,
    decoding: DecodingKey,
}

impl Keys {
    /// Those at an address, or in a file.
    pub(super) fn at(place: &str) -> Result<Self, String> {
        let place = match Url::parse(place) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                let is_here = url.host_str().is_some_and(|host| {
                    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
                    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
                });
                if url.scheme() == "http" && !is_here {
                    return Err(format!(
                        "jwks `{url}`: whoever is in between could give keys of his own; use https://"
                    ));
                }
                let client = http_client(&url, TIMEOUT).map_err(|error| format!("jwks `{url}`: {error}"))?;
                Place::Web { url, client }
            }
            _ if place.is_empty() || place.contains("://") => {
                return Err(format!("jwks `{place}`: expected https://… or a file"));
            }
            _ => Place::File(place.into()),
        };
        Ok(Self { place, state: Mutex::default() })
    }

    /// The key of this name that a signature of `algorithm` may be checked with.
    ///
    /// # Errors
    /// When nobody can say, since the keys cannot be had.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>, String> {
        // Who comes while they are fetched waits for that.
        let mut state = self.state.lock().await;
        let is_within = |at: Option<Instant>, time: Duration| at.is_some_and(|at| at.elapsed() < time);
        let is_known = state.find(id, algorithm).is_some();
        let is_wanted = !is_known || !is_within(state.read_at, FRESH);
        if is_wanted && !is_within(state.tried_at, AGAIN) {
            state.tried_at = Some(Instant::now());
            match self.read().await {
                Ok(keys) => {
                    tracing::debug!(keys = keys.len(), "the issuer's keys are read");
                    *state = State { keys, read_at: state.tried_at, tried_at: state.tried_at, problem: None };
                }
                Err(problem) => {
                    tracing::warn!(problem, "the issuer's keys cannot be read");
                    state.problem = Some(problem);
                }
            }
        }
        let found = state.find(id, algorithm).cloned();
        let is_answer = if found.is_some() { is_within(state.read_at, MOST_STALE) } else { state.problem.is_none() };
        if is_answer {
            return Ok(found);
        }
        Err("the keys of the token's issuer cannot be read at the moment; the server's log says why".to_owned())
    }

    async fn read(&self) -> Result<Vec<Key>, String> {
        let bytes = match &self.place {
            Place::File(path) => {
                tokio::fs::read(path).await.map_err(|error| format!("`{}`: {error}", path.display()))?
            }
            Place::Web { url, client } => fetch(client, url).await.map_err(|error| format!("{url}: {error}"))?,
        };
        if bytes.len() > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes"));
        }
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| format!("no JSON: {error}"))?;
        let listed = document["keys"].as_array().ok_or("there is no list `keys`")?;
        // What is not understood, or is for something else, is for others.
        Ok(listed.iter().take(MOST_KEYS).filter_map(key).collect())
    }
}

impl State {
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let fits = |key: &&Key| {
            key.decoding.family() == algorithm.family()
                && key.algorithm.as_ref().is_none_or(|only| *only == format!("{algorithm:?}"))
        };
        match id {
            Some(id) => {
                self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).find(fits).map(|key| &key.decoding)
            }
            // A token without the name of a key can only mean the one that there is.
            None => {
                let mut fitting = self.keys.iter().filter(fits);
                fitting.next().filter(|_| fitting.next().is_none()).map(|key| &key.decoding)
            }
        }
    }
}

fn key(value: &Value) -> Option<Key> {
    // A secret that is published is none.
    if value["kty"] == "oct" {
        return None;
    }
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = value["alg"].as_str().map(str::to_owned);
    Some(Key { decoding: DecodingKey::from_jwk(&jwk).ok()?, id: jwk.common.key_id, algorithm })
}

async fn fetch(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, String> {
    let words = |error: reqwest::Error| error.without_url().to_string();
    let mut answer = client.get(url.clone()).send().await.map_err(words)?;
    if !answer.status().is_success() {
        return Err(format!("answered {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(words)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST_BYTES {
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example key of RFC 7517, appendix A.1, under another name.
    fn published(id: &str) -> Value {
        serde_json::json!({
            "kty": "EC", "crv": "P-256", "kid": id,
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_found_soon_and_one_that_is_gone_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        let publish = |ids: &[&str]| {
            let keys: Vec<Value> = ids.iter().map(|id| published(id)).collect();
            std::fs::write(&file, serde_json::json!({ "keys": keys }).to_string()).expect("written");
        };
        let keys = Keys::at(file.to_str().expect("text")).expect("a file");
        let found = async |id: Option<&str>| keys.find(id, Algorithm::ES256).await.map(|key| key.is_some());
        assert!(found(Some("one")).await.is_err(), "there is no file");
        publish(&["one"]);
        assert!(found(Some("one")).await.is_err(), "it is not tried again at once");
        tokio::time::advance(AGAIN).await;
        assert_eq!(found(Some("one")).await, Ok(true));
        assert_eq!(found(None).await, Ok(true), "there is but one");
        assert_eq!(
            keys.find(Some("one"), Algorithm::RS256).await.map(|key| key.is_some()),
            Ok(false),
            "of another kind"
        );

        publish(&["one", "two"]);
        assert_eq!(found(Some("two")).await, Ok(false), "not so soon");
        tokio::time::advance(AGAIN).await;
        assert_eq!(found(Some("two")).await, Ok(true));
        assert_eq!(found(None).await, Ok(false), "which of them?");
        publish(&["two"]);
        assert_eq!(found(Some("one")).await, Ok(true), "it was good a moment ago");
        tokio::time::advance(FRESH).await;
        assert_eq!(found(Some("one")).await, Ok(false), "after an hour it is looked at again");

        std::fs::remove_file(&file).expect("removed");
        tokio::time::advance(FRESH).await;
        assert_eq!(found(Some("two")).await, Ok(true), "what is known serves while the issuer is away");
        tokio::time::advance(MOST_STALE).await;
        assert!(found(Some("two")).await.is_err(), "but not for ever");
    }
}
