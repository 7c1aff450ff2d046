-- $1 how many are counted at most
select 'STUCK', (select count(*) from (select 1 from saga where state = 'STUCK' limit $1) as some)
union all
select 'RUNNING', (select count(*) from (select 1 from saga where state = 'RUNNING' limit $1) as some)
union all
select 'COMPENSATING', (select count(*) from (select 1 from saga where state = 'COMPENSATING' limit $1) as some)
union all
select 'COMPLETED', (select count(*) from (select 1 from saga where state = 'COMPLETED' limit $1) as some)
union all
select 'COMPENSATED', (select count(*) from (select 1 from saga where state = 'COMPENSATED' limit $1) as some)
union all
select 'ABANDONED', (select count(*) from (select 1 from saga where state = 'ABANDONED' limit $1) as some)
