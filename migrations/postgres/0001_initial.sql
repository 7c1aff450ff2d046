-- What amends keeps. Payloads are `json`, not `jsonb`: they pass through as they came.

create table definition (
    name          text        not null,
    version       integer     not null check (version >= 1),
    hash          bytea       not null check (length(hash) = 32),
    source        text        not null,
    registered_at timestamptz not null,
    registered_by text        not null,
    primary key (name, version)
);
comment on table definition is 'saga definitions; a row is never changed';

create table saga (
    id                 uuid        not null primary key,
    definition_name    text        not null,
    definition_version integer     not null check (definition_version >= 1),
    key                text,
    state              text        not null
        check (state in ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'STUCK', 'ABANDONED')),
    paused             boolean     not null,
    revision           integer     not null check (revision >= 1),
    next_seq           integer     not null check (next_seq >= 1),
    steps              json        not null,
    stuck              json,
    cause              json,
    input              json        not null,
    input_hash         bytea       not null check (length(input_hash) = 32),
    output             json,
    reads_outputs      boolean     not null,
    deadline_at        timestamptz,
    due_at             timestamptz,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    ended_at           timestamptz,
    unique (definition_name, key),
    constraint saga_ended check ((ended_at is not null) = (state in ('COMPLETED', 'COMPENSATED', 'ABANDONED'))),
    constraint saga_stuck check ((stuck is not null) = (state = 'STUCK')),
    constraint saga_due check (due_at is null or (ended_at is null and not paused))
) with (fillfactor = 85);
comment on column saga.revision is 'rises with every event; every update names the one it was made from';
comment on column saga.steps is 'where each step stands, in the order of the definition; what steps put out is in outbox';
comment on column saga.state is 'COMPLETED, COMPENSATED and ABANDONED are final';
comment on column saga.key is 'at most one saga per definition and key';
comment on column saga.paused is 'by an operator: replies are applied, nothing new is sent';
comment on column saga.stuck is 'why it cannot go on without a person';
comment on column saga.cause is 'why it went backward';
comment on column saga.input_hash is 'of the input in canonical form: the same key with another input is refused';
comment on column saga.due_at is 'when a coordinator must look at the saga again by itself';
comment on column saga.deadline_at is 'when the saga turns round; null once its pivot was sent';

create index saga_due on saga (due_at) where due_at is not null;
create index saga_live on saga (id) where state in ('RUNNING', 'COMPENSATING', 'STUCK');

create table outbox (
    saga_id           uuid        not null,
    seq               integer     not null check (seq >= 1),
    step              text        not null,
    step_index        integer     not null check (step_index >= 0),
    direction         text        not null check (direction in ('action', 'compensation')),
    generation        integer     not null check (generation >= 1),
    compensates       integer check (compensates >= 1),
    participant       text        not null,
    action            text        not null,
    body              json        not null,
    state             text        not null check (state in ('PENDING', 'VERIFIED')),
    decided_at        timestamptz not null,
    decided_revision  integer     not null check (decided_revision >= 1),
    outcome           text check (outcome in ('success', 'failure', 'unknown', 'skipped', 'abandoned')),
    attempt           integer check (attempt >= 1),
    output            json,
    problem           json,
    verified_at       timestamptz,
    verified_revision integer check (verified_revision >= 1),
    primary key (saga_id, seq),
    constraint outbox_verified check (
        (state = 'VERIFIED') = (outcome is not null)
        and (outcome is null) = (verified_at is null)
        and (outcome is null) = (verified_revision is null)
        and (outcome is null) = (attempt is null)),
    constraint outbox_output check (output is null or outcome = 'success'),
    constraint outbox_compensates check ((compensates is not null) = (direction = 'compensation'))
) with (fillfactor = 85);
comment on table outbox is
    'every command, PENDING from the moment it is decided, VERIFIED once its outcome is known. No partial index on
     PENDING rows: its dead entries would dominate scans; PENDING rows belong to live sagas, which are indexed';

comment on column outbox.state is 'PENDING from the moment it is decided; VERIFIED once its outcome is durable, and never back';
comment on column outbox.seq is 'the place of the command in its saga, in the order they were decided';
comment on column outbox.generation is 'the last part of the idempotency key; rises when a recorded failure is tried anew';
comment on column outbox.compensates is 'of a compensation: the generation of the action that it undoes';
comment on column outbox.attempt is 'the attempt that settled it; while PENDING the attempt stands in saga.steps';
comment on column outbox.output is 'what the step put out: stored here alone';
comment on column outbox.decided_revision is 'the saga''s revision that decided it';
comment on column outbox.verified_revision is 'the saga''s revision that settled it';

create table history (
    saga_id  uuid        not null,
    revision integer     not null,
    at       timestamptz not null,
    event    json        not null,
    primary key (saga_id, revision)
);
comment on table history is 'events that the outbox cannot tell: everything but starts and successful replies';

create table audit (
    id      bigint      not null generated always as identity primary key,
    at      timestamptz not null,
    actor   text        not null,
    saga_id uuid,
    action  text        not null,
    reason  text        not null,
    detail  json        not null
);
comment on table audit is 'who did what and why; written with what was done, never changed';
create index audit_saga on audit (saga_id, id) where saga_id is not null;

create table token_key (
    id         smallint    not null primary key,
    secret     bytea       not null check (length(secret) = 32),
    created_at timestamptz not null
);
comment on table token_key is 'secrets that sign attempt tokens';
