SELECT first_position, last_position, file, bytes, sha256, member_positions, member_offsets, member_hashes
FROM emberlog.segments
WHERE last_position >= $1 AND first_position <= $1
ORDER BY last_position
LIMIT 1
