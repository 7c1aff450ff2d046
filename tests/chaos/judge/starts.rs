//! Guarantees 1 and 2: what clients were told.

use std::collections::BTreeMap;

use amends::saga::Saga;

use super::{Answer, Evidence, Verdict};

pub fn judge(evidence: &Evidence, verdict: &mut Verdict) {
    let mut owners: BTreeMap<(&str, &str), Vec<&Saga>> = BTreeMap::new();
    for stored in evidence.sagas.values() {
        if let Some(key) = &stored.saga.key {
            owners.entry((&stored.saga.definition.name, key)).or_default().push(&stored.saga);
        }
    }
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
                let owned = start.key.as_ref().and_then(|key| owners.get(&(&*start.definition, &**key)));
                let same = owned
                    .into_iter()
                    .flatten()
                    .find(|saga| saga.input.canonical_hash() == start.input.canonical_hash());
                let id = same.map(|saga| saga.id);
                verdict.weigh(2, same.is_none(), id, || "a start that repeats this one was refused".to_owned());
            }
        }
    }
    for ((_, key), owners) in owners {
        let others = || format!("key {key} has {} sagas", owners.len());
        verdict.weigh(2, owners.len() == 1, owners.first().map(|saga| saga.id), others);
    }
}
