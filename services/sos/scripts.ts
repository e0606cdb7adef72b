/**
 * What the SOS Redis decides, each in one step. Fields of an alert's hash:
 * `doc` JSON of the press; `userId`, `tripId` (empty: none), `acceptedAt`; `name`, `contacts` (sealed), `pin`, `duressPin`,
 * `language` as they were when it was accepted; `status`, `duress` (1), `location` JSON; `presses`, `version` (of everything),
 * `duty` (grows when there is something to queue), `wrongPins`, `movedAt`, `looked` (1: contacts are looked up), `planned` (1: what
 * it needs is queued), `link` (sealed), `paged` (1), `many` (1: its raiser has raised very many since); `m:<purpose>:<contact>` JSON
 * of a message's state; `s:<contact>` and `seenLocation`: what the raiser saw of it and of the place when the duress PIN was used.
 */
import type { Redis, Result } from 'ioredis';

/** Kept after the end, ms: the database has it by then. */
const keptAfterEndMs = 7 * 86_400_000;
/** An alert without a sign of life for so long takes no further press: that is a new one, ms. */
const openForMs = 6 * 3_600_000;
/** One alert tells admins of further presses and positions this often at most, ms. */
const tellEveryMs = 5000;
/** Of a user who raises very many, those that are over stay for so long once the database has them, ms. */
const manyKeptMs = 60_000;
/** So many presses of an alert are known again when they are sent once more. */
const knownPresses = 100;

/** The database has an alert that has ended. */
const overFor = `
local function over(id, keptMs)
  redis.call('PEXPIRE', 'sos:alert:' .. id, keptMs)
  redis.call('PEXPIRE', 'sos:log:' .. id, keptMs)
  if keptMs < ${keptAfterEndMs} then redis.call('ZREM', 'sos:alerts', id) end
end`;

const prelude = `
local function note(id, entry) redis.call('RPUSH', 'sos:log:' .. id, entry) end
local function changed(id, at)
  redis.call('ZADD', 'sos:unprojected', 'LT', at, id)
  return redis.call('HINCRBY', 'sos:alert:' .. id, 'version', 1)
end
local function tell(feed, kind, at, data)
  redis.call('XADD', feed, 'MAXLEN', '~', 1000000, '*', 'kind', kind, 'at', at, 'data', data)
end
-- With the state of this moment: whoever has it told may have read an older one
local function tellOf(key, feed, at, data)
  local status = redis.call('HGET', key, 'status') or 'active'
  tell(feed, 'sos.updated', at, data .. ',"status":"' .. status .. '"}')
end
local function duty(id, at)
  redis.call('HINCRBY', 'sos:alert:' .. id, 'duty', 1)
  redis.call('ZADD', 'sos:unprocessed', 'LT', at, id)
end
-- False when it is too soon to tell admins again
local function due(id, at)
  local last = tonumber(redis.call('HGET', 'sos:alert:' .. id, 'movedAt') or '0')
  if tonumber(at) - last < ${tellEveryMs} then return false end
  redis.call('HSET', 'sos:alert:' .. id, 'movedAt', at)
  return true
end`;

/**
 * A group of presses. KEYS: feed. ARGV: how many alerts one user may raise in six hours, then for each press how many messages a
 * journal has sent for it, then id, userId, tripId, acceptedAt, doc, location, feed data without its last brace, log entry, log entry of a further press, until when it may be
 * taken (ms, or empty), key of the open alert of user and trip, key of the card, then contact and state of each message. Answers for each
 * id, status as the raiser sees it, acceptedAt; `new`, `same` (this very press), `joined`, `late` (nothing is taken, a journal has
 * it by now) or `refused` (and why); and `1` once what it needs is queued.
 *
 * Any name of a trip is taken, and an alert can be taken back and raised again: without a limit one account could fill the memory that
 * all alerts share. Beyond it a press joins the newest that is open, answered and heard of as ever; what is over and not among the newest goes.
 *
 * One script and not one for each: Redis then executes and fsyncs the group at once, not what one read of its socket brings.
 */
