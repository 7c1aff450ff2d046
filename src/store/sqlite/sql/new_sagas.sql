-- Which of $1, a JSON array of ids in hexadecimal digits, are there.
select id from saga where id in (select unhex(value) from json_each($1))
