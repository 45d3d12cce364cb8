-- Ends every ownership at once: only for whoever knows that no other process uses this database.
UPDATE projections.cursors SET owner = NULL, fence = fence + 1, lease_until = '-infinity' WHERE owner IS NOT NULL
