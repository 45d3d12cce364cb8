SELECT wrapped FROM emberlog.tenant_keys WHERE tenant = $1
