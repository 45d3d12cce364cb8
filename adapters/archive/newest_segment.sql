-- The file of the newest segment.
SELECT s.file FROM emberlog.segments s ORDER BY s.last_position DESC LIMIT 1
