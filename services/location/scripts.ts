/**
 * What Redis decides. Each script touches one shard: KEYS are active, last, geo, stream, head (lib/location-keys).
 * Running one twice, or from two nodes at once, changes nothing more.
 */
import type { Result } from 'ioredis';
import type { RedisConnection } from '../../lib/redis-client.ts';

/** `at` never goes back, and the stream's ids are made of it: at is the cursor. */
const prelude = `
local time = redis.call('TIME')
local head = redis.call('HMGET', KEYS[5], 'at', 'id')
local at = string.format('%.0f', math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(head[1] or '0')))
-- Redis' geo-index ends short of the poles: there a position counts, but nothing is near it
local function inGeoIndex(lat) return math.abs(tonumber(lat)) <= 85.05 end
local function stamped(value) return tonumber(string.match(value, '^%d+')) end
local function append(channel, keepMs, live, history)
  local batch = '{"at":' .. at .. ',"updates":[' .. table.concat(live, ',') .. ']}'
  local oldest = string.format('%.0f', tonumber(at) - tonumber(keepMs))
  local args = {'XADD', KEYS[4], 'MINID', '~', oldest, at .. '-*', 'b', batch}
  if history then args[#args + 1] = 'h'; args[#args + 1] = history end
  local id = redis.call(unpack(args))
  redis.call('HSET', KEYS[5], 'at', at, 'id', id)
  redis.call('PUBLISH', channel, id .. ' ' .. (head[2] or '0-0') .. ' ' .. batch)
end`;

/**
 * ARGV: channel, ms of history, then trip, user, timestamp, lng, lat, JSON for each update. Answers a letter for
 * each: A accepted, L late or a duplicate, N not an active trip of this driver.
 */
const applyBatch = `${prelude}
local trips = {}
for i = 3, #ARGV, 6 do trips[#trips + 1] = ARGV[i] end
local drivers = redis.call('HMGET', KEYS[1], unpack(trips))
local lasts = redis.call('HMGET', KEYS[2], unpack(trips))
local outcomes, live, geo, last, seen = {}, {}, {'GEOADD', KEYS[3]}, {'HSET', KEYS[2]}, {}
for n, trip in ipairs(trips) do
  local i = 3 + (n - 1) * 6
  local timestamp = tonumber(ARGV[i + 2])
  if drivers[n] ~= ARGV[i + 1] then
    outcomes[n] = 'N'
  elseif (lasts[n] and timestamp <= stamped(lasts[n])) or seen[trip] then
    outcomes[n] = 'L'
  else
    outcomes[n] = 'A'
    seen[trip] = true
    live[#live + 1] = ARGV[i + 5]
    if inGeoIndex(ARGV[i + 4]) then
      geo[#geo + 1] = ARGV[i + 3]; geo[#geo + 1] = ARGV[i + 4]; geo[#geo + 1] = trip
    end
    last[#last + 1] = trip; last[#last + 1] = ARGV[i + 2] .. ' ' .. at .. ' ' .. ARGV[i + 5]
  end
end
if #live > 0 then
  -- First what can fail: a script is not rolled back
  append(ARGV[1], ARGV[2], live)
  if #geo > 2 then redis.call(unpack(geo)) end
  redis.call(unpack(last))
end
return table.concat(outcomes)`;

/**
 * ARGV: channel, ms of history, trip, driver, timestamp, lng, lat and JSON of the newest point, JSON array of all.
 * Everything goes to the stream; the live position moves only forward, and only while the trip is active.
 */
const appendBacklog = `${prelude}
local live = {}
local last = redis.call('HGET', KEYS[2], ARGV[3])
if redis.call('HGET', KEYS[1], ARGV[3]) == ARGV[4] and not (last and tonumber(ARGV[5]) <= stamped(last)) then
  if inGeoIndex(ARGV[7]) then redis.call('GEOADD', KEYS[3], ARGV[6], ARGV[7], ARGV[3]) end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[5] .. ' ' .. at .. ' ' .. ARGV[8])
  live[1] = ARGV[8]
end
append(ARGV[1], ARGV[2], live, ARGV[9])
return at`;

/** KEYS: active, closed. ARGV: trip, driver. */
const openTrip = `
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return redis.call('HGET', KEYS[1], ARGV[1])`;

/** KEYS: active, last, geo, closed. ARGV: trip, seconds for which it cannot be opened again. */
const closeTrip = `
redis.call('SET', KEYS[4], '1', 'EX', ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1`;

type Arg = string | number;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    applyBatch(...args: Arg[]): Result<string, Context>;
    appendBacklog(...args: Arg[]): Result<string, Context>;
    openTrip(...args: Arg[]): Result<string | null, Context>;
    closeTrip(...args: Arg[]): Result<number, Context>;
  }
}

const defined = new WeakSet<RedisConnection>();

/** Gives a connection the scripts as commands. */
export function defineScripts(redis: RedisConnection): void {
  if (defined.has(redis)) return;
  defined.add(redis);
  redis.defineCommand('applyBatch', { numberOfKeys: 5, lua: applyBatch });
  redis.defineCommand('appendBacklog', { numberOfKeys: 5, lua: appendBacklog });
  redis.defineCommand('openTrip', { numberOfKeys: 2, lua: openTrip });
  redis.defineCommand('closeTrip', { numberOfKeys: 4, lua: closeTrip });
}
