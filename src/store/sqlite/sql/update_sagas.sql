update saga set
    state = new.value ->> 'state',
    paused = new.value ->> 'paused',
    revision = new.value ->> 'revision',
    next_seq = new.value ->> 'seq',
    steps = new.value ->> 'steps',
    stuck = new.value ->> 'stuck',
    cause = new.value ->> 'cause',
    output = new.value ->> 'output',
    signals = new.value ->> 'signals',
    parent = new.value ->> 'parent',
    deadline_at = new.value ->> 'deadline',
    due_at = new.value ->> 'due',
    updated_at = new.value ->> 'updated',
    ended_at = new.value ->> 'ended'
from json_each($1) as new
where saga.id = unhex(new.value ->> 'id')
    and saga.revision = new.value ->> 'from'
    and saga.revision < new.value ->> 'revision'
    and saga.state in ('RUNNING', 'COMPENSATING', 'STUCK')
