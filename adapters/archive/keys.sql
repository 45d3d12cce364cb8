SELECT tenant, wrapped, emberlog.micros(created_at), emberlog.micros(shredded_at) FROM emberlog.tenant_keys ORDER BY tenant
