insert or fail into outbox (
    saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body, state, decided_at,
    decided_revision)
select
    column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, 'PENDING', column11,
    column12
from (values :rows)
where column1 is not null
