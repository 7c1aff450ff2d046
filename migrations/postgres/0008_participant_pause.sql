-- Participants, or single actions of theirs, that operators have paused: their commands are held back.

create table participant_pause (
    participant text        not null check (participant <> ''),
    action      text        not null,
    is_paused   boolean     not null,
    since       timestamptz not null,
    by          text        not null,
    reason      text        not null,
    primary key (participant, action)
);
comment on table participant_pause is 'what operators have paused; a row stays when it is resumed, and is used again';
comment on column participant_pause.action is 'empty: all actions of the participant';
comment on column participant_pause.since is 'of the present or the last pause';
