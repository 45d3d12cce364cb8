SELECT installation, incarnation FROM emberlog.log_identity
