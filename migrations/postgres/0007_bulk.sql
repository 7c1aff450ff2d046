-- Operators' actions on many sagas at once, as jobs: which sagas, what became of each.

create table bulk_job (
    id          uuid        not null primary key,
    action      text        not null,
    step        text,
    filter      json        not null,
    reason      text        not null,
    actor       text        not null,
    rate        integer     not null check (rate >= 1),
    state       text        not null check (state in ('RUNNING', 'PAUSED', 'STOPPED', 'DONE')),
    total       integer     not null check (total >= 0),
    is_bounded  boolean     not null,
    applied     integer     not null default 0,
    refused     integer     not null default 0,
    failed      integer     not null default 0,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    ended_at    timestamptz,
    holder      uuid,
    lease_until timestamptz,
    checked     json,
    check_due   timestamptz,
    check ((state in ('STOPPED', 'DONE')) = (ended_at is not null))
);
comment on table bulk_job is 'an operator''s action on many sagas; carried out by whichever coordinator holds the lease';
comment on column bulk_job.applied is 'as last counted from bulk_item, which is what counts';
comment on column bulk_job.checked is 'how many of its sagas were stuck when that was last looked at';
create index bulk_job_waiting on bulk_job (id) where state = 'RUNNING' or check_due is not null;

-- Without a reference to saga: what became of it is still told when the saga was archived.
create table bulk_item (
    job_id   uuid not null,
    saga_id  uuid not null,
    outcome  text check (outcome in ('applied', 'refused', 'failed')),
    code     text,
    detail   text,
    revision integer,
    at       timestamptz,
    primary key (job_id, saga_id),
    check ((outcome is null) = (at is null))
) with (fillfactor = 70);
comment on table bulk_item is 'the sagas of a job; `applied` is written in the transaction that changes the saga';
