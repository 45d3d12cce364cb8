SELECT k.tenant, k.wrapped, emberlog.micros(k.created_at),
       emberlog.micros((to_jsonb(k)->>'shredded_at')::timestamptz)  -- the column may be younger than the table
FROM emberlog.tenant_keys k
ORDER BY k.tenant