const take = `${prelude}${overFor}
local feed = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000
local fresh = {}
local most = tonumber(ARGV[1])
local function newestOpen(recent, at)
  if redis.call('ZCARD', recent) < most then return nil end
  redis.call('ZREMRANGEBYSCORE', recent, 0, at - ${openForMs})
  for _, id in ipairs(redis.call('ZRANGE', recent, 0, -most - 1)) do
    local key = 'sos:alert:' .. id
    if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'many', '1') end
    -- What the database has not yet stays: it goes when that has it
    if redis.call('PTTL', key) > ${manyKeptMs} and not redis.call('ZSCORE', 'sos:unprojected', id) then over(id, ${manyKeptMs}) end
  end
  redis.call('ZREMRANGEBYRANK', recent, 0, -most - 1)
  local ids = redis.call('ZRANGE', recent, 0, -1, 'REV')
  if #ids < most then return nil end
  for _, id in ipairs(ids) do
    local state = redis.call('HMGET', 'sos:alert:' .. id, 'status', 'endedAt', 'duress')
    if state[1] and not state[2] and not state[3] then return id end
  end
  return nil
end
local function take(press)
  local id, at, location, openKey = press[1], press[4], press[6], press[11]
  local key = 'sos:alert:' .. id
  local function answer(found, how)
    -- What a journal's owner has sent must not be sent again, whoever was first
    for i = 13, #press, 2 do
      local field = 'm:raised:' .. press[i]
      local state = redis.call('HGET', 'sos:alert:' .. found, field)
      if not state or cjson.decode(state).status == 'queued' then redis.call('HSET', 'sos:alert:' .. found, field, press[i + 1]) end
    end
    local record = redis.call('HMGET', 'sos:alert:' .. found, 'status', 'acceptedAt', 'duress', 'planned')
    return {found, record[3] == '1' and 'cancelled' or record[1], record[2], how, record[4] or '0'}
  end
  if redis.call('EXISTS', key) == 1 then return answer(id, 'same') end
  if press[10] ~= '' and now > tonumber(press[10]) then return {id, '', '0', 'late', '0'} end
  local known = redis.call('GET', 'sos:alias:' .. id)
  if known and redis.call('EXISTS', 'sos:alert:' .. known) == 1 then return answer(known, 'same') end
  local open = redis.call('GET', openKey)
  -- Drills apart, so that they never swallow a real one
  local recent = 'sos:recent:' .. press[2] .. string.match(openKey, ':%a+$')
  if not open or redis.call('EXISTS', 'sos:alert:' .. open) == 0 then open = newestOpen(recent, at) end
  if open then
    redis.call('PEXPIRE', openKey, ${openForMs})
    local presses = redis.call('HINCRBY', 'sos:alert:' .. open, 'presses', 1)
    if presses <= ${knownPresses} then redis.call('SET', 'sos:alias:' .. id, open, 'PX', ${keptAfterEndMs}) end
    if location ~= '' then redis.call('HSET', 'sos:alert:' .. open, 'location', location) end
    if presses <= 20 then note(open, press[9]) end
    if due(open, at) then
      local status = redis.call('HGET', 'sos:alert:' .. open, 'status')
      local where = location == '' and '' or ',"location":' .. location
      tell(feed, 'sos.updated', at, '{"alertId":"' .. open .. '","status":"' .. status .. '","what":"pressed-again","presses":' .. presses .. where .. '}')
    end
    changed(open, at)
    return answer(open, 'joined')
  end
  local card = redis.call('HMGET', press[12], 'name', 'contacts', 'pin', 'duressPin', 'language')
  local set = {'HSET', key, 'doc', press[5], 'userId', press[2], 'tripId', press[3], 'acceptedAt', at, 'status', 'active',
    'location', location, 'presses', 1, 'version', 1, 'duty', 1}
  -- Without a card whoever tells the contacts fills these in
  if card[2] then
    for i, field in ipairs({'name', 'contacts', 'pin', 'duressPin', 'language'}) do
      set[#set + 1] = field
      set[#set + 1] = card[i] or ''
    end
  end
  for i = 13, #press, 2 do set[#set + 1] = 'm:raised:' .. press[i]; set[#set + 1] = press[i + 1] end
  redis.call(unpack(set))
  -- From here on it is an alert: whatever fails below, the sweep has to find it
  fresh[#fresh + 1] = at
  fresh[#fresh + 1] = id
  redis.call('SET', openKey, id, 'PX', ${openForMs})
  redis.call('ZADD', recent, at, id)
  redis.call('PEXPIRE', recent, ${openForMs})
  note(id, press[8])
  tell(feed, 'sos.triggered', at, press[7] .. ',"name":' .. cjson.encode(card[1] or '') .. '}')
  return {id, 'active', at, 'new', '0'}
end
local answers, next = {}, 2
while next <= #ARGV do
  local last = next + 12 + 2 * ARGV[next]
  local press = {}
  for i = next + 1, last do press[#press + 1] = ARGV[i] end
  next = last + 1
  -- One that cannot be taken must not keep the others out
  local ok, answer = pcall(take, press)
  if not ok then answer = {type(answer) == 'table' and answer.err or tostring(answer), '', '0', 'refused', '0'} end
  answers[#answers + 1] = answer
end
if #fresh > 0 then
  for _, index in ipairs({'sos:open-alerts', 'sos:alerts', 'sos:unprojected', 'sos:unprocessed'}) do
    redis.call('ZADD', index, 'LT', unpack(fresh))
  end
end
return answers`;

