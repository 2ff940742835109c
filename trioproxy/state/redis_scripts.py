"""What the server does in one step: scripts in Lua. All keys of a script belong to one stream.

A stream's record is a hash: caller, dialect, share (the key under which it is shared), lease (until when, in ms of the
server's own clock, the only one that all replicas have in common), last, count and bytes (of the log), head, outcome,
stopped. Its log is a Redis stream, whose ids carry the numbers: `0-1` is the head, `N-1` event N, `N-2` the end behind
event N. So a mirror's position is an id, and the ids in an answer tell what is lost.
"""

from typing import Final

from trioproxy.state.redis_calls import NOW, Script

_OWNED: Final = (
    NOW
    + """
local record = redis.call('HMGET', KEYS[1], 'lease', 'outcome', 'last', 'count', 'bytes', 'stopped', 'share')
local owned = record[1] and not record[2] and now < tonumber(record[1])
"""
)

_RENEWED: Final = """
redis.call('HSET', KEYS[1], 'lease', now + ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""

REGISTER: Final = Script(
    NOW
    + """
redis.call('HSET', KEYS[1], 'caller', ARGV[3], 'dialect', ARGV[4], 'share', ARGV[5],
    'lease', now + ARGV[1], 'last', 0, 'count', 0, 'bytes', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)
"""Key: record. Arguments: lease and time to live in ms (so in all that renew), caller, dialect, share."""

SHARE: Final = Script("""
local holder = redis.call('GET', KEYS[1])
if holder then return holder end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
return ARGV[2]
""")
"""Key: share. Arguments: time to live in ms, id. Returns the id that holds it, which may be one that is not live."""

KEEP_SHARE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
""")
"""The same, for who holds it already."""

DROP_SHARE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
"""Key: share. Argument: the id that holds it."""

HEAD: Final = Script(
    _OWNED
    + "if not owned then return 0 end"
    + _RENEWED
    + """
if record[3] == '0' and redis.call('HSETNX', KEYS[1], 'head', ARGV[3]) == 1 then
    redis.call('XADD', KEYS[2], '0-1', 'h', ARGV[3])
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
"""
)
"""Keys: record, log. Further argument: the head. Returns 0 if this is not ours any more, as all below."""

APPEND: Final = Script(
    _OWNED
    + "if not owned then return 0 end"
    + """
local last, count, bytes = tonumber(record[3]), tonumber(record[4]), tonumber(record[5])
for n = 6, #ARGV do
    local number = ARGV[5] + n - 6
    if number > last then
        redis.call('XADD', KEYS[2], string.format('%.0f-1', number), 'e', ARGV[n])
        last, count, bytes = number, count + 1, bytes + #ARGV[n]
    end
end
while count > 1 and (count > tonumber(ARGV[3]) or bytes > tonumber(ARGV[4])) do
    local oldest = redis.call('XRANGE', KEYS[2], '1-0', '+', 'COUNT', 1)[1]
    redis.call('XDEL', KEYS[2], oldest[1])
    count, bytes = count - 1, bytes - #oldest[2][2]
end
redis.call('HSET', KEYS[1], 'last', last, 'count', count, 'bytes', bytes)
"""
    + _RENEWED
    + "return 1"
)
"""Keys: record, log. Further arguments: events and bytes that a log may hold, the first number, the events.
The head is never trimmed, nor is the newest event."""

END: Final = Script(
    _OWNED
    + """
if record[2] then return 1 end
if not owned then return 0 end
redis.call('HSET', KEYS[1], 'outcome', ARGV[2])
redis.call('XADD', KEYS[2], record[3] .. '-2', 'o', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
"""
)
"""Keys: record, log. Arguments: time to live in ms, outcome."""

RENEW: Final = Script(
    _OWNED
    + "if not owned then return 0 end"
    + _RENEWED
    + """
if record[6] then return 2 end
return 1
"""
)
"""Keys: record, log. Returns 2 if it was stopped."""

STOP: Final = Script(
    _OWNED
    + """
if not owned then return false end
redis.call('HSET', KEYS[1], 'stopped', 1)
redis.call('PUBLISH', ARGV[1], ARGV[2])
return record[7]
"""
)
"""Key: record. Arguments: channel, id. Returns what it is shared under, or nothing if it has no owner."""

LOOK: Final = Script(
    NOW
    + """
local oldest = redis.call('XRANGE', KEYS[2], '1-0', '+', 'COUNT', 1)[1]
return {now, oldest and oldest[1] or '0-0', redis.call('HGETALL', KEYS[1])}
"""
)
"""Keys: record, log. Returns the server's time in ms, the id of the first event, and the record."""

CHECK: Final = Script(
    _OWNED
    + """
if not record[1] then return {'forgotten', '0-0', 0, ''} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local state = record[2] and 'ended' or owned and 'live' or 'lost'
return {state, newest and newest[1] or '0-0', tonumber(record[3]), record[2] or ''}
"""
)
"""Keys: record, log. Returns how it is, the last id of its log, the number of the last event, and the outcome."""
