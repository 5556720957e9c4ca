-- Every write to an environment: one run of this script, all of it or nothing.
--
--   KEYS  1 state   2 flags   3 evaluators   4 killed   5 changes (stream, and the channel's name)   6 releases
--         7 populations (what people should know of them)   8 history (stream)   9 actions (stream)   10 relays
--   ARGV  1 what to do: create, destroy, change, release, kill, revive, renew; the rest as each function says
--
-- Definitions and rules are JSON text, and stay text: cjson would turn 1.0 into 1, [] into {}, and round large
-- integers. It is used to read what is ours (who killed a flag), never to write what is the user's.
--
-- Answers are arrays whose first element names the outcome; Python makes exceptions of those that are refusals.

local STATE, FLAGS, EVALUATORS, KILLED, CHANGES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local RELEASES, POPULATIONS, HISTORY, ACTIONS, RELAYS = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]

local CHANGELOG_LENGTH = 10000
local HISTORY_LENGTH = 100000
local NAMES_IN_HISTORY = 1000
local LARGEST_MESSAGE = 65536

local function quoted(text)
  return cjson.encode(text)
end

-- Splits the text of a JSON object into its top-level members: {name -> {first, last}} of each value's text.
-- Skips over strings, since they may hold any bracket; jumps from one structural character to the next.
local function members(text)
  local found, depth, at = {}, 0, 1
  local name, value_from = nil, nil
  local key_from, key_to = nil, nil
  while true do
    local here = string.find(text, '["{}%[%],:]', at)
    if not here then return found end
    local c = string.sub(text, here, here)
    at = here + 1
    if c == '"' then
      local close = here
      repeat
        close = string.find(text, '["\\]', close + 1)
        local escaped = string.sub(text, close, close) == '\\'
        if escaped then close = close + 1 end
      until not escaped
      if depth == 1 and not value_from then key_from, key_to = here, close end
      at = close + 1
    elseif c == '{' or c == '[' then
      depth = depth + 1
    elseif c == ':' then
      if depth == 1 and not value_from then
        name = cjson.decode('[' .. string.sub(text, key_from, key_to) .. ']')[1]
        value_from = string.find(text, '%S', at)
      end
    else -- a comma or a closing bracket: where depth is 1, a value ends before it
      if depth == 1 and value_from then
        local value_to = here - 1
        while string.find(text, '^%s', value_to) do value_to = value_to - 1 end
        found[name] = {value_from, value_to}
        value_from = nil
      end
      if c ~= ',' then depth = depth - 1 end
    end
  end
end

local function replaced(text, span, value)
  return string.sub(text, 1, span[1] - 1) .. value .. string.sub(text, span[2] + 1)
end

-- The text of an object with one member set: in its place, or added at the end.
local function with(text, name, value)
  local parts = members(text)
  if parts[name] then return replaced(text, parts[name], value) end
  local close = string.find(text, '}%s*$')
  return string.sub(text, 1, close - 1) .. (next(parts) and ',' or '') .. quoted(name) .. ':' .. value .. '}'
end

-- The members of what another tool may have written: none where it is no JSON object.
local function members_if_sound(text)
  local sound, value = pcall(cjson.decode, text)
  return sound and type(value) == 'table' and string.find(text, '^%s*{') and members(text) or {}
end

-- An entry of the flags or evaluators hash: its revision, and the text of what it holds. Revision 0: there is none.
-- Revision nil: it cannot be read, since another tool wrote it.
local function entry(hash, name)
  local text = redis.call('HGET', hash, name)
  if not text then return 0, nil end
  local parts = members_if_sound(text)
  local held = parts[hash == FLAGS and 'flag' or 'rule']
  local revision = parts.revision and tonumber(string.sub(text, parts.revision[1], parts.revision[2]))
  if not (revision and held and string.sub(text, held[1], held[1]) == '{') then return nil, text end
  return revision, string.sub(text, held[1], held[2])
end

