-- What is applied. Through jsonb, because the table of a database that was last migrated before there were two kinds lacks the column.
SELECT name, checksum, coalesce((to_jsonb(m)->>'after_deploy')::boolean, false) AS after_deploy
FROM emberlog.schema_migrations m
ORDER BY name
