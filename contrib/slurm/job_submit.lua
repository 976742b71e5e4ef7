-- SPDX-License-Identifier: Apache-2.0
--
-- Has a job that asks for a QPU ask for the license of that name as well. Slurm then keeps it in the queue while the
-- QPU is closed, away, or in use by as many jobs as may. It goes beside slurm.conf, which needs
--
--     JobSubmitPlugins=lua
--     Licenses=...            as `qpu-slurm check` says
--
-- Where there is a job_submit.lua already, put this file beside it under another name and call what it returns:
--
--     local qpu_slurm = dofile("/etc/slurm/qpu_slurm.lua")
--     function slurm_job_submit(job_desc, part_list, submit_uid)
--         qpu_slurm.add_licenses(job_desc)
--         ...

-- As `acquire_on` in config.toml: "gres" leaves out jobs that only want to know what a QPU is like.
local ACQUIRE_ON = "qpu"

-- The QPU's name where there is just one: what `--gres=qpu:1` means without `--qpu`. "" where there are several.
local ONLY_QPU = ""

local QPU_NAME = "^[A-Za-z][A-Za-z0-9_-]*$"

-- The names in `--qpu`, as the SPANK plugin published them.
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

local function add_licenses(job_desc)
    -- From Slurm 24.11 on, only a heterogeneous job's first component may ask for licenses.
    local offset = job_desc.het_job_offset
    if offset ~= nil and offset > 0 and offset < 1000 then
        return
    end
    local wanted, any = typed(job_desc)
    if ACQUIRE_ON == "qpu" or (any and #wanted == 0) then
        for _, name in ipairs(named(job_desc)) do
            wanted[#wanted + 1] = name
        end
    end
    if any and #wanted == 0 and ONLY_QPU ~= "" then
        wanted[1] = ONLY_QPU
    end
    local licenses = job_desc.licenses or ""
    local has = {}
    for part in string.gmatch(licenses, "[^,;]+") do
        has[string.match(part, "^[^:*@]*")] = true
    end
    for _, name in ipairs(wanted) do
        -- What is no name is refused by the hook, with a sentence.
        if string.match(name, QPU_NAME) and not has[name] then
            has[name] = true
            licenses = licenses .. (licenses == "" and "" or ",") .. name .. ":1"
        end
    end
    if licenses ~= "" then
        job_desc.licenses = licenses
    end
end

function slurm_job_submit(job_desc, part_list, submit_uid)
    add_licenses(job_desc)
    return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return slurm.SUCCESS
end

return { add_licenses = add_licenses }
