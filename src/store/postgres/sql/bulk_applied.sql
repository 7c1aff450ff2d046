update bulk_item set outcome = 'applied', revision = new.revision, at = new.at
from unnest($1::uuid[], $2::uuid[], $3::int4[], $4::timestamptz[]) as new (job_id, saga_id, revision, at)
where bulk_item.job_id = new.job_id and bulk_item.saga_id = new.saga_id and outcome is null
