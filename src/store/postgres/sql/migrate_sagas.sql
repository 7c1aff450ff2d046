-- Sagas that were updated in this transaction and have moved to another version.
update saga set definition_version = new.version, reads_outputs = new.reads_outputs
from unnest($1::uuid[], $2::int4[], $3::bool[]) as new (id, version, reads_outputs)
where saga.id = new.id
