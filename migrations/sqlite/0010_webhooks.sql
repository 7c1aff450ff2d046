-- What webhooks are still to be told. A row is written with the change that it tells of, and goes once the webhook has
-- taken it. As in PostgreSQL; ids are blobs and times microseconds.

create table webhook_delivery (
    id         blob    not null primary key check (length(id) = 16),
    webhook    text    not null,
    event      text    not null,
    saga_id    blob    not null check (length(saga_id) = 16),
    body       text    not null,
    state      text    not null check (state in ('PENDING', 'PARKED')),
    attempts   integer not null check (attempts >= 0),
    due_at     integer,
    problem    text,
    created_at integer not null,
    check ((due_at is not null) = (state = 'PENDING'))
) strict;

create index webhook_delivery_due on webhook_delivery (due_at) where due_at is not null;
