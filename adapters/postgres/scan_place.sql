-- Which log this is and how far it goes, at one moment.
SELECT i.incarnation, h.position FROM emberlog.log_identity i CROSS JOIN emberlog.head() h
