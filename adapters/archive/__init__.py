"""Events outside the table: segment files that old partitions move to, and the export of a log."""
