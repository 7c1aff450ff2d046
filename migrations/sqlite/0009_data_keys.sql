-- Keys that payloads are encrypted with, wrapped by a master key that is not in here. None is removed: an archive may
-- need it.

create table data_key (
    id         blob    not null primary key check (length(id) = 16),
    purpose    text    not null check (purpose in ('payload', 'hash')),
    master     text    not null check (master <> ''),
    wrapped    blob    not null check (length(wrapped) = 72),
    created_at integer not null
) strict, without rowid;
create unique index data_key_hash on data_key (purpose) where purpose = 'hash';
