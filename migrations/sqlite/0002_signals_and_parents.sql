alter table saga add column signals text;
alter table saga add column parent text;
