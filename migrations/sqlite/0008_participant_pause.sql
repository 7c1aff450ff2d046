-- Participants, or single actions of theirs, that operators have paused: their commands are held back. An empty action
-- stands for all of them; a row stays when it is resumed, and is used again.

create table participant_pause (
    participant text    not null check (participant <> ''),
    action      text    not null,
    is_paused   integer not null check (is_paused in (0, 1)),
    since       integer not null,
    by          text    not null,
    reason      text    not null,
    primary key (participant, action)
) strict;
