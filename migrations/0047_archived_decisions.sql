-- The decision events of archived partitions: few, and read by every process at start, so they stay at hand.
CREATE TABLE emberlog.archived_decisions (LIKE emberlog.events INCLUDING CONSTRAINTS, PRIMARY KEY (position));
ALTER TABLE emberlog.archived_decisions ALTER COLUMN version SET NOT NULL;

SELECT emberlog.guard_events('emberlog.archived_decisions');
