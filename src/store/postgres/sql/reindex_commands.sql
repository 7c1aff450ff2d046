-- Their commands follow to the places that their steps have in the new version.
update outbox set step_index = new.step_index
from unnest($1::uuid[], $2::text[], $3::int4[]) as new (saga_id, step, step_index)
where outbox.saga_id = new.saga_id and outbox.step = new.step and outbox.step_index <> new.step_index
