select id from saga where definition_name = $1 and key = $2
union all
select saga_id from archived_key where definition_name = $1 and key = $2
