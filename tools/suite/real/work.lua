-- Lua at work: traces and their exits, tables, strings, closures, coroutines, errors, code made and dropped; compiled by LuaJIT
-- while it runs, in memory whose protection changes with each trace.
local bit = require("bit")
local ffi = require("ffi")

local function random(seed)
    local state = seed
    return function()
        state = bit.tobit(bit.band(state * 4005 + 12345, 0x7fffffff))
        return bit.rshift(state, 8)
    end
end

local Bird = {}
Bird.__index = Bird

function Bird.new(weight)
    return setmetatable({weight = weight, songs = 0}, Bird)
end

function Bird:sing(note)
    self.songs = self.songs + 1
    return (note * 3 + self.weight) % 1000003
end

local Thrush = setmetatable({}, {__index = Bird})
Thrush.__index = Thrush

function Thrush:sing(note)
    return Bird.sing(self, note) + self.songs % 7
end

local function choir(rounds)
    local birds, note = {}, 1
    for i = 1, 7 do
        birds[i] = setmetatable({weight = i, songs = 0}, i % 3 == 0 and Thrush or Bird)
    end
    for i = 1, rounds do
        note = birds[i % 7 + 1]:sing(note)
    end
    return note
end

-- Branches that no trace begins with: exits that become traces of their own, to which others are patched.
local function branches(rounds)
    local next, sum = random(11), 0
    for _ = 1, rounds do
        local number = next() % 64
        if number < 20 then sum = sum + number
        elseif number < 30 then sum = bit.bxor(sum, number)
        elseif number < 40 then sum = sum * 3 % 65537
        elseif number == 63 then sum = sum + #tostring(number)
        elseif number % 2 == 0 then sum = sum - 1
        else sum = bit.tobit(sum + bit.lshift(number, 4)) end
    end
    return sum
end

local function words(rounds)
    local next, counts, list = random(5), {}, {}
    local names = {"mocking", "bird", "sings", "other", "voices", "never", "guest", "host"}
    for _ = 1, rounds do
        local word = names[bit.band(next(), 7) + 1] .. bit.band(next(), 63)
        counts[word] = (counts[word] or 0) + 1
    end
    for word, count in pairs(counts) do list[#list + 1] = {word, count} end
    table.sort(list, function(a, b) return a[2] > b[2] or a[2] == b[2] and a[1] < b[1] end)
    local text = {}
    for i = 1, 5 do text[i] = list[i][1]:upper():gsub("%d+", "(%0)") .. "=" .. list[i][2] end
    return table.concat(text, " ")
end

local function sieve(limit)
    local composite, primes = ffi.new("uint8_t[?]", limit), 0
    for i = 2, limit - 1 do
        if composite[i] == 0 then
            primes = primes + 1
            for j = i * i, limit - 1, i do composite[j] = 1 end
        end
    end
    return primes
end

local function waves(points)
    local samples, sum = {}, 0
    for i = 1, points do samples[i] = (i - 1) % 97 * 0.125 - 6 end
    for _ = 1, 20 do
        for i = 2, points do samples[i] = samples[i - 1] * 0.25 + samples[i] * 0.75 end
    end
    for i = 1, points do sum = sum + samples[i] end
    return sum
end

local function tree(depth)
    return depth > 0 and {tree(depth - 1), tree(depth - 1)} or {}
end

local function size(node)
    return node[1] and 1 + size(node[1]) + size(node[2]) or 1
end

local function errors(rounds)
    local sum = 0
    for i = 1, rounds do
        local fine, value = pcall(function(number)
            if number % 3 == 0 then error({code = number}) end
            return number
        end, i)
        sum = sum + (fine and value or value.code * 2)
    end
    return sum
end

local function relay(rounds)
    local sum = 0
    local source = coroutine.wrap(function()
        for i = 1, rounds do coroutine.yield(i * i % 101) end
    end)
    for _ = 1, rounds do sum = sum + source() end
    return sum
end

-- Programs that are compiled, run hot and dropped, and all code with them from time to time.
local function programs(count)
    local sum = 0
    for i = 1, count do
        local made = loadstring("local sum = 0 for i = 1, 300 do sum = (sum * 31 + i * " .. i .. ") % 65521 end return sum")
        sum = sum + made()
        if i % 100 == 0 then jit.flush() end
    end
    return sum
end

print(choir(2000000), branches(1000000), words(200000))
print(sieve(2000000), string.format("%.9f", waves(40000)), size(tree(16)))
print(errors(60000), relay(200000), programs(600))
