-- References can be renewed on purpose: each renewal is an epoch with rows of its own, and the log tells which epoch is in force. Those of
-- an `owner` come from an endpoint of that tenant and bind its endpoints alone ('' = the installation's): else a tenant could decide what
-- the space of everybody is.
ALTER TABLE emberlog.space_references
    ADD COLUMN owner text NOT NULL DEFAULT '',
    ADD COLUMN epoch integer NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    DROP CONSTRAINT space_references_pkey,
    ADD PRIMARY KEY (space, owner, epoch, probe);
