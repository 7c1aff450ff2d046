-- $1 the job
update bulk_item set outcome = new.outcome, code = new.code, detail = new.detail, at = clock_timestamp()
from unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) as new (saga_id, outcome, code, detail)
where bulk_item.job_id = $1 and bulk_item.saga_id = new.saga_id and bulk_item.outcome is null
