-- What webhooks are still to be told. A row is written with the change that it tells of, and goes once the webhook has
-- taken it: there are as many as sagas got stuck lately, and those that nobody took.

create table webhook_delivery (
    id         uuid        not null primary key,
    webhook    text        not null,
    event      text        not null,
    saga_id    uuid        not null,
    body       text        not null,
    state      text        not null check (state in ('PENDING', 'PARKED')),
    attempts   integer     not null check (attempts >= 0),
    due_at     timestamptz,
    problem    text,
    created_at timestamptz not null,
    constraint webhook_delivery_due check ((due_at is not null) = (state = 'PENDING'))
);
comment on table webhook_delivery is 'what webhooks are still to be told';
comment on column webhook_delivery.id is 'the same for every attempt; begins as the saga''s id does';
comment on column webhook_delivery.webhook is 'its name in the settings, which have its address';
comment on column webhook_delivery.body is 'as it is sent: no input and no output of any step';
comment on column webhook_delivery.state is 'PARKED once attempts are spent, until a person has seen to it';
comment on column webhook_delivery.due_at is 'when it is tried next; while an attempt is under way, when that counts as lost';

create index webhook_delivery_due on webhook_delivery (due_at) where due_at is not null;
