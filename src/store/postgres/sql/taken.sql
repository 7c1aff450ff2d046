-- Whose the keys are that a batch of starts found taken.
select saga.definition_name, saga.key, saga.id, saga.input_hash
from unnest($1::text[], $2::text[]) as wanted (definition_name, key)
join saga on saga.definition_name = wanted.definition_name and saga.key = wanted.key
union all
select archived_key.definition_name, archived_key.key, archived_key.saga_id, archived_key.input_hash
from unnest($1::text[], $2::text[]) as wanted (definition_name, key)
join archived_key on archived_key.definition_name = wanted.definition_name and archived_key.key = wanted.key
