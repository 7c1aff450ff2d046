-- Whose the keys are that a batch of starts found taken.
select saga.definition_name, saga.key, saga.id, saga.input_hash
from unnest($1::text[], $2::text[]) as wanted (definition_name, key)
join saga on saga.definition_name = wanted.definition_name and saga.key = wanted.key
