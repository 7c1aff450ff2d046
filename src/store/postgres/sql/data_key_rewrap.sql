-- $1 id, $2 wrapped as it was, $3 the other master key, $4 wrapped by that one
update data_key set master = $3, wrapped = $4 where id = $1 and wrapped = $2
