-- $1 roots, $2 ended before. Sub-sagas are found by their keys, which are those of the commands that started them.
with recursive member as (
    select id as root, id, 0 as depth from saga where id = any($1)
    union all
    select member.root, child.id, member.depth + 1
    from member
    join outbox o on o.saga_id = member.id and o.participant = 'amends' and o.direction = 'action'
    join saga child on child.definition_name = o.body ->> 'saga'
        and child.key = o.saga_id::text || '/' || o.step || '/action/' || o.generation
        and child.parent ->> 'saga' = member.id::text
    where member.depth < 100
), young as (
    select member.root from member join saga s on s.id = member.id where s.ended_at is null or s.ended_at >= $2
)
select member.root, json_build_object(
    'saga', s,
    'outbox', (select coalesce(json_agg(o order by o.seq), '[]') from outbox o where o.saga_id = s.id),
    'history', (select coalesce(json_agg(h order by h.revision), '[]') from history h where h.saga_id = s.id),
    'audit', (select coalesce(json_agg(a order by a.id), '[]') from audit a where a.saga_id = s.id))::text
from member
join saga s on s.id = member.id
where member.root not in (select root from young)
order by member.root, member.depth, s.id
