-- The quantiles of QUANTILES, and the longest, in microseconds: each the least within which that share was done.
with measured as (
    select
        o.step, o.direction, max(0, o.verified_at - o.decided_at) as took,
        row_number() over (partition by o.step, o.direction order by o.verified_at - o.decided_at) as place,
        count(*) over (partition by o.step, o.direction) as n
    from saga s
    join outbox o on o.saga_id = s.id
    where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
        and ($3 is null or s.created_at >= $3)
        and o.outcome = 'success' and o.attempt = 1
)
select
    step, direction, max(n),
    max(took) filter (where place = (n * 500 + 999) / 1000),
    max(took) filter (where place = (n * 900 + 999) / 1000),
    max(took) filter (where place = (n * 950 + 999) / 1000),
    max(took) filter (where place = (n * 980 + 999) / 1000),
    max(took) filter (where place = (n * 990 + 999) / 1000),
    max(took) filter (where place = (n * 999 + 999) / 1000),
    max(took)
from measured
group by step, direction
order by step, direction
