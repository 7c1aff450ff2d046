-- $1 and $2 ids and places of commands
select o.saga_id, o.seq
from unnest($1::uuid[], $2::int4[]) as wanted (saga_id, seq)
join outbox o on o.saga_id = wanted.saga_id and o.seq = wanted.seq
where o.state = 'VERIFIED'
