-- Puts the append-only guard on a table. ALWAYS: also where `session_replication_role` switches ordinary triggers off.
CREATE FUNCTION emberlog.guard_events(p_table regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog
AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION emberlog.refuse_change()', p_table);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only', p_table);
END
$$;

SELECT emberlog.guard_events('emberlog.events');
