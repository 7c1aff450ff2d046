-- $1 who, $2 until when, $3 the time; until now gives it back.
insert into archive_lease (id, holder, until) values (1, $1, $2)
on conflict (id) do update set holder = excluded.holder, until = excluded.until
where archive_lease.holder = excluded.holder or archive_lease.until <= $3
