-- SPDX-License-Identifier: Apache-2.0
--
-- Has a job that asks for a QPU ask for the license of that name as well. Slurm then keeps it in the queue while the
-- QPU is closed, away, or in use by as many jobs as may. Refuses a job at submission that may not use its QPU, as far
-- as that is known by then (docs/rules.md). It goes beside slurm.conf, which needs
--
--     JobSubmitPlugins=lua
--     Licenses=...            as `qpu-slurm check` says
--
-- Where there is a job_submit.lua already, put this file beside it under another name and call what it returns:
--
--     local qpu_slurm = dofile("/etc/slurm/qpu_slurm.lua")
--     function slurm_job_submit(job_desc, part_list, submit_uid)
--         local why = qpu_slurm.refusal(job_desc, part_list)
--         if why ~= nil then
--             slurm.log_user("%s", why)
--             return slurm.ERROR
--         end
--         qpu_slurm.add_licenses(job_desc)
--         ...

-- As `acquire_on` in config.toml: "gres" leaves out jobs that only want to know what a QPU is like.
local ACQUIRE_ON = "qpu"

-- The QPU's name where there is just one: what `--gres=qpu:1` means without `--qpu`. "" where there are several.
local ONLY_QPU = ""

-- Who may use which QPU, as `qpu-slurm access --lua` prints it; by default beside this file.
local ACCESS = string.gsub(debug.getinfo(1, "S").source, "^@(.*/)[^/]*$", "%1") .. "qpu_slurm_access.lua"

local QPU_NAME = "^[A-Za-z][A-Za-z0-9_-]*$"

