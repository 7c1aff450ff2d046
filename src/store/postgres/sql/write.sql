-- A whole unit of work as one statement, which commits by itself: the parts are those of insert_sagas, insert_commands,
-- update_sagas, settle_commands, insert_history and insert_audit. $69, $70, $71: how many sagas must have been inserted and
-- updated, and how many commands settled; with fewer it divides by zero, and nothing of it is written.
with started as (
    insert into saga (
        id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
        input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
    select
        id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::json, stuck::json,
        cause::json, input::json, input_hash, output::json, reads_outputs, signals::json, parent::json,
        deadline_at, due_at, created_at, updated_at, ended_at
    from unnest(
        $1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::bool[], $7::int4[], $8::int4[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::bytea[], $14::text[], $15::bool[], $16::text[], $17::text[],
        $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::timestamptz[])
        as new (
            id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
            input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
    where not exists (
        select from archived_key a where a.definition_name = new.definition_name and a.key = new.key)
    on conflict (definition_name, key) do nothing
    returning id
), decided as (
    insert into outbox (
        saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body, state, decided_at,
        decided_revision)
    select
        saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body::json, 'PENDING',
        decided_at, decided_revision
    from unnest(
        $23::uuid[], $24::int4[], $25::text[], $26::int4[], $27::text[], $28::int4[], $29::int4[], $30::text[], $31::text[],
        $32::text[], $33::timestamptz[], $34::int4[])
        as new (
            saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body, decided_at,
            decided_revision)
), updated as (
    update saga set
        state = new.state,
        paused = new.paused,
        revision = new.revision,
        next_seq = new.next_seq,
        steps = new.steps::json,
        stuck = new.stuck::json,
        cause = new.cause::json,
        output = new.output::json,
        signals = new.signals::json,
        parent = new.parent::json,
        deadline_at = new.deadline_at,
        due_at = new.due_at,
        updated_at = new.updated_at,
        ended_at = new.ended_at
    from unnest(
        $35::uuid[], $36::int4[], $37::text[], $38::bool[], $39::int4[], $40::int4[], $41::text[], $42::text[], $43::text[],
        $44::text[], $45::text[], $46::text[], $47::timestamptz[], $48::timestamptz[], $49::timestamptz[],
        $50::timestamptz[])
        as new (
            id, from_revision, state, paused, revision, next_seq, steps, stuck, cause, output, signals, parent,
            deadline_at, due_at, updated_at, ended_at)
    where saga.id = new.id
        and saga.revision = new.from_revision
        and saga.revision < new.revision
        and saga.state in ('RUNNING', 'COMPENSATING', 'STUCK')
    returning 1
), settled as (
    update outbox set
        state = 'VERIFIED',
        outcome = new.outcome,
        attempt = new.attempt,
        output = new.output::json,
        problem = new.problem::json,
        verified_at = new.verified_at,
        verified_revision = new.verified_revision
    from unnest($51::uuid[], $52::int4[], $53::text[], $54::int4[], $55::text[], $56::text[], $57::timestamptz[], $58::int4[])
        as new (saga_id, seq, outcome, attempt, output, problem, verified_at, verified_revision)
    where outbox.saga_id = new.saga_id and outbox.seq = new.seq
    returning 1
), told as (
    insert into history (saga_id, revision, at, event)
    select saga_id, revision, at, event::json
    from unnest($59::uuid[], $60::int4[], $61::timestamptz[], $62::text[]) as new (saga_id, revision, at, event)
), audited as (
    insert into audit (at, actor, saga_id, action, reason, detail)
    select at, actor, saga_id, action, reason, detail::json
    from unnest($63::timestamptz[], $64::text[], $65::uuid[], $66::text[], $67::text[], $68::text[])
        as new (at, actor, saga_id, action, reason, detail)
)
select 1 / case
    when (select count(*) from started) = $69
        and (select count(*) from updated) = $70
        and (select count(*) from settled) = $71
    then 1 else 0
end
