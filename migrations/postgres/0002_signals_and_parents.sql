alter table saga add column signals json;
alter table saga add column parent json;
comment on column saga.signals is 'signals that came before the step that waits for them';
comment on column saga.parent is 'of a sub-saga: the saga that started it, and where to tell it what became of it';
