-- $1 sagas, $2 the revisions that they are said to have; a row for each that has it
select 1
from unnest($1::uuid[], $2::integer[]) as said (id, revision)
join saga on saga.id = said.id and saga.revision = said.revision
