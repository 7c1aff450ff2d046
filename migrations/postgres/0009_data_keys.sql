-- Keys that payloads are encrypted with, wrapped by a master key that is not in here.

create table data_key (
    id         uuid        not null primary key,
    purpose    text        not null check (purpose in ('payload', 'hash')),
    master     text        not null check (master <> ''),
    wrapped    bytea       not null check (length(wrapped) = 72),
    created_at timestamptz not null
);
comment on table data_key is 'what payloads are encrypted with; never removed, since an archive may need it';
comment on column data_key.master is 'the name of the master key that wraps it, as the settings have it';
comment on column data_key.wrapped is 'nonce, encrypted key, tag';
create unique index data_key_hash on data_key (purpose) where purpose = 'hash';
