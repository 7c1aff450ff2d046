-- Whether $2, a key of the definition $1, belongs to another saga than $3 by now, stored or archived.
select exists (select 1 from saga where definition_name = $1 and key = $2)
    or exists (select 1 from archived_key where definition_name = $1 and key = $2 and saga_id <> $3)
