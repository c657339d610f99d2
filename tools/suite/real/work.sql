-- SQLite at work: inserts, an index, joins, aggregates, updates, ordering.
create table birds (id integer primary key, name text, kind integer, weight integer);
create table sightings (id integer primary key, bird integer, place text, day integer);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
insert into birds select i, 'bird ' || (i * 7919 % 20011), i % 17, i * 37 % 1009 from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000)
insert into sightings select i, i * 7907 % 20000 + 1, 'place ' || (i % 101), i * 13 % 365 from n;
commit;
create index by_bird on sightings (bird);
select kind, count(*), sum(weight), max(name) from birds group by kind order by kind;
select b.kind, count(*), sum(s.day) from birds b join sightings s on s.bird = b.id where b.weight > 300 group by b.kind;
update birds set weight = weight + (select count(*) from sightings s where s.bird = birds.id);
select place, count(distinct bird) from sightings group by place order by 2 desc, 1 limit 10;
select name, weight from birds where name like '%99%' order by weight desc, name limit 20;
delete from sightings where day % 3 = 0;
select count(*), sum(day) from sightings;