/**
 * KEYS: alert, feed. ARGV: id, at, to, feed data, log entry, open key, `1` if it ends the alert, then the states that it may
 * start from. Answers `ok`, `missing`, or the state that forbids it.
 */
const step = `${prelude}
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'missing' end
local allowed = false
for i = 8, #ARGV do if ARGV[i] == status then allowed = true end end
if not allowed then return status end
redis.call('HSET', KEYS[1], 'status', ARGV[3])
note(ARGV[1], ARGV[5])
changed(ARGV[1], ARGV[2])
duty(ARGV[1], ARGV[2])
tell(KEYS[2], 'sos.updated', ARGV[2], ARGV[4])
if ARGV[7] == '1' then
  redis.call('ZREM', 'sos:open-alerts', ARGV[1])
  if redis.call('GET', ARGV[6]) == ARGV[1] then redis.call('DEL', ARGV[6]) end
  redis.call('HSET', KEYS[1], 'endedAt', ARGV[2])
end
return 'ok'`;

/**
 * The duress PIN. KEYS: alert, feed. ARGV: id, at, log entry, open key. From here on the raiser sees a cancelled alert, and a
 * further press is a new one. Answers the real status, or `missing`.
 */
const duress = `${prelude}
local record = redis.call('HMGET', KEYS[1], 'status', 'duress')
if not record[1] then return 'missing' end
if record[2] == '1' then return record[1] end
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local contact = string.match(fields[i], '^m:raised:(.+)$')
  if contact then redis.call('HSET', KEYS[1], 's:' .. contact, fields[i + 1]) end
end
redis.call('HSET', KEYS[1], 'duress', '1', 'duressAt', ARGV[2], 'seenLocation', redis.call('HGET', KEYS[1], 'location') or '')
note(ARGV[1], ARGV[3])
if redis.call('GET', ARGV[4]) == ARGV[1] then redis.call('DEL', ARGV[4]) end
changed(ARGV[1], ARGV[2])
duty(ARGV[1], ARGV[2])
tell(KEYS[2], 'sos.updated', ARGV[2], '{"alertId":"' .. ARGV[1] .. '","status":"' .. record[1] .. '","what":"duress","duress":true,"sound":true}')
return record[1]`;

