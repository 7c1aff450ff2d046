-- Live sagas by their index; of the others, which none leads to, the newest are looked at.
-- $1 how many are counted, or looked at, at most
with newest as materialized (select state from saga order by id desc limit $1)
select 'STUCK', (select count(*) from (select 1 from saga where state = 'STUCK' limit $1) as counted)
union all
select 'RUNNING', (select count(*) from (select 1 from saga where state = 'RUNNING' limit $1) as counted)
union all
select 'COMPENSATING', (select count(*) from (select 1 from saga where state = 'COMPENSATING' limit $1) as counted)
union all
select 'COMPLETED', (select count(*) from newest where state = 'COMPLETED')
union all
select 'COMPENSATED', (select count(*) from newest where state = 'COMPENSATED')
union all
select 'ABANDONED', (select count(*) from newest where state = 'ABANDONED')
