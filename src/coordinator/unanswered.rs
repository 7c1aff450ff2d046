//! What callers are told while the store is away.

use crate::coordinator::StartOutcome;
use crate::coordinator::committer::Committer;
use crate::coordinator::work::{Item, Waiting};
use crate::store::StoreError;

impl Committer {
    /// The store is away. Callers get an answer instead of a wait; replies wait, since the broker keeps them.
    pub(super) async fn answer_callers(
        &self,
        items: Vec<Item>,
        waiting: Vec<Waiting>,
        error: StoreError,
    ) -> (Vec<Item>, Vec<Waiting>) {
        let is_unknown = matches!(error, StoreError::Unknown(_));
        let mut may_ask = true;
        let mut left = (Vec::new(), Vec::new());
        for (item, waiting) in items.into_iter().zip(waiting) {
            match (item, waiting) {
                (item @ Item::Reply(_), waiting) => {
                    left.0.push(item);
                    left.1.push(waiting);
                }
                // It may have been committed: never repeated blindly, but read again by its id.
                (Item::Start(start), Waiting::Starter(sender)) if is_unknown => {
                    let definition = start.definition.reference.clone();
                    // Once that fails it is not asked for the next: each may take seconds, and nothing goes on meanwhile.
                    let found = if may_ask { self.store.saga(start.id).await } else { Err(error.clone()) };
                    may_ask &= found.is_ok();
                    let answer = match found {
                        Ok(Some(record)) => {
                            let record = Box::new(record);
                            Ok(StartOutcome::Started { id: start.id, definition, key: start.key, record })
                        }
                        Ok(None) => Err(StoreError::Unavailable(error.to_string()).into()),
                        Err(_) => Err(StoreError::Unknown(error.to_string()).into()),
                    };
                    drop(sender.send(answer));
                }
                (_, caller) => {
                    let told = error.to_string();
                    let error = if is_unknown { StoreError::Unknown(told) } else { StoreError::Unavailable(told) };
                    caller.fail(error.into());
                }
            }
        }
        left
    }
}
