-- Before the migrations have made the application's role there is nothing to grant; afterwards granting again changes nothing.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'emberlog_app')
        AND NOT pg_has_role('emberlog_gateway', 'emberlog_app', 'MEMBER') THEN
        GRANT emberlog_app TO emberlog_gateway;
    END IF;
END
$$;
