-- The inbox of a service that takes part in sagas, for SQLite 3.20 and later. Lives in the service's own database:
-- its row, the effect and the reply become durable in one commit. Apply it with your own migration tool, or let
-- `amends::participant::migrate` do it; it may be applied any number of times.

create table if not exists amends_inbox (
    key         text primary key not null check (length(key) between 1 and 512),
    saga_id     text not null,
    step        text not null,
    direction   text not null check (direction in ('action', 'compensation')),
    action      text,
    -- open: its transaction runs, never seen committed. done: the reply is recorded.
    -- tombstone: compensated before it ran, to be refused.
    status      text not null check (status in ('open', 'done', 'tombstone')),
    outcome     text check (outcome in ('success', 'failure')),
    body        text,
    recorded_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    -- A reply is recorded whole, and only when the command is done.
    check ((status = 'done') = (outcome is not null) and (outcome is null) = (body is null)),
    -- Only actions can be refused for having been compensated, and a tombstone does not know the action's name.
    check (status <> 'tombstone' or (direction = 'action' and action is null))
) without rowid;

create index if not exists amends_inbox_recorded_at on amends_inbox (recorded_at);
