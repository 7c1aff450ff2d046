insert into deprecation (name, version, is_deprecated, at, actor, reason)
select * from unnest($1::text[], $2::int4[], $3::bool[], $4::timestamptz[], $5::text[], $6::text[])
