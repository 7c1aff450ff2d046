-- Definition versions that nothing new is started with. The last row of a version counts.

create table deprecation (
    id            integer primary key autoincrement,
    name          text    not null,
    version       integer not null check (version >= 1),
    is_deprecated integer not null check (is_deprecated in (0, 1)),
    at            integer not null,
    actor         text    not null,
    reason        text    not null
) strict;
create index deprecation_of on deprecation (name, version, id desc);
