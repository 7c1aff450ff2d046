-- $1 ended before, $2 the saga to start after, $3 an id that no saga started later can have, $4 how many.
-- By ids, which are ranges of time: no index on ended_at, which every saga would have to pay for.
select id
from saga
where id > $2 and id < $3 and ended_at < $1 and parent ->> 'saga' is null
order by id
limit $4
