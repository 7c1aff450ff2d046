-- $1 the job, $2 its sagas
insert into bulk_item (job_id, saga_id) select $1::uuid, saga from unnest($2::uuid[]) as given (saga)
