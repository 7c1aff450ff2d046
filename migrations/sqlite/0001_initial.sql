-- What amends keeps. Times are microseconds since 1970, UTC; ids and hashes are blobs; JSON is text as it came.

create table definition (
    name          text    not null,
    version       integer not null check (version >= 1),
    hash          blob    not null check (length(hash) = 32),
    source        text    not null,
    registered_at integer not null,
    registered_by text    not null,
    primary key (name, version)
) strict, without rowid;

create table saga (
    id                 blob    not null primary key check (length(id) = 16),
    definition_name    text    not null,
    definition_version integer not null check (definition_version >= 1),
    key                text,
    state              text    not null
        check (state in ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'STUCK', 'ABANDONED')),
    paused             integer not null check (paused in (0, 1)),
    revision           integer not null check (revision >= 1),
    next_seq           integer not null check (next_seq >= 1),
    steps              text    not null,
    stuck              text,
    cause              text,
    input              text    not null,
    input_hash         blob    not null check (length(input_hash) = 32),
    output             text,
    reads_outputs      integer not null check (reads_outputs in (0, 1)),
    deadline_at        integer,
    due_at             integer,
    created_at         integer not null,
    updated_at         integer not null,
    ended_at           integer,
    unique (definition_name, key),
    constraint saga_ended check ((ended_at is not null) = (state in ('COMPLETED', 'COMPENSATED', 'ABANDONED'))),
    constraint saga_stuck check ((stuck is not null) = (state = 'STUCK')),
    constraint saga_due check (due_at is null or (ended_at is null and paused = 0))
) strict;

create index saga_due on saga (due_at) where due_at is not null;
create index saga_live on saga (id) where state in ('RUNNING', 'COMPENSATING', 'STUCK');

create table outbox (
    saga_id           blob    not null,
    seq               integer not null check (seq >= 1),
    step              text    not null,
    step_index        integer not null check (step_index >= 0),
    direction         text    not null check (direction in ('action', 'compensation')),
    generation        integer not null check (generation >= 1),
    compensates       integer check (compensates >= 1),
    participant       text    not null,
    action            text    not null,
    body              text    not null,
    state             text    not null check (state in ('PENDING', 'VERIFIED')),
    decided_at        integer not null,
    decided_revision  integer not null check (decided_revision >= 1),
    outcome           text check (outcome in ('success', 'failure', 'unknown', 'skipped', 'abandoned')),
    attempt           integer check (attempt >= 1),
    output            text,
    problem           text,
    verified_at       integer,
    verified_revision integer check (verified_revision >= 1),
    primary key (saga_id, seq),
    constraint outbox_verified check (
        (state = 'VERIFIED') = (outcome is not null)
        and (outcome is null) = (verified_at is null)
        and (outcome is null) = (verified_revision is null)
        and (outcome is null) = (attempt is null)),
    constraint outbox_output check (output is null or outcome = 'success'),
    constraint outbox_compensates check ((compensates is not null) = (direction = 'compensation'))
) strict, without rowid;

create table history (
    saga_id  blob    not null,
    revision integer not null,
    at       integer not null,
    event    text    not null,
    primary key (saga_id, revision)
) strict, without rowid;

create table audit (
    id      integer primary key autoincrement,
    at      integer not null,
    actor   text    not null,
    saga_id blob,
    action  text    not null,
    reason  text    not null,
    detail  text    not null
) strict;
create index audit_saga on audit (saga_id, id) where saga_id is not null;

create table token_key (
    id         integer not null primary key,
    secret     blob    not null check (length(secret) = 32),
    created_at integer not null
) strict;
