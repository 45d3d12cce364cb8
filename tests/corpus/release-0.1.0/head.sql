SELECT position FROM emberlog.head()
