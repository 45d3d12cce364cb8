-- Forgets the secrets of the credential $2 of the tenant $1 up to the revision $3, whose number stays.
WITH outdated AS (
    DELETE FROM emberlog.credentials c WHERE c.tenant = $1 AND c.name = $2 AND c.revision < $3
)
UPDATE emberlog.credentials c SET sealed = NULL WHERE c.tenant = $1 AND c.name = $2 AND c.revision = $3
