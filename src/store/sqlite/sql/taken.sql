-- Whose the keys are that a batch of starts found taken: $1 holds pairs of definition and key.
select saga.definition_name, saga.key, saga.id, saga.input_hash
from json_each($1) as wanted
join saga on saga.definition_name = wanted.value ->> 0 and saga.key = wanted.value ->> 1
