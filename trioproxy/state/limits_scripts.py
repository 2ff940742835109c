"""What the server does for limits in one step: scripts in Lua. Each takes all limits of all scopes of a request.

What is kept of a limit is its counter, under one key: a **window** of the minute is a hash with what was taken in each
slot of 250 ms, their `sum`, and the `oldest` and `newest` slot that may hold something; a slot counts until 60 s after
its end. **Streams** are a sorted set of leases with the ms at which they run out. A **budget** is a whole number.

A **record** says that a grant is open, and in which slot that was: a grant is settled if there is one, and once. It is
`void` where that was tried before: then it is not taken any more either, however late the server hears of it.

Numbers in Lua have 53 bits. That is enough for windows (a rate is at most 10^15) and times, but not for money: so
budgets are added up by INCRBY, which has 64, and compared as text.
"""

from typing import Final

from trioproxy.state.redis_calls import NOW, Script

_WINDOWS: Final = (
    NOW
    + """
local slot = math.floor(now / 250)

local function open_window(key)
    local found = redis.call('HMGET', key, 'sum', 'oldest', 'newest')
    local window = {key = key, sum = tonumber(found[1] or 0)}
    window.oldest, window.newest = tonumber(found[2] or slot), tonumber(found[3] or slot)
    local first = slot - 240
    if window.newest > slot then -- the clock was set back: all of it counts as if it were taken now
        redis.call('DEL', key)
        redis.call('HSET', key, 'sum', window.sum, 'oldest', slot, 'newest', slot, slot, window.sum)
        redis.call('PEXPIRE', key, 61000)
        window.oldest, window.newest = slot, slot
    elseif window.newest < first then
        redis.call('DEL', key)
        window.sum, window.oldest, window.newest = 0, slot, slot
    elseif window.oldest < first then
        local gone = {}
        for number = window.oldest, first - 1 do gone[#gone + 1] = number end
        for _, taken in ipairs(redis.call('HMGET', key, unpack(gone))) do window.sum = window.sum - (taken or 0) end
        redis.call('HDEL', key, unpack(gone))
        redis.call('HSET', key, 'sum', window.sum, 'oldest', first)
        window.oldest = first
    end
    return window
end

local function until_gone(number) return (number + 241) * 250 - now end

local function take_of(window, amount)
    redis.call('HINCRBY', window.key, slot, amount)
    redis.call('HINCRBY', window.key, 'sum', amount)
    redis.call('HSET', window.key, 'oldest', window.oldest, 'newest', slot)
    redis.call('PEXPIRE', window.key, 61000)
    window.sum, window.newest = window.sum + amount, slot
end
"""
)

