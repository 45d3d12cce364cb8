-- A shredded tenant keeps its row without a key: its name is taken for good, and no later insert brings a key back. Only the owner
-- may update the table. The release before this one does not know a row without a key: shred once every gateway runs this one.
ALTER TABLE emberlog.tenant_keys ALTER COLUMN wrapped DROP NOT NULL;
ALTER TABLE emberlog.tenant_keys
    ADD COLUMN shredded_at timestamptz,
    ADD CONSTRAINT shredded_has_no_key CHECK ((wrapped IS NULL) = (shredded_at IS NOT NULL));
