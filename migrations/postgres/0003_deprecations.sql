-- Definition versions that nothing new is started with. A log, so that definitions stay insert-only: the last row of a
-- version counts.

create table deprecation (
    id            bigint      not null generated always as identity primary key,
    name          text        not null,
    version       integer     not null check (version >= 1),
    is_deprecated boolean     not null,
    at            timestamptz not null,
    actor         text        not null,
    reason        text        not null
);
create index deprecation_of on deprecation (name, version, id desc);
comment on table deprecation is 'versions that nothing new is started with; the last row of a version counts';
