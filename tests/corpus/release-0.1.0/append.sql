SELECT first_position, statuses, positions, versions
FROM emberlog.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
