insert into outbox (
    saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body, state, decided_at,
    decided_revision)
select
    unhex(value ->> 'saga'), value ->> 'seq', value ->> 'step', value ->> 'index', value ->> 'direction',
    value ->> 'generation', value ->> 'compensates', value ->> 'participant', value ->> 'action', value ->> 'body',
    'PENDING', value ->> 'at', value ->> 'revision'
from json_each($1)
