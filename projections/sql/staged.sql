-- Where events are brought that Postgres no longer holds, or holds in an old shape; emptied with each transaction.
CREATE TEMP TABLE IF NOT EXISTS staged_events (
    position bigint PRIMARY KEY, recorded_at timestamptz NOT NULL, tenant text NOT NULL, type text NOT NULL, data jsonb NOT NULL
) ON COMMIT DELETE ROWS
