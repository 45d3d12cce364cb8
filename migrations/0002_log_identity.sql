-- Who this log is. `installation` is kept through restores; `incarnation` is renewed by each, so that cursors handed out
-- before it are refused.
CREATE TABLE emberlog.log_identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    installation uuid NOT NULL DEFAULT gen_random_uuid(),
    incarnation uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO emberlog.log_identity DEFAULT VALUES;
