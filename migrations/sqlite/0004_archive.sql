-- What is left of sagas that were moved to an archive.

create table archived_key (
    definition_name    text    not null,
    key                text    not null,
    saga_id            blob    not null check (length(saga_id) = 16),
    definition_version integer not null,
    state              text    not null,
    input_hash         blob    not null check (length(input_hash) = 32),
    created_at         integer not null,
    ended_at           integer not null,
    archived_at        integer not null,
    primary key (definition_name, key)
) strict, without rowid;

create index archived_key_of on archived_key (saga_id);

create table archive_lease (
    id     integer not null primary key check (id = 1),
    holder blob    not null,
    until  integer not null
) strict;
