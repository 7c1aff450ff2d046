//! The tokens of the store, as a coordinator sees them: those that are good, at most [`MOST_STALE`] old.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::api::auth::{Role, TokenEntry};
use crate::store::tokens::{COARSE, LiveToken};
use crate::store::{Store, StoreError};

/// How old what is known of the store's tokens may be: a revocation takes effect everywhere within this time, and so does
/// a new token.
pub const MOST_STALE: Duration = Duration::from_secs(2);

/// After a failure to read them, how long nobody tries again: requests must not queue up for a store that is away.
const PAUSE: Duration = Duration::from_millis(500);

/// The tokens of a store.
pub(super) struct StoredTokens {
    store: Arc<dyn Store>,
    known: AsyncMutex<State>,
    /// When the use of a token was last written down from here, by its id.
    noted: Mutex<HashMap<u64, Instant>>,
    /// Whether there was ever a token, as far as is known. Tokens are never deleted, so that this never turns back.
    any_ever: AtomicBool,
}

#[derive(Default)]
enum State {
    #[default]
    Unread,
    Read {
        at: Instant,
        live: Arc<HashMap<[u8; 32], Live>>,
    },
    Failed {
        at: Instant,
        why: String,
    },
}

struct Live {
    id: u64,
    entry: TokenEntry,
    /// Whether its use need not be written down.
    is_fresh: bool,
}

impl StoredTokens {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: AsyncMutex::default(), noted: Mutex::default(), any_ever: false.into() }
    }

    /// Whether there was ever a token, as far as is known without asking.
    pub(super) fn any_known(&self) -> bool {
        self.any_ever.load(Ordering::Relaxed)
    }

    /// Whether there was ever a token.
    pub(super) async fn any_ever(&self) -> Result<bool, StoreError> {
        if !self.any_known() {
            self.live().await?;
        }
        Ok(self.any_known())
    }

    /// How many are good.
    pub(super) async fn count(&self) -> Result<usize, StoreError> {
        Ok(self.live().await?.len())
    }

    /// The token of this hash, if it is good. Its use is written down now and then.
    pub(super) async fn find(&self, hash: [u8; 32]) -> Result<Option<TokenEntry>, StoreError> {
        let live = self.live().await?;
        // Looked up by a hash of what the caller has sent, so that the time taken tells nothing of other tokens.
        let Some(found) = live.get(&hash) else { return Ok(None) };
        if !found.is_fresh {
            self.note(found.id);
        }
        Ok(Some(found.entry.clone()))
    }

    async fn live(&self) -> Result<Arc<HashMap<[u8; 32], Live>>, StoreError> {
        // Whoever comes while it is read waits for this one answer.
        let mut known = self.known.lock().await;
        match &*known {
            State::Read { at, live } if at.elapsed() < MOST_STALE => return Ok(live.clone()),
            State::Failed { at, why } if at.elapsed() < PAUSE => return Err(StoreError::Unavailable(why.clone())),
            _ => {}
        }
        // As of before it was asked: what is told may be that old.
        let at = Instant::now();
        match self.read().await {
            Ok(live) => {
                let live = Arc::new(live);
                *known = State::Read { at, live: live.clone() };
                Ok(live)
            }
            // Without an answer nobody is let in: a token may have been revoked meanwhile.
            Err(error) => {
                *known = State::Failed { at: Instant::now(), why: error.to_string() };
                Err(error)
            }
        }
    }

    async fn read(&self) -> Result<HashMap<[u8; 32], Live>, StoreError> {
        let Some(tokens) = self.store.tokens() else { return Ok(HashMap::new()) };
        let found = tokens.live_tokens().await?;
        if found.any_ever {
            self.any_ever.store(true, Ordering::Relaxed);
        }
        let read = |token: LiveToken| {
            // A role that only a later version knows gives nothing here.
            let role: Role = token.role.parse().ok()?;
            let ago = token.last_used_at.map(|used| found.now.signed_duration_since(used));
            let is_fresh = ago.is_some_and(|ago| ago.to_std().is_ok_and(|ago| ago < COARSE));
            let entry = TokenEntry { name: token.name, role, sha256: token.sha256 };
            Some((token.sha256, Live { id: token.id, entry, is_fresh }))
        };
        Ok(found.tokens.into_iter().filter_map(read).collect())
    }

    /// Writes down that a token is used, beside the request.
    fn note(&self, id: u64) {
        let now = Instant::now();
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.retain(|_, at| now.duration_since(*at) < COARSE);
            if noted.contains_key(&id) {
                return;
            }
            noted.insert(id, now);
        }
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Some(tokens) = store.tokens()
                && let Err(error) = tokens.token_used(id).await
            {
                tracing::debug!(%error, "the use of a token is not written down");
            }
        });
    }
}
