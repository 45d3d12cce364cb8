-- The sum of two latency histograms of 20 bins, bin by bin. One expression, so that the planner inlines it.
CREATE FUNCTION projections.add_latency_bins(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5],
        a[6] + b[6], a[7] + b[7], a[8] + b[8], a[9] + b[9], a[10] + b[10],
        a[11] + b[11], a[12] + b[12], a[13] + b[13], a[14] + b[14], a[15] + b[15],
        a[16] + b[16], a[17] + b[17], a[18] + b[18], a[19] + b[19], a[20] + b[20]
    ]
$$;
