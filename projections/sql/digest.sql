-- SHA-256 (hex) over how many {rows} there are and the sums of two 60-bit pieces of each one's SHA-256: the order of the rows does not
-- matter, so nothing is sorted. $1 is the time of the newest event folded.
SELECT encode(sha256(convert_to(
    concat_ws(' ', count(*), sum(('x' || left(h, 15))::bit(60)::bigint), sum(('x' || substr(h, 16, 15))::bit(60)::bigint)), 'UTF8')), 'hex')
FROM (SELECT encode(sha256(convert_to(v::text, 'UTF8')), 'hex') AS h FROM ({rows}) v) hashes
