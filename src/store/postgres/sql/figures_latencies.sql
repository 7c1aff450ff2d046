-- The quantiles of QUANTILES, and the longest, in microseconds.
select o.step, o.direction, count(*), percentile_disc(array[0.5, 0.9, 0.95, 0.98, 0.99, 0.999, 1]) within group (
    order by greatest(0, (extract(epoch from o.verified_at - o.decided_at) * 1000000)::bigint))
from saga s
join outbox o on o.saga_id = s.id
where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
    and ($3::timestamptz is null or s.created_at >= $3)
    and o.outcome = 'success' and o.attempt = 1
group by o.step, o.direction
order by o.step, o.direction
