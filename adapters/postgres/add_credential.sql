-- Keeps the sealed secret $4 of the credential $2 of the tenant $1 for the provider $3, under the next revision.
INSERT INTO emberlog.credentials (tenant, name, revision, provider, sealed)
SELECT $1, $2, coalesce(max(c.revision), 0) + 1, $3, $4 FROM emberlog.credentials c WHERE c.tenant = $1 AND c.name = $2
RETURNING revision
