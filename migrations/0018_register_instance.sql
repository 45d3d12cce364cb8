-- A new instance that may append until it is fenced; others may fence it once `p_lease` has passed without renewal.
CREATE FUNCTION emberlog.register_instance(p_description text, p_lease interval) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog
AS $$
    INSERT INTO emberlog.instances (description, lease_until) VALUES (p_description, clock_timestamp() + p_lease) RETURNING id
$$;