TAKE: Final = Script(
    _WINDOWS
    + """
local function wait_of_window(window, amount, rate)
    local sum = window.sum + amount
    if amount == 0 or sum <= rate then return 0 end
    local numbers = {}
    for number = window.oldest, window.newest do numbers[#numbers + 1] = number end
    for index, taken in ipairs(redis.call('HMGET', window.key, unpack(numbers))) do
        sum = sum - (taken or 0)
        if sum <= rate then return until_gone(numbers[index]) end
    end
    return -1
end

local function wait_of_streams(key, most)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    return redis.call('ZCARD', key) <= most and 0 or -1
end

local function wait_of_budget(key, amount, room)
    local used = redis.call('GET', key) or '0'
    return (amount == '0' or #used < #room or #used == #room and used <= room) and 0 or -1
end

local windows, waits, is_met = {}, {}, true
for index = 2, #KEYS do
    local key, kind, amount, bound = KEYS[index], ARGV[4 * index - 4], ARGV[4 * index - 3], ARGV[4 * index - 2]
    local wait = 0
    if kind == 'window' then
        windows[index] = open_window(key)
        wait = wait_of_window(windows[index], tonumber(amount), tonumber(bound))
    elseif kind == 'streams' then
        wait = wait_of_streams(key, tonumber(bound))
    else
        wait = wait_of_budget(key, amount, bound)
    end
    waits[#waits + 1] = wait
    is_met = is_met and wait == 0
end
if not is_met then return {0, waits} end

if not redis.call('SET', KEYS[1], slot, 'NX', 'PX', ARGV[3]) then
    return redis.error_reply('GIVENUP this grant was given up')
end
local standings = {}
for index = 2, #KEYS do
    local key, kind, amount = KEYS[index], ARGV[4 * index - 4], ARGV[4 * index - 3]
    local lasts = ARGV[4 * index - 1]
    if kind == 'window' then
        local window = windows[index]
        if amount ~= '0' then take_of(window, tonumber(amount)) end
        local reset = window.sum > 0 and until_gone(window.newest) or 0
        standings[#standings + 1] = {ARGV[4 * index - 2] - window.sum, reset}
    elseif kind == 'streams' then
        for number = 1, tonumber(amount) do redis.call('ZADD', key, now + ARGV[2], ARGV[1] .. ':' .. number) end
        redis.call('PEXPIRE', key, lasts)
    else
        redis.call('INCRBY', key, amount)
        redis.call('PEXPIRE', key, lasts)
    end
end
return {1, standings}
"""
)
"""Keys: record, counters. Arguments: the grant's id, lease and the record's time to live in ms, and for each counter
its kind, how much is wanted, a bound (a window's rate; how many streams there may be, or how much of a budget may be
used, before), and its time to live in ms.

Returns 1 and for each window how much is left and after how many ms all of it is there again; or 0 and for each counter
after how many ms there is room, 0 if there is, and -1 if nobody knows."""

SETTLE: Final = Script(
    _WINDOWS
    + """
local taken_at = redis.call('GETDEL', KEYS[1])
if not taken_at or taken_at == 'void' then
    redis.call('SET', KEYS[1], 'void', 'PX', ARGV[2])
    return 0
end
for index = 2, #KEYS do
    local key, kind, amount = KEYS[index], ARGV[3 * index - 3], ARGV[3 * index - 2]
    local lasts = ARGV[3 * index - 1]
    if kind == 'window' then
        local window, more = open_window(key), tonumber(amount)
        if more > 0 then
            take_of(window, more)
        elseif more < 0 then -- of a slot that is gone nothing comes back
            local back = math.min(-more, tonumber(redis.call('HGET', key, taken_at) or 0))
            if back > 0 then
                redis.call('HINCRBY', key, taken_at, -back)
                redis.call('HINCRBY', key, 'sum', -back)
            end
        end
    elseif kind == 'streams' then
        for number = 1, tonumber(amount) do redis.call('ZREM', key, ARGV[1] .. ':' .. number) end
    else
        redis.call('INCRBY', key, amount)
        redis.call('PEXPIRE', key, lasts)
        -- Somebody has removed it meanwhile: nothing is owed to a scope.
        if redis.call('GET', key):sub(1, 1) == '-' then redis.call('SET', key, 0, 'PX', lasts) end
    end
end
return 1
"""
)
"""Keys: record, counters. Arguments: the grant's id, how long in ms it is remembered that it was not open, and for each
counter its kind, how much more it is (for streams: how many they were), and its time to live in ms. Returns 0 if the
grant was not open: then nothing is changed."""

RENEW: Final = Script(
    NOW
    + """
for index, key in ipairs(KEYS) do
    local member = ARGV[index + 3]
    if member ~= '' then redis.call('ZADD', key, now + ARGV[1], member) end
    redis.call('PEXPIRE', key, member == '' and ARGV[3] or ARGV[2])
end
return 1
"""
)
"""Keys: records, and sets of streams. Arguments: lease, a set's and a record's time to live in ms; for each key the
lease in it, or nothing for a record. Leases that are not there are put there."""

SPENT: Final = Script(
    NOW
    + """
local found = {}
for index, key in ipairs(KEYS) do
    if ARGV[index] == 'streams' then
        found[index] = redis.call('ZCOUNT', key, '(' .. now, '+inf')
    else
        found[index] = redis.call('GET', key) or '0'
    end
end
return found
"""
)
"""Keys: sets of streams, and budgets. Arguments: the kind of each. Returns how much of each is used."""
