-- Ends sessions named $1 that have waited for their client for $2 in the middle of a transaction: a line went silent or a process was
-- stopped. Postgres does so itself between two statements, but not between the parts of one, as while a statement is being prepared.
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = session_user AND application_name = $1 AND pid <> pg_backend_pid()
    AND xact_start IS NOT NULL AND wait_event_type = 'Client' AND state_change < clock_timestamp() - $2::interval
