-- Whose the keys are that a batch of starts found taken: $1 holds pairs of definition and key.
select saga.definition_name, saga.key, saga.id, saga.input_hash
from json_each($1) as wanted
join saga on saga.definition_name = wanted.value ->> 0 and saga.key = wanted.value ->> 1
union all
select archived_key.definition_name, archived_key.key, archived_key.saga_id, archived_key.input_hash
from json_each($1) as wanted
join archived_key on archived_key.definition_name = wanted.value ->> 0 and archived_key.key = wanted.value ->> 1
