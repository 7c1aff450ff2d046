select s.state, count(*)
from saga s
where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
    and ($3 is null or s.created_at >= $3)
group by s.state
order by s.state
