-- The login that the gateway uses. What it may do comes from the role that the migrations make.
DO $$
BEGIN
    CREATE ROLE emberlog_gateway LOGIN;
EXCEPTION WHEN duplicate_object THEN
    NULL;
END
$$;