-- The names in `--qpu`, as the SPANK plugin published them. A job that leaves a choice (`any`, `NAME|NAME`) gets no
-- license for it: which one it would need is known when it starts. It waits as docs/choosing-a-qpu.md says.
local function named(job_desc)
    local names = {}
    local env = job_desc.spank_job_env
    local index = 0
    while env ~= nil and env[index] ~= nil do
        local value = string.match(env[index], "^QPU_SLURM_QPU=(.*)$")
        for name in string.gmatch(value or "", "[^,]+") do
            names[#names + 1] = name
        end
        index = index + 1
    end
    return names
end

-- The types in `--gres=qpu:TYPE:1`, and whether there is a gres qpu at all.
local function typed(job_desc)
    local names, any = {}, false
    for part in string.gmatch(job_desc.tres_per_node or "", "[^,]+") do
        local rest = string.match(part, "^gres[:/]qpu(.*)$")
        if rest ~= nil and (rest == "" or string.sub(rest, 1, 1) == ":") then
            any = true
            names[#names + 1] = string.match(rest, "^:([A-Za-z][A-Za-z0-9_-]*)")
        end
    end
    return names, any
end

-- The QPUs that a job is to have; with those that it is only bound to, if `bound` is true.
local function qpus_of(job_desc, bound)
    local wanted, any = typed(job_desc)
    if bound or ACQUIRE_ON == "qpu" or (any and #wanted == 0) then
        for _, name in ipairs(named(job_desc)) do
            wanted[#wanted + 1] = name
        end
    end
    if any and #wanted == 0 and ONLY_QPU ~= "" then
        wanted[1] = ONLY_QPU
    end
    return wanted
end

-- The place of a component in its heterogeneous job; nil for any other job.
local function het_offset(job_desc)
    local offset = job_desc.het_job_offset
    if offset ~= nil and offset >= 0 and offset < 1000 then
        return offset
    end
    return nil
end

-- What was read last, and the first line of the file then: it has a digest of all others.
local access_read, access_line = {}, nil

-- slurmctld would not notice that the file has changed, so its first line is read for each job with a QPU.
local function read_access()
    local file = io.open(ACCESS)
    local line = file and file:read("*l")
    if file ~= nil then
        file:close()
    end
    if line == access_line then
        return access_read
    end
    access_read, access_line = {}, line
    if line == nil then
        return access_read
    end
    local read = loadfile(ACCESS)
    local fine, rules = pcall(read or error)
    if fine and type(rules) == "table" then
        access_read = rules
    else
        -- It may be half written.
        access_line = nil
        slurm.log_error("%s cannot be used: write it again with `qpu-slurm access --lua`", ACCESS)
    end
    return access_read
end

local function given(value)
    if value ~= nil and value ~= "" then
        return string.lower(value)
    end
    return nil
end

-- What is known of a job: a list of values each, or nil.
local function facts_of(job_desc, part_list)
    local partitions = {}
    for name in string.gmatch(job_desc.partition or "", "[^,]+") do
        partitions[#partitions + 1] = name
    end
    if #partitions == 0 then
        for name, partition in pairs(part_list) do
            if partition.flag_default == 1 then
                partitions[1] = name
            end
        end
    end
    local account = given(job_desc.account) or given(job_desc.default_account)
    local qos = given(job_desc.qos) or given(job_desc.default_qos)
    return {
        users = { job_desc.user_id },
        accounts = account and { account },
        partitions = #partitions > 0 and partitions or nil,
        qos = qos and { qos },
    }
end

-- Whether a job fits a rule: "yes", "no", or "maybe" if that is not known yet, as groups never are.
local function fits(rule, facts)
    local found = rule.unsure and "maybe" or "yes"
    for _, key in ipairs({ "users", "accounts", "partitions", "qos" }) do
        if rule[key] ~= nil then
            local values, matches = facts[key], 0
            for _, value in ipairs(values or {}) do
                matches = matches + (rule[key][value] and 1 or 0)
            end
            if values ~= nil and matches == 0 then
                return "no"
            elseif values == nil or matches < #values then
                found = "maybe"
            end
        end
    end
    return found
end

local function sentence(name, rules, facts, but)
    local words = { accounts = " with account ", partitions = " in partition ", qos = " with QOS " }
    local text = "You may not use " .. name
    for _, key in ipairs({ "accounts", "partitions", "qos" }) do
        if rules.compares[key] and facts[key] ~= nil then
            text = text .. words[key] .. table.concat(facts[key], " or ")
        end
    end
    return text .. ": it is " .. rules.who .. but .. ". " .. rules.ask
end

-- Why a job may not use a QPU that it asks for; nil if it may, or if only the prolog can know.
local function refusal(job_desc, part_list)
    local names = qpus_of(job_desc, true)
    if #names == 0 then
        return nil
    end
    local access, facts = read_access(), facts_of(job_desc, part_list)
    -- Another component of a heterogeneous job may be what the rule allows.
    local settled = het_offset(job_desc) and { users = facts.users } or facts
    for _, name in ipairs(names) do
        local rules = access[name]
        if rules ~= nil then
            local allowed = rules.default == "allow"
            for _, rule in ipairs(rules.deny) do
                if fits(rule, facts) == "yes" then
                    return sentence(name, rules, facts, ", but not for " .. rule.text)
                end
            end
            for _, rule in ipairs(rules.allow) do
                allowed = allowed or fits(rule, settled) ~= "no"
            end
            if not allowed then
                return sentence(name, rules, facts, "")
            end
        end
    end
    return nil
end

local function add_licenses(job_desc)
    -- From Slurm 24.11 on, only a heterogeneous job's first component may ask for licenses.
    if (het_offset(job_desc) or 0) > 0 then
        return
    end
    local wanted = qpus_of(job_desc, false)
    local licenses = job_desc.licenses or ""
    local has = {}
    for part in string.gmatch(licenses, "[^,;]+") do
        has[string.match(part, "^[^:*@]*")] = true
    end
    for _, name in ipairs(wanted) do
        -- What is no name is refused by the hook, with a sentence.
        if string.match(name, QPU_NAME) and name ~= "any" and not has[name] then
            has[name] = true
            licenses = licenses .. (licenses == "" and "" or ",") .. name .. ":1"
        end
    end
    if licenses ~= "" then
        job_desc.licenses = licenses
    end
end

function slurm_job_submit(job_desc, part_list, submit_uid)
    local why = refusal(job_desc, part_list)
    if why ~= nil then
        slurm.log_user("%s", why)
        return slurm.ERROR
    end
    add_licenses(job_desc)
    return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return slurm.SUCCESS
end

return { add_licenses = add_licenses, refusal = refusal }
