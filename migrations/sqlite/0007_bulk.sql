-- Operators' actions on many sagas at once, as jobs: which sagas, what became of each.

create table bulk_job (
    id          blob    not null primary key check (length(id) = 16),
    action      text    not null,
    step        text,
    filter      text    not null check (json_valid(filter)),
    reason      text    not null,
    actor       text    not null,
    rate        integer not null check (rate >= 1),
    state       text    not null check (state in ('RUNNING', 'PAUSED', 'STOPPED', 'DONE')),
    total       integer not null check (total >= 0),
    is_bounded  integer not null check (is_bounded in (0, 1)),
    applied     integer not null default 0,
    refused     integer not null default 0,
    failed      integer not null default 0,
    created_at  integer not null,
    updated_at  integer not null,
    ended_at    integer,
    holder      blob,
    lease_until integer,
    checked     text check (checked is null or json_valid(checked)),
    check_due   integer,
    check ((state in ('STOPPED', 'DONE')) = (ended_at is not null))
) strict, without rowid;

create index bulk_job_waiting on bulk_job (id) where state = 'RUNNING' or check_due is not null;

create table bulk_item (
    job_id   blob    not null check (length(job_id) = 16),
    saga_id  blob    not null check (length(saga_id) = 16),
    outcome  text    check (outcome in ('applied', 'refused', 'failed')),
    code     text,
    detail   text,
    revision integer,
    at       integer,
    primary key (job_id, saga_id),
    check ((outcome is null) = (at is null))
) strict, without rowid;
