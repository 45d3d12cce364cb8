-- Decides for many requests, in order: each gets all that it claims of its buckets, or nothing is taken for it.
--
-- KEYS: the buckets. ARGV: a limit a minute for each; what each lacks if it is not here; then for each request the number of its claims
-- and, for each claim, the number of its bucket in KEYS and the amount. Answers for each request 1 or 0, then what each of its buckets lacks.
-- The arithmetic is that of domain/rate_buckets.py, in whole numbers below 2^53, which doubles hold exactly.
local SCALE = 60000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found = redis.call('MGET', unpack(KEYS))
local full, lacking = {}, {}
for i = 1, #KEYS do
    local limit = tonumber(ARGV[i])
    full[i] = limit * SCALE
    local parts, at = string.match(found[i] or '', '^(%d+) (%d+)$')
    if not parts or now - at >= SCALE then
        lacking[i] = math.min(tonumber(ARGV[#KEYS + i]), full[i])
    else
        lacking[i] = math.max(0, math.min(tonumber(parts), full[i]) - limit * math.max(0, now - tonumber(at)))
    end
end

local answer, n, i = {}, 0, 2 * #KEYS + 1
while ARGV[i] do
    local claims = tonumber(ARGV[i])
    local last = i + 2 * claims
    local admitted = 1
    for c = i + 1, last, 2 do
        local bucket = tonumber(ARGV[c])
        if lacking[bucket] + ARGV[c + 1] * SCALE > full[bucket] then
            admitted = 0
            break
        end
    end
    n = n + 1
    answer[n] = admitted
    for c = i + 1, last, 2 do
        local bucket = tonumber(ARGV[c])
        lacking[bucket] = lacking[bucket] + admitted * ARGV[c + 1] * SCALE
        n = n + 1
        answer[n] = lacking[bucket]
    end
    i = last + 1
end

-- A bucket that nobody has asked for a minute is full again, whatever its limit.
for k = 1, #KEYS do
    redis.call('SET', KEYS[k], string.format('%.0f %.0f', lacking[k], now), 'PX', SCALE)
end
return answer
