//! Guarantees 1 and 2: what clients were told.

use std::collections::BTreeMap;

use super::{Answer, Evidence, Verdict};

pub fn judge(evidence: &Evidence, verdict: &mut Verdict) {
    for start in &evidence.starts {
        match start.answer {
            Answer::Saga(id) => {
                let stored = evidence.sagas.get(&id).map(|stored| &stored.saga);
                let is_kept = stored.is_some_and(|saga| saga.definition.name == start.definition);
                verdict.weigh(1, is_kept, Some(id), || "it was acknowledged and is not there".to_owned());
                if let Some(saga) = stored {
                    let is_same = saga.input.canonical_hash() == start.input.canonical_hash()
                        && (start.key.is_none() || start.key == saga.key);
                    verdict.weigh(2, is_same, Some(id), || "it answers for a start of another input or key".to_owned());
                }
            }
            Answer::KeyConflict => {
                let same = evidence.sagas.values().find(|stored| {
                    stored.saga.definition.name == start.definition
                        && stored.saga.key == start.key
                        && stored.saga.input.canonical_hash() == start.input.canonical_hash()
                });
                let id = same.map(|stored| stored.saga.id);
                verdict.weigh(2, same.is_none(), id, || "a start that repeats this one was refused".to_owned());
            }
        }
    }
    let mut owners = BTreeMap::new();
    for stored in evidence.sagas.values() {
        let Some(key) = &stored.saga.key else { continue };
        let other = owners.insert((stored.saga.definition.name.clone(), key.clone()), stored.saga.id);
        verdict.weigh(2, other.is_none(), Some(stored.saga.id), || format!("key {key} has another saga, {other:?}"));
    }
}
