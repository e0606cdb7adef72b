/**
 * What Redis decides. A script touches one shard: KEYS are active, last, geo, stream, head (lib/location-keys) unless it
 * says otherwise. Running one twice, or from two nodes at once, changes nothing more.
 */
import type { Result } from 'ioredis';
import type { RedisConnection } from '../../lib/redis-client.ts';

const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function stamped(value) return tonumber(string.match(value, '^%d+')) end`;

/**
 * `at` never goes back, and the stream's ids are made of it: at is the cursor.
 *
 * The stream is trimmed to the last `keepMs`, but only as far as the database has it, and never grows beyond `maxBytes`
 * (looked at every 10 s): then what the database has goes first, and after that the oldest tenth is lost. `append` answers
 * how many entries that were.
 */
const ofShard = `
local head = redis.call('HMGET', KEYS[5], 'at', 'id', 'synced', 'measured')
local at = text(math.max(now, tonumber(head[1] or '0')))
-- Redis' geo-index ends short of the poles: there a position counts, but nothing is near it
local function inGeoIndex(lat) return math.abs(tonumber(lat)) <= 85.05 end

local function size() return redis.call('MEMORY', 'USAGE', KEYS[4], 'SAMPLES', 0) or 0 end
local function hasRoom(maxBytes)
  if size() <= maxBytes then return true end
  local ms, n = string.match(head[3] or '', '^(%d+)-(%d+)$')
  if not ms then return false end
  redis.call('XTRIM', KEYS[4], 'MINID', ms .. '-' .. text(tonumber(n) + 1))
  return size() <= maxBytes
end
local function makeRoom(maxBytes)
  if tonumber(at) - tonumber(head[4] or '0') < 10000 then return 0 end
  redis.call('HSET', KEYS[5], 'measured', at)
  if hasRoom(maxBytes) then return 0 end
  local keep = math.floor(redis.call('XLEN', KEYS[4]) * 0.9 * maxBytes / size())
  return redis.call('XTRIM', KEYS[4], 'MAXLEN', keep)
end