-- The revision of an entry, as `entry` has it. A change may touch thousands of entries: what we wrote ourselves is
-- recognised by how it begins, and only what another tool wrote is taken apart.
local function revision_of(hash, name)
  local text = redis.call('HGET', hash, name)
  if not text then return 0 end
  local revision = string.match(text, '^{"revision":(%d+),"' .. (hash == FLAGS and 'flag' or 'rule') .. '":{')
  return revision and pcall(cjson.decode, text) and tonumber(revision) or (entry(hash, name))
end

local function position()
  local state = redis.call('HMGET', STATE, 'epoch', 'revision', 'nonce')
  return state[1], tonumber(state[2]), state[3]
end

-- What contradicts itself in the environment, as an answer; nil where nothing does. A write to what is left of a
-- wiped Redis would make it look whole.
local function damage()
  local state = redis.call('HMGET', STATE, 'epoch', 'revision', 'nonce')
  for index = 1, 3 do
    if not state[index] or state[index] == '' then return {'DAMAGED'} end
  end
  if #state[1] > 64 or not string.find(state[1], '^[%w_-]+$') then return {'DAMAGED'} end
  if #state[2] > 15 or not string.find(state[2], '^%d+$') then return {'DAMAGED'} end
  for what, hash in pairs({flags = FLAGS, evaluators = EVALUATORS}) do
    local expected, found = redis.call('HGET', STATE, what), redis.call('HLEN', hash)
    if expected and tonumber(expected) ~= found then return {'DAMAGED', what, expected, found} end
  end
  -- Keys of another type stop the script here, before anything is written.
  for _, hash in ipairs({KILLED, RELEASES, POPULATIONS}) do redis.call('HLEN', hash) end
  for _, stream in ipairs({CHANGES, HISTORY, ACTIONS}) do redis.call('XLEN', stream) end
  return nil
end

-- What each action writes with. Redis takes back nothing of a script that is refused in its middle, and since 7.0 a new
-- user may publish nowhere unless told so: rights are asked for first. (Rights to keys were checked for all of KEYS
-- before this began. Redis 6.2 cannot be asked; there a new user may publish everywhere.)
local WRITES = {
  {'XADD', CHANGES, '*', 'change', ''}, {'HSET', FLAGS, 'name', ''}, {'HDEL', FLAGS, 'name'}, {'PUBLISH', CHANGES, ''},
}
local NEEDED = {
  create = {{'HSET', STATE, 'nonce', ''}, {'DEL', FLAGS}},
  change = WRITES, release = WRITES, kill = WRITES, revive = WRITES,
  renew = {{'HSET', STATE, 'nonce', ''}, {'PUBLISH', CHANGES, ''}},
}

-- The first of them that the user may not do, as an error; nil where there is none.
local function forbidden(action)
  if not redis.acl_check_cmd then return nil end
  for _, command in ipairs(NEEDED[action] or {}) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply('NOPERM this user has no permission to ' .. command[1] .. ' ' .. command[2]
        .. '; nothing was changed')
    end
  end
  return nil
end

-- The names in a list of entries, as JSON; not all of very many.
local function names(touched, wanted)
  local found, more = {}, 0
  for _, each in ipairs(touched) do
    if wanted(each) then
      if #found < NAMES_IN_HISTORY then table.insert(found, each.quoted) else more = more + 1 end
    end
  end
  return '[' .. table.concat(found, ',') .. ']', more
end

-- Notes who did what and why, without definitions: it outlives the changelog.
local function note_history(who, touched, more)
  local flags, left_out = names(touched, function(each) return each.hash == FLAGS end)
  local populations, others = names(touched, function(each) return each.hash == EVALUATORS end)
  local deleted = names(touched, function(each) return each.hash == FLAGS and not each.text end)
  redis.call('XADD', HISTORY, 'MAXLEN', '~', HISTORY_LENGTH, '*', 'entry', who .. ',"flags":' .. flags
    .. ',"populations":' .. populations .. ',"deleted":' .. deleted
    .. string.format(',"left_out":%d%s}', left_out + others, more))
end

