SELECT name, checksum FROM emberlog.schema_migrations ORDER BY name