/** A wrong PIN. KEYS: alert, feed. ARGV: id, at, log entry. Admins are told at the third. Answers how many there were. */
const wrongPin = `${prelude}
local count = redis.call('HINCRBY', KEYS[1], 'wrongPins', 1)
if count <= 20 then note(ARGV[1], ARGV[3]) end
changed(ARGV[1], ARGV[2])
if count == 3 then
  local status = redis.call('HGET', KEYS[1], 'status')
  tell(KEYS[2], 'sos.updated', ARGV[2], '{"alertId":"' .. ARGV[1] .. '","status":"' .. status .. '","what":"wrong-pins","wrongPins":3,"sound":true}')
end
return count`;

/**
 * A position. KEYS: alert, feed. ARGV: id, at, location, when the fix was made, channel, message. Admins and share links are
 * told every 5 s at most, and only while it is open and it is newer than the last.
 */
const locate = `${prelude}
local record = redis.call('HMGET', KEYS[1], 'endedAt', 'fixAt', 'status')
if not record[3] then return 'missing' end
if record[1] or tonumber(ARGV[4]) <= tonumber(record[2] or '0') then return 'ignored' end
redis.call('HSET', KEYS[1], 'location', ARGV[3], 'fixAt', ARGV[4])
changed(ARGV[1], ARGV[2])
if due(ARGV[1], ARGV[2]) then
  tell(KEYS[2], 'sos.moved', ARGV[2], '{"alertId":"' .. ARGV[1] .. '","location":' .. ARGV[3] .. '}')
  redis.call('PUBLISH', ARGV[5], ARGV[6])
end
return 'ok'`;

/**
 * What an alert needs is written down, before it is queued. KEYS: alert. ARGV: id, at, log entry or empty, then field and value
 * of what is not there yet.
 */
const plan = `${prelude}
local fields = {}
for i = 4, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end
if #fields == 0 then return 0 end
local known = redis.call('HMGET', KEYS[1], unpack(fields))
local set = {'HSET', KEYS[1]}
for n, field in ipairs(fields) do
  if not known[n] then set[#set + 1] = field; set[#set + 1] = ARGV[3 + 2 * n] end
end
if #set == 2 then return 0 end
redis.call(unpack(set))
if ARGV[3] ~= '' then note(ARGV[1], ARGV[3]) end
changed(ARGV[1], ARGV[2])
return 1`;

/**
 * What alerts needed is queued. KEYS: index of unprocessed ones. ARGV: for each its id and the duty that was seen: what has come
 * up since stays to be done. Answers how many have left the index.
 */
const clear = `
local done = {'ZREM', KEYS[1]}
for n = 1, #ARGV, 2 do
  local key = 'sos:alert:' .. ARGV[n]
  local duty = redis.call('HGET', key, 'duty')
  if duty then redis.call('HSETNX', key, 'planned', '1') end
  if not duty or duty == ARGV[n + 1] then done[#done + 1] = ARGV[n] end
end
if #done == 2 then return 0 end
return redis.call(unpack(done))`;

/**
 * One attempt at one message. KEYS: alert. ARGV: field, state that claims it, the state that was seen. Answers `lost` (two claims
 * of the same moment look alike), `send`, or `look-back`: nobody is told of an alert once it is over, but an attempt whose owner
 * has died still gets its outcome.
 */
const claim = `
local over = string.sub(ARGV[1], 1, 9) == 'm:raised:' and redis.call('HEXISTS', KEYS[1], 'endedAt') == 1
if over and cjson.decode(ARGV[3]).status ~= 'sending' then return 'lost' end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[3] then return 'lost' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return over and 'look-back' or 'send'`;

/**
 * What an attempt, or anything else, led to. KEYS: alert, feed. ARGV: id, at, field or empty, state, log entry, feed data without
 * its last brace or empty. An attempt that was under way when the alert was cancelled, by whatever PIN, still shows how it went.
 */
