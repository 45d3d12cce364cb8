-- The schemas and the application role. The role cannot log in; the gateway's login switches to it (`SET ROLE`).
-- Roles belong to the whole cluster, so another database's migration may be making the same one at this moment.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'emberlog_app') THEN
        CREATE ROLE emberlog_app NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role "emberlog_app" does not exist and "%" may not create it', current_user
            USING HINT = 'As a superuser run: CREATE ROLE emberlog_app NOLOGIN; then run the migrations again.';
END
$$;

-- An owner that is no superuser must be a member to switch to the role.
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'emberlog_app', 'MEMBER') THEN
        EXECUTE format('GRANT emberlog_app TO %I', current_user);
    END IF;
END
$$;

-- The runner of the migrations has made the schema, for its own table.
CREATE SCHEMA IF NOT EXISTS emberlog;
GRANT USAGE ON SCHEMA emberlog TO emberlog_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA emberlog GRANT SELECT ON TABLES TO emberlog_app;
GRANT SELECT ON ALL TABLES IN SCHEMA emberlog TO emberlog_app;

-- Read models are the application's own: it may rewrite them, they can always be made again from the log.
CREATE SCHEMA projections;
GRANT USAGE ON SCHEMA projections TO emberlog_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA projections GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO emberlog_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA projections GRANT USAGE ON SEQUENCES TO emberlog_app;
