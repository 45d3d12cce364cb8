SELECT tenant, wrapped FROM emberlog.tenant_keys