-- Notes what a person did to a flag's release, or that it was killed or revived. `who` begins the entry.
local function note_action(who, flag, detail)
  redis.call('XADD', ACTIONS, '*', 'entry', who .. ',"flag":' .. quoted(flag) .. ',"detail":' .. detail .. '}')
end

-- Writes one change. `touched` lists {hash, member of the message, name, text or nil to delete}; `metadata` is the
-- text of the flag set's new metadata, or '', `settings` that of the environment's settings; `action` is what the
-- history calls it; `note` writes what belongs to it beside the flags, given the time and how entries about it begin;
-- `detail` is what else the history should know (JSON), or nil.
-- The changelog comes first: out of memory, or a stream that is not ours, stops the script before anything was written.
-- PUBLISH comes last: were it refused, everything would be written, and relays find it when they compare.
local function commit(action, nonce, actor, reason, urgent, touched, metadata, settings, note, detail)
  local epoch, revision, previous = position()
  revision = revision + 1
  local time = redis.call('TIME')
  local at = string.format('%.0f', time[1] * 1000000 + time[2])
  local head = string.format('{"epoch":%s,"revision":%d,"nonce":%s,"previous":%s,"at":%s',
    quoted(epoch), revision, quoted(nonce), quoted(previous), at)
  local parts = {[FLAGS] = {}, [EVALUATORS] = {}}
  for _, each in ipairs(touched) do
    table.insert(parts[each.hash], each.quoted .. ':' .. (each.text or 'null'))
  end
  local message = head .. ',"actor":' .. actor .. ',"reason":' .. reason .. ',"urgent":' .. urgent
    .. ',"flags":{' .. table.concat(parts[FLAGS], ',') .. '}'
    .. ',"$evaluators":{' .. table.concat(parts[EVALUATORS], ',') .. '}'
    .. (metadata ~= '' and ',"metadata":' .. metadata or '')
    .. (settings ~= '' and ',"settings":' .. settings or '') .. '}'

  redis.call('XADD', CHANGES, 'MAXLEN', '~', CHANGELOG_LENGTH, revision .. '-0', 'change', message)
  for _, each in ipairs(touched) do
    local member = each.hash == FLAGS and '"flag":' or '"rule":'
    if each.text then
      redis.call('HSET', each.hash, each.name,
        string.format('{"revision":%d,', revision) .. member .. each.text .. '}')
    else
      redis.call('HDEL', each.hash, each.name)
    end
  end
  redis.call('HSET', STATE, 'revision', revision, 'nonce', nonce,
    'flags', redis.call('HLEN', FLAGS), 'evaluators', redis.call('HLEN', EVALUATORS))
  if metadata ~= '' then redis.call('HSET', STATE, 'metadata', metadata) end
  if settings ~= '' then redis.call('HSET', STATE, 'settings', settings) end
  local who = string.format('{"revision":%d,"at":%s,"action":%s,"actor":', revision, at, quoted(action))
    .. actor .. ',"reason":' .. reason
  note_history(who, touched, ',"urgent":' .. urgent .. (detail and ',"detail":' .. detail or ''))
  note(at, who, revision)
  redis.call('PUBLISH', CHANGES, #message <= LARGEST_MESSAGE and message or head .. '}')
  return {'WRITTEN', revision, at, epoch}
end

-- ARGV: epoch, nonce
local function create()
  if redis.call('EXISTS', STATE) == 1 then return {'EXISTS'} end
  -- First what may be refused for want of memory; a DEL before it would have Redis let it pass.
  redis.call('HSET', STATE, 'epoch', ARGV[2], 'revision', 0, 'nonce', ARGV[3], 'metadata', '{}',
    'flags', 0, 'evaluators', 0)
  -- What a wiped `state` left behind belongs to no history any more.
  redis.call('DEL', FLAGS, EVALUATORS, KILLED, CHANGES, RELEASES, POPULATIONS, HISTORY, ACTIONS, RELAYS)
  return {'CREATED'}
end

local function destroy()
  redis.call('DEL', unpack(KEYS))
  return {'DESTROYED'}
end

-- The populations that releases name, each with the key of a flag whose release that is; without the releases of flags
-- that are written over. Releases are ours, and small; one that another tool wrote names nothing.
local function named_by_releases(over)
  local named, releases = {}, redis.call('HGETALL', RELEASES)
  for index = 1, #releases, 2 do
    local sound, held = pcall(cjson.decode, releases[index + 1])
    local release = sound and type(held) == 'table' and held.release
    local populations = type(release) == 'table' and release.populations
    if type(populations) == 'table' and not over[releases[index]] then
      for _, name in ipairs(populations) do named[name] = releases[index] end
    end
  end
  return named
end

-- What stands against an entry of a change, as an answer; nil where nothing does.
local function objection(kind, name, expected, over_releases)
  local hash = kind == 'flag' and FLAGS or EVALUATORS
  if expected ~= '' then
    local found = revision_of(hash, name)
    if not found then return {'UNREADABLE', kind, name} end
    if tonumber(expected) ~= found then return {'CONFLICT', kind, name, expected, found} end
  end
  if kind == 'flag' and not over_releases and redis.call('HEXISTS', RELEASES, name) == 1 then
    return {'RELEASED', name}
  end
  return nil
end

-- What stands against the deletion of populations, as an answer; nil where nothing does.
local function still_named(touched)
  local over, deleted = {}, {}
  for _, each in ipairs(touched) do
    if each.hash == FLAGS then
      over[each.name] = true
    elseif not each.text then
      table.insert(deleted, each.name)
    end
  end
  local named = #deleted > 0 and named_by_releases(over) or {}
  for _, name in ipairs(deleted) do
    if named[name] then return {'IN_USE', name, named[name]} end
  end
  return nil
end

-- A population that there will not be once a change is written, of those that its flags name, as an answer; nil where
-- there is none. Somebody may have deleted it since the writer looked.
local function unknown_population(touched, needed)
  local written = {}
  for _, each in ipairs(touched) do
    if each.hash == EVALUATORS then written[each.name] = each.text and 1 or 0 end
  end
  for _, name in ipairs(needed) do
    if (written[name] or redis.call('HEXISTS', EVALUATORS, name)) == 0 then return {'NO_POPULATION', name} end
  end
  return nil
end

-- What history keeps of a release that ends as its flag is written over: its plan.
local function plan_of(key)
  local release = redis.call('HGET', RELEASES, key)
  for _, member in ipairs({'release', 'plan'}) do
    local span = release and members_if_sound(release)[member]
    release = span and string.sub(release, span[1], span[2])
  end
  return release and '{"plan":' .. release .. '}' or '{}'
end

-- ARGV: nonce, action (for the history), actor (JSON), reason (JSON), urgent (JSON), metadata (JSON or ''), settings
-- (JSON or ''), most flags, the environment's revision that the writer read or '', '1' to end the releases of what is
-- written over them, then for each entry four: 'flag' or 'population', name, the revision that the writer read or '',
-- text or '' to delete; or 'about', a population's name, '', what people should know of it; or 'needed', the name of a
-- population that the flags name, '', ''; or 'detail', '', '', what else the history should know (JSON).
local function change()
  local nonce, action, actor, reason, urgent, metadata, settings, most, seen, over_releases = unpack(ARGV, 2, 11)
  local _, current = position()
  if seen ~= '' and tonumber(seen) ~= current then return {'CONFLICT', 'environment', '', seen, current} end
  local touched, about, needed, grows, detail = {}, {}, {}, 0, nil
  for index = 12, #ARGV, 4 do
    local kind, name, expected, text = unpack(ARGV, index, index + 3)
    if kind == 'about' then
      table.insert(about, {name, text})
    elseif kind == 'needed' then
      table.insert(needed, name)
    elseif kind == 'detail' then
      detail = text
    else
      local refusal = objection(kind, name, expected, over_releases == '1')
      if refusal then return refusal end
      local hash = kind == 'flag' and FLAGS or EVALUATORS
      if kind == 'flag' then grows = grows + (text ~= '' and 1 or 0) - redis.call('HEXISTS', hash, name) end
      table.insert(touched, {hash = hash, name = name, quoted = quoted(name), text = text ~= '' and text or nil})
    end
  end
  local refusal = still_named(touched) or unknown_population(touched, needed)
  if refusal then return refusal end
  local flags = redis.call('HLEN', FLAGS) + grows
  if grows > 0 and flags > tonumber(most) then return {'FULL', flags} end
  return commit(action, nonce, actor, reason, urgent, touched, metadata, settings, function(_, who)
    for _, each in ipairs(touched) do
      if each.hash == FLAGS then
        redis.call('HDEL', KILLED, each.name)
        local ended = redis.call('HEXISTS', RELEASES, each.name) == 1 and plan_of(each.name)
        if ended then
          redis.call('HDEL', RELEASES, each.name)
          note_action(who, each.name, ended)
        end
      elseif not each.text then
        redis.call('HDEL', POPULATIONS, each.name)
      end
    end
    for _, each in ipairs(about) do redis.call('HSET', POPULATIONS, each[1], each[2]) end
  end, detail)
end

-- What a flag's definition becomes when it serves one variant to everybody; nil where it has no such variant.
local function pinned(text, variant)
  local parts = members(text)
  local variants = parts.variants and string.sub(text, parts.variants[1], parts.variants[2])
  if not (variants and members(variants)[variant]) then return nil end
  text = with(with(text, 'state', '"ENABLED"'), 'defaultVariant', quoted(variant))
  return parts.targeting and with(text, 'targeting', '{}') or text
end

-- What a killed flag serves, given its definition: one variant, or nothing. Nothing, too, where that variant is no more.
local function withdrawn(text, variant)
  return variant and pinned(text, variant) or with(text, 'state', '"DISABLED"')
end

-- What is against a write of a flag's release, as an answer; nil where nothing is.
local function release_refused(key, expected, expected_release, needed)
  local found = revision_of(FLAGS, key)
  if not found then return {'UNREADABLE', 'flag', key} end
  if tonumber(expected) ~= found then return {'CONFLICT', 'flag', key, expected, found} end
  local held = redis.call('HGET', RELEASES, key)
  local at = not held and 0 or tonumber(string.match(held, '^{"revision":(%d+),"release":{'))
  if not at then return {'UNREADABLE', 'release of flag', key} end
  if tonumber(expected_release) ~= at then return {'CONFLICT', 'release', key, expected_release, at} end
  for _, population in ipairs(needed) do
    if redis.call('HEXISTS', EVALUATORS, population) == 0 then return {'NO_POPULATION', population} end
  end
  return nil
end

-- ARGV: nonce, action, actor (JSON), reason (JSON), urgent (JSON), most flags, flag key, the revisions at which flag and
-- release were read, the flag's text, the release's text or '' to end it, what else the history should know (JSON), then
-- the populations that there must be. A killed flag stays killed: what it returns to is what is written.
local function release()
  local nonce, action, actor, reason, urgent, most, key, expected, expected_release, text, document, detail
    = unpack(ARGV, 2, 13)
  local refusal = release_refused(key, expected, expected_release, {unpack(ARGV, 14)})
  if refusal then return refusal end
  local flags = redis.call('HLEN', FLAGS)
  if tonumber(expected) == 0 and flags + 1 > tonumber(most) then return {'FULL', flags + 1} end
  local kept, served = redis.call('HGET', KILLED, key), text
  local parts = kept and members_if_sound(kept) or {}
  if kept and not parts.original then return {'UNREADABLE', 'kill of flag', key} end
  if kept then
    local to = parts.to and cjson.decode('[' .. string.sub(kept, parts.to[1], parts.to[2]) .. ']')[1]
    served = withdrawn(text, type(to) == 'string' and to or nil)
    kept = replaced(kept, parts.original, text)
  end
  local touched = {{hash = FLAGS, name = key, quoted = quoted(key), text = served}}
  return commit(action, nonce, actor, reason, urgent, touched, '', '', function(_, who, revision)
    if kept then redis.call('HSET', KILLED, key, kept) end
    if document == '' then
      redis.call('HDEL', RELEASES, key)
    else
      redis.call('HSET', RELEASES, key, string.format('{"revision":%d,"release":', revision) .. document .. '}')
    end
    note_action(who, key, detail)
  end)
end

-- ARGV: nonce, actor (JSON), reason (JSON), flag key, variant or '' for none (DISABLED), and the revision that the writer
-- read or '', where a kill is to yield to whatever was changed since.
local function kill()
  local nonce, actor, reason, key, variant, expected = unpack(ARGV, 2, 7)
  local held_at, current = entry(FLAGS, key)
  if not current then return {'NO_FLAG'} end
  if not held_at then return {'UNREADABLE', 'flag', key} end
  if expected and expected ~= '' and tonumber(expected) ~= held_at then return {'CONFLICT', 'flag', key, expected, held_at} end
  -- Killed before: the first original is the one to return to.
  local kept = redis.call('HGET', KILLED, key)
  local span = kept and members_if_sound(kept).original
  local original = span and string.sub(kept, span[1], span[2]) or current
  local text
  if variant ~= '' then
    text = pinned(original, variant)
    if not text then return {'NO_VARIANT'} end
  else
    text = withdrawn(original, nil)
  end
  local epoch, revision = position()
  if span and text == current then return {'UNCHANGED', revision, '0', epoch} end
  local touched = {{hash = FLAGS, name = key, quoted = quoted(key), text = text}}
  local to = variant ~= '' and quoted(variant) or 'null'
  return commit('kill', nonce, actor, reason, 'true', touched, '', '', function(at, who)
    redis.call('HSET', KILLED, key, string.format('{"at":%s,"actor":%s,"reason":%s,"to":%s,"original":%s}',
      at, actor, reason, to, original))
    note_action(who, key, '{"to":' .. to .. '}')
  end)
end

-- ARGV: nonce, actor (JSON), reason (JSON), flag key
local function revive()
  local nonce, actor, reason, key = unpack(ARGV, 2, 5)
  if redis.call('HEXISTS', FLAGS, key) == 0 then return {'NO_FLAG'} end
  local kept = redis.call('HGET', KILLED, key)
  if not kept then return {'NOT_KILLED'} end
  local span = members_if_sound(kept).original
  if not span then return {'UNREADABLE', 'kill of flag', key} end
  local touched = {{hash = FLAGS, name = key, quoted = quoted(key), text = string.sub(kept, span[1], span[2])}}
  return commit('revive', nonce, actor, reason, 'true', touched, '', '', function(_, who)
    redis.call('HDEL', KILLED, key)
    note_action(who, key, '{}')
  end)
end

-- ARGV: the epoch, revision and nonce that the caller saw, the fresh epoch
local function renew()
  local epoch, revision, nonce = position()
  if epoch == ARGV[2] and revision == tonumber(ARGV[3]) and nonce == ARGV[4] then
    epoch = ARGV[5]
    redis.call('HSET', STATE, 'epoch', epoch)
    redis.call('PUBLISH', CHANGES, string.format('{"epoch":%s,"revision":%d,"nonce":%s,"previous":""}',
      quoted(epoch), revision, quoted(nonce)))
  end
  return {'POSITION', epoch, revision, nonce}
end

local actions = {change = change, release = release, kill = kill, revive = revive, renew = renew}

local refusal = forbidden(ARGV[1])
if refusal then return refusal end
if ARGV[1] == 'create' then return create() end
if redis.call('EXISTS', STATE) == 0 then return {'NO_ENVIRONMENT'} end
if ARGV[1] == 'destroy' then return destroy() end
refusal = damage()
if refusal then return refusal end
if ARGV[1] ~= 'renew' and redis.call('HGET', STATE, 'nonce') == ARGV[2] then
  -- The same write, sent again because its answer was lost.
  local epoch, revision = position()
  return {'WRITTEN', revision, '0', epoch}
end
return actions[ARGV[1]]()
