insert into outbox (
    saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body, state, decided_at,
    decided_revision)
select
    saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body::json, 'PENDING',
    decided_at, decided_revision
from unnest(
    $1::uuid[], $2::int4[], $3::text[], $4::int4[], $5::text[], $6::int4[], $7::int4[], $8::text[], $9::text[],
    $10::text[], $11::timestamptz[], $12::int4[])
    as new (
        saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body, decided_at,
        decided_revision)
