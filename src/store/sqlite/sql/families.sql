-- $1 roots, $2 ended before. Sub-sagas are found by their keys, which are those of the commands that started them.
with recursive member as (
    select id as root, id, 0 as depth from saga where id in (select unhex(value) from json_each($1))
    union all
    select member.root, child.id, member.depth + 1
    from member
    join outbox o on o.saga_id = member.id and o.participant = 'amends' and o.direction = 'action'
    join saga child on child.definition_name = o.body ->> 'saga'
        and child.key = lower(
            substr(hex(o.saga_id), 1, 8) || '-' || substr(hex(o.saga_id), 9, 4) || '-' || substr(hex(o.saga_id), 13, 4)
            || '-' || substr(hex(o.saga_id), 17, 4) || '-' || substr(hex(o.saga_id), 21))
            || '/' || o.step || '/action/' || o.generation
        and replace(child.parent ->> 'saga', '-', '') = lower(hex(member.id))
    where member.depth < 100
), young as (
    select member.root from member join saga s on s.id = member.id where s.ended_at is null or s.ended_at >= $2
)
select member.root, member.id
from member
where member.root not in (select root from young)
order by member.root, member.depth, member.id
