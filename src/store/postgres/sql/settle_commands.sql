update outbox set
    state = 'VERIFIED',
    outcome = new.outcome,
    attempt = new.attempt,
    output = new.output::json,
    problem = new.problem::json,
    verified_at = new.verified_at,
    verified_revision = new.verified_revision
from unnest($1::uuid[], $2::int4[], $3::text[], $4::int4[], $5::text[], $6::text[], $7::timestamptz[], $8::int4[])
    as new (saga_id, seq, outcome, attempt, output, problem, verified_at, verified_revision)
where outbox.saga_id = new.saga_id and outbox.seq = new.seq
