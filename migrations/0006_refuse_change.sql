-- Refuses every change of a written event, to the owner too. It fires per statement, so that even one that would touch no
-- row is told; such triggers are not inherited, hence `guard_events` puts it on the parent and on each partition.
CREATE FUNCTION emberlog.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog
AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'EL002', HINT = 'Correct an event by appending another that says so.';
END
$$;
