-- Of sagas that stay in their state: without its name here, no index that goes by it is written.
update or fail saga set
    paused = new.column4,
    revision = new.column5,
    next_seq = new.column6,
    steps = new.column7,
    stuck = new.column8,
    cause = new.column9,
    output = new.column10,
    signals = new.column11,
    parent = new.column12,
    deadline_at = new.column13,
    due_at = new.column14,
    updated_at = new.column15,
    ended_at = new.column16
from (values :rows) as new
where saga.id = new.column1
    and saga.revision = new.column2
    and saga.revision < new.column5
    -- The plus keeps the index on live sagas out of it, which would be read whole.
    and +saga.state in ('RUNNING', 'COMPENSATING', 'STUCK')
    and +saga.state = new.column3
