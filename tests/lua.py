# SPDX-License-Identifier: Apache-2.0
"""Runs Lua with the library that Slurm's own job_submit/lua plugin uses: no other Lua is installed for it."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

_PLUGINS = "*/slurm*/job_submit_lua.so"


class Lua:
    """A state of Lua with its standard libraries."""

    def __init__(self) -> None:
        (plugin, *_) = [*Path("/usr/lib").glob(_PLUGINS), *Path("/usr/lib64").glob(_PLUGINS[2:])]
        needs = subprocess.run(["/usr/bin/ldd", plugin], capture_output=True, text=True, check=True).stdout
        library = re.search(r"liblua\S* => (\S+)", needs)
        assert library is not None, needs
        self._lua = ctypes.CDLL(library[1])
        self._lua.luaL_newstate.restype = ctypes.c_void_p
        self._lua.lua_tolstring.restype = ctypes.c_char_p
        self._state = ctypes.c_void_p(self._lua.luaL_newstate())
        self._lua.luaL_openlibs(self._state)

    def close(self) -> None:
        self._lua.lua_close(self._state)

    def run(self, code: str, chunk: str = "=test") -> str | None:
        """Run code, and return the string that it returns; None for nil.

        Args:
            code: The code.
            chunk: What Lua takes for its origin, such as `@/etc/slurm/job_submit.lua`.
        """
        text = code.encode()
        size = ctypes.c_size_t(len(text))
        # Lua 5.1 has both functions under shorter names, which are macros later.
        if hasattr(self._lua, "luaL_loadbuffer"):
            error = self._lua.luaL_loadbuffer(self._state, text, size, chunk.encode())
            error = error or self._lua.lua_pcall(self._state, 0, 1, 0)
        else:
            error = self._lua.luaL_loadbufferx(self._state, text, size, chunk.encode(), None)
            error = error or self._lua.lua_pcallk(self._state, 0, 1, 0, ctypes.c_ssize_t(0), None)
        value = self._lua.lua_tolstring(self._state, -1, None)
        self._lua.lua_settop(self._state, 0)
        answer = None if value is None else value.decode()
        assert not error, answer
        return answer
