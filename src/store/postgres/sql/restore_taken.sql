-- Whether a key of the sagas in $1 belongs to another saga by now, stored or archived.
select exists (
    select from json_populate_recordset(null::saga, $1::json) old
    where exists (select from saga s where s.definition_name = old.definition_name and s.key = old.key)
        or exists (
            select from archived_key a
            where a.definition_name = old.definition_name and a.key = old.key and a.saga_id <> old.id))