local function append(channel, keepMs, maxBytes, live, history)
  local lost = makeRoom(tonumber(maxBytes))
  local oldest = head[3] and math.min(tonumber(at) - tonumber(keepMs), stamped(head[3])) or 0
  local batch = '{"at":' .. at .. ',"updates":[' .. table.concat(live, ',') .. ']}'
  local args = {'XADD', KEYS[4], 'MINID', '~', text(math.max(oldest, 0)), at .. '-*', 'b', batch}
  if history then args[#args + 1] = 'h'; args[#args + 1] = history end
  local id = redis.call(unpack(args))
  redis.call('HSET', KEYS[5], 'at', at, 'id', id)
  redis.call('PUBLISH', channel, id .. ' ' .. (head[2] or '0-0') .. ' ' .. batch)
  return lost
end`;

const prelude = `${clock}${ofShard}`;

/**
 * For several shards, one after the other; on a Cluster for one. KEYS: five for each. ARGV: ms of history, bytes of history, then
 * for each shard its channel, how many updates, and trip, user, timestamp, lng, lat, JSON for each of them. Answers a letter
 * for each update (A accepted, L late or a duplicate, N not an active trip of this driver, R refused by Redis with the others of
 * its shard), how many entries were lost, and why Redis refused.
 */
const applyBatch = `${clock}
local keys, first, letters, lost, why = KEYS, 3, {}, 0, nil
for k = 1, #keys, 5 do
  local KEYS = {keys[k], keys[k + 1], keys[k + 2], keys[k + 3], keys[k + 4]}
  local channel, howMany, updates = ARGV[first], tonumber(ARGV[first + 1]), first + 2
  first = updates + 6 * howMany
  local done, answer = pcall(function()
    ${ofShard}
    local trips = {}
    for i = updates, first - 1, 6 do trips[#trips + 1] = ARGV[i] end
    local drivers = redis.call('HMGET', KEYS[1], unpack(trips))
    local lasts = redis.call('HMGET', KEYS[2], unpack(trips))
    local outcomes, live, geo, last, seen = {}, {}, {'GEOADD', KEYS[3]}, {'HSET', KEYS[2]}, {}
    for n, trip in ipairs(trips) do
      local i = updates + (n - 1) * 6
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
      lost = lost + append(channel, ARGV[1], ARGV[2], live)
      if #geo > 2 then redis.call(unpack(geo)) end
      redis.call(unpack(last))
    end
    return table.concat(outcomes)
  end)
  letters[#letters + 1] = done and answer or string.rep('R', howMany)
  if not done then why = type(answer) == 'table' and answer.err or answer end
end
return {table.concat(letters), lost, why}`;

/**
 * For an update that met no active trip: was it made before the trip's end, and is it newer than what is known? KEYS: and
 * closed. ARGV: channel, ms of history, bytes of history, user, timestamp, JSON. It goes to the stream and the room, the
 * index does not bring the trip back. Answers as applyBatch.
 */
const applyClosing = `${prelude}
local ended, newest, driver = string.match(redis.call('GET', KEYS[6]) or '', '^(%d+) (%d+) (.+)$')
local timestamp = tonumber(ARGV[5])
if driver ~= ARGV[4] or timestamp > tonumber(ended) then return {'N', 0} end
if timestamp <= tonumber(newest) then return {'L', 0} end
local lost = append(ARGV[1], ARGV[2], ARGV[3], {ARGV[6]})
redis.call('SET', KEYS[6], ended .. ' ' .. ARGV[5] .. ' ' .. driver, 'KEEPTTL')
return {'A', lost}`;

/**
 * ARGV: channel, ms of history, bytes of history, trip, driver, timestamp, lng, lat and JSON of the newest point, JSON array
 * of all. Everything goes to the stream; the live position moves only forward, and only while the trip is active. Answers 0,
 * with nothing done, where there is no room: what is promised here must not be lost.
 */
const appendBacklog = `${prelude}
if not hasRoom(tonumber(ARGV[3]) - #ARGV[10]) then return 0 end
local live = {}
local last = redis.call('HGET', KEYS[2], ARGV[4])
if redis.call('HGET', KEYS[1], ARGV[4]) == ARGV[5] and not (last and tonumber(ARGV[6]) <= stamped(last)) then
  if inGeoIndex(ARGV[8]) then redis.call('GEOADD', KEYS[3], ARGV[7], ARGV[8], ARGV[4]) end
  redis.call('HSET', KEYS[2], ARGV[4], ARGV[6] .. ' ' .. at .. ' ' .. ARGV[9])
  live[1] = ARGV[9]
end
append(ARGV[1], ARGV[2], ARGV[3], live, ARGV[10])
return 1`;

/** KEYS: active, closed. ARGV: trip, driver. */
const openTrip = `
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return redis.call('HGET', KEYS[1], ARGV[1])`;

/** KEYS: active, last, geo, closed. ARGV: trip, seconds for which it cannot be opened again. */
const closeTrip = `${clock}
local driver = redis.call('HGET', KEYS[1], ARGV[1])
-- The second time the first one's end stands
if driver or redis.call('EXISTS', KEYS[4]) == 0 then
  local last = redis.call('HGET', KEYS[2], ARGV[1])
  local newest = last and stamped(last) or 0
  redis.call('SET', KEYS[4], text(now) .. ' ' .. text(newest) .. ' ' .. (driver or '-'), 'EX', ARGV[2])
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1`;

/** KEYS: last, geo. ARGV: ms. Takes trips out of the geo-index that have been silent for so long; answers how many. */
const dropSilent = `${clock}
local lasts = redis.call('HGETALL', KEYS[1])
local dropped = 0
for i = 1, #lasts, 2 do
  local at = tonumber(string.match(lasts[i + 1], '^%d+ (%d+)'))
  if now - at > tonumber(ARGV[1]) then dropped = dropped + redis.call('ZREM', KEYS[2], lasts[i]) end
end
return dropped`;

/**
 * KEYS: stream, head, mover. ARGV: who, ms until the turn ends by itself, ms to leave between two turns, entries and bytes
 * that are enough. Nothing when it is somebody else's turn, too early, or all is moved; else the cursor (empty at the very
 * beginning), the entries behind it, and whether there may be more.
 */
const takeTurn = `${clock}
local head = redis.call('HMGET', KEYS[2], 'synced', 'turn')
local mover = redis.call('GET', KEYS[3])
if mover and mover ~= ARGV[1] then return false end
if not mover and now - tonumber(head[2] or '0') < tonumber(ARGV[3]) then return false end
local entries, bytes, from, more = {}, 0, head[1] and '(' .. head[1] or '-', true
while more and #entries < tonumber(ARGV[4]) and bytes < tonumber(ARGV[5]) do
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 4)
  for _, entry in ipairs(page) do
    entries[#entries + 1] = entry
    for j = 2, #entry[2], 2 do bytes = bytes + #entry[2][j] end
    from = '(' .. entry[1]
  end
  more = #page == 4
end
if #entries == 0 then
  if mover then redis.call('DEL', KEYS[3]) end
  return false
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], 'turn', text(now))
return {head[1] or '', entries, more and 1 or 0}`;

/**
 * KEYS: head, mover. ARGV: who, the cursor as it was read, as it is now, 1 to keep the turn. The database has all up to there.
 * Answers 1, or 0 when somebody else has moved the cursor.
 */
const endTurn = `
local moved = 0
if (redis.call('HGET', KEYS[1], 'synced') or '') == ARGV[2] then
  redis.call('HSET', KEYS[1], 'synced', ARGV[3])
  moved = 1
end
if ARGV[4] ~= '1' and redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return moved`;

type Arg = string | number;
/** An id, then names and values in turn. */
type Entry = [id: string, fields: string[]];

declare module 'ioredis' {
  interface RedisCommander<Context> {
    applyBatch(...args: Arg[]): Result<[letters: string, lost: number, why?: string], Context>;
    applyClosing(...args: Arg[]): Result<[letter: string, lost: number], Context>;
    appendBacklog(...args: Arg[]): Result<number, Context>;
    openTrip(...args: Arg[]): Result<string | null, Context>;
    closeTrip(...args: Arg[]): Result<number, Context>;
    dropSilent(...args: Arg[]): Result<number, Context>;
    takeTurn(...args: Arg[]): Result<[cursor: string, entries: Entry[], more: number] | null, Context>;
    endTurn(...args: Arg[]): Result<number, Context>;
  }
}

const defined = new WeakSet<RedisConnection>();

/** Gives a connection the scripts as commands. */
export function defineScripts(redis: RedisConnection): void {
  if (defined.has(redis)) return;
  defined.add(redis);
  redis.defineCommand('applyBatch', { lua: applyBatch });
  redis.defineCommand('applyClosing', { numberOfKeys: 6, lua: applyClosing });
  redis.defineCommand('appendBacklog', { numberOfKeys: 5, lua: appendBacklog });
  redis.defineCommand('openTrip', { numberOfKeys: 2, lua: openTrip });
  redis.defineCommand('closeTrip', { numberOfKeys: 4, lua: closeTrip });
  redis.defineCommand('dropSilent', { numberOfKeys: 2, lua: dropSilent });
  redis.defineCommand('takeTurn', { numberOfKeys: 3, lua: takeTurn });
  redis.defineCommand('endTurn', { numberOfKeys: 2, lua: endTurn });
}
