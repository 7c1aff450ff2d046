-- $1 after this id, $2 how many
select id, purpose, master, wrapped, created_at from data_key where id > $1 order by id limit $2
