-- The rows in which {view} is not {truth}, side by side by their {key}, and how many there are; the first $2 of them. $1 is the time of the
-- newest event folded.
WITH view AS MATERIALIZED ({view}), truth AS MATERIALIZED ({truth})
SELECT v.row AS view, t.row AS truth, count(*) OVER () AS differing
FROM (SELECT to_jsonb(a) AS row, {key} FROM (SELECT * FROM view EXCEPT SELECT * FROM truth) a) v
FULL JOIN (SELECT to_jsonb(b) AS row, {key} FROM (SELECT * FROM truth EXCEPT SELECT * FROM view) b) t USING ({key})
ORDER BY {key}
LIMIT $2
