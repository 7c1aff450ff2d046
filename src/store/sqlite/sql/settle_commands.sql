update outbox set
    state = 'VERIFIED',
    outcome = new.value ->> 'outcome',
    attempt = new.value ->> 'attempt',
    output = new.value ->> 'output',
    problem = new.value ->> 'problem',
    verified_at = new.value ->> 'at',
    verified_revision = new.value ->> 'revision'
from json_each($1) as new
where outbox.saga_id = unhex(new.value ->> 'saga') and outbox.seq = new.value ->> 'seq'
