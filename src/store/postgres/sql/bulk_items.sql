-- $1 the job, $2 an outcome, or `open`, $3 the saga to start after, $4 how many
select saga_id, outcome, code, detail, revision, at
from bulk_item
where job_id = $1
    and ($2::text is null or coalesce(outcome, 'open') = $2)
    and ($3::uuid is null or saga_id > $3)
order by saga_id
limit $4
