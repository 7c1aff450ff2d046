-- $1 who, $2 for how many seconds; 0 gives it back.
insert into archive_lease (id, holder, until) values (1, $1, clock_timestamp() + $2 * interval '1 second')
on conflict (id) do update set holder = excluded.holder, until = excluded.until
where archive_lease.holder = excluded.holder or archive_lease.until <= clock_timestamp()
