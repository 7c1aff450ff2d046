-- The inbox of a service that takes part in sagas, for PostgreSQL 12 and later. Lives in the service's own database:
-- its row, the effect and the reply become durable in one commit. Apply it with your own migration tool, or let
-- `amends::participant::migrate` do it; it may be applied any number of times.

create table if not exists amends_inbox (
    key         text        primary key,
    saga_id     uuid        not null,
    step        text        not null,
    direction   text        not null,
    action      text,
    status      text        not null,
    outcome     text,
    body        text,
    recorded_at timestamptz not null default now(),

    constraint amends_inbox_key_length check (length(key) between 1 and 512),
    constraint amends_inbox_direction check (direction in ('action', 'compensation')),
    constraint amends_inbox_status check (status in ('open', 'done', 'tombstone')),
    constraint amends_inbox_outcome check (outcome in ('success', 'failure')),
    -- A reply is recorded whole, and only when the command is done.
    constraint amends_inbox_reply check ((status = 'done') = (outcome is not null) and (outcome is null) = (body is null)),
    -- Only actions can be refused for having been compensated, and a tombstone does not know the action's name.
    constraint amends_inbox_tombstone check (status <> 'tombstone' or (direction = 'action' and action is null))
);

-- For amends::participant::purge: rows arrive in order of time.
create index if not exists amends_inbox_recorded_at on amends_inbox using brin (recorded_at);

comment on table amends_inbox is 'Makes each saga command take effect once. Keep rows longer than the longest saga and its operator retries.';
comment on column amends_inbox.key is 'amends-key of the command: the same for all its attempts.';
comment on column amends_inbox.status is 'open: its transaction runs, never seen committed. done: the reply is recorded. tombstone: compensated before it ran, to be refused.';
comment on column amends_inbox.body is 'The body of the reply, as it was sent; JSON.';