const outcome = `${prelude}
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], ARGV[3], ARGV[4]) end
local contact = string.match(ARGV[3], '^m:raised:(.+)$')
local seen = contact and redis.call('HGET', KEYS[1], 's:' .. contact)
if seen and cjson.decode(seen).status == 'sending' then redis.call('HSET', KEYS[1], 's:' .. contact, ARGV[4]) end
note(ARGV[1], ARGV[5])
changed(ARGV[1], ARGV[2])
if ARGV[6] ~= '' then tellOf(KEYS[1], KEYS[2], ARGV[2], ARGV[6]) end
return 1`;

/** Admins are told something that is no step. KEYS: alert, feed. ARGV: at, feed data without its last brace. */
const told = `${prelude}
tellOf(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 1`;

/** The database has an alert as of `version`. KEYS: alert, log. ARGV: id, version. An ended one may then go after a week. */
const projected = `${overFor}
local record = redis.call('HMGET', KEYS[1], 'version', 'endedAt', 'many')
if record[1] ~= ARGV[2] then return 0 end
redis.call('ZREM', 'sos:unprojected', ARGV[1])
if record[2] then over(ARGV[1], record[3] and ${manyKeptMs} or ${keptAfterEndMs}) end
return 1`;

/**
 * Takes alerts out that ended before a time and that the database has. KEYS: index of all. ARGV: that time, ids. Answers how many.
 */
const drop = `
local dropped = 0
for n = 2, #ARGV do
  local id = ARGV[n]
  local key = 'sos:alert:' .. id
  local endedAt = tonumber(redis.call('HGET', key, 'endedAt') or '')
  -- It expires: the database has had it since its end. What came later it may not have yet
  if endedAt and endedAt < tonumber(ARGV[1]) and redis.call('PTTL', key) >= 0
    and not redis.call('ZSCORE', 'sos:unprojected', id) and not redis.call('ZSCORE', 'sos:unprocessed', id) then
    redis.call('DEL', key, 'sos:log:' .. id)
    redis.call('ZREM', KEYS[1], id)
    dropped = dropped + 1
  end
end
return dropped`;

/** What a claim of a message allows. */
export type Claim = 'lost' | 'send' | 'look-back';

type Arg = string | number;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    sosTake(
      ...args: Arg[]
    ): Result<[id: string, status: string, acceptedAt: string, how: string, planned: string][], Context>;
    sosStep(...args: Arg[]): Result<string, Context>;
    sosDuress(...args: Arg[]): Result<string, Context>;
    sosWrongPin(...args: Arg[]): Result<number, Context>;
    sosLocate(...args: Arg[]): Result<string, Context>;
    sosPlan(...args: Arg[]): Result<number, Context>;
    sosClear(...args: Arg[]): Result<number, Context>;
    sosClaim(...args: Arg[]): Result<Claim, Context>;
    sosOutcome(...args: Arg[]): Result<number, Context>;
    sosTold(...args: Arg[]): Result<number, Context>;
    sosProjected(...args: Arg[]): Result<number, Context>;
    sosDrop(...args: Arg[]): Result<number, Context>;
  }
}

/** Gives a connection the scripts as commands. */
export function defineScripts(redis: Redis): void {
  redis.defineCommand('sosTake', { numberOfKeys: 1, lua: take });
  redis.defineCommand('sosStep', { numberOfKeys: 2, lua: step });
  redis.defineCommand('sosDuress', { numberOfKeys: 2, lua: duress });
  redis.defineCommand('sosWrongPin', { numberOfKeys: 2, lua: wrongPin });
  redis.defineCommand('sosLocate', { numberOfKeys: 2, lua: locate });
  redis.defineCommand('sosPlan', { numberOfKeys: 1, lua: plan });
  redis.defineCommand('sosClear', { numberOfKeys: 1, lua: clear });
  redis.defineCommand('sosClaim', { numberOfKeys: 1, lua: claim });
  redis.defineCommand('sosOutcome', { numberOfKeys: 2, lua: outcome });
  redis.defineCommand('sosTold', { numberOfKeys: 2, lua: told });
  redis.defineCommand('sosProjected', { numberOfKeys: 2, lua: projected });
  redis.defineCommand('sosDrop', { numberOfKeys: 1, lua: drop });
}
