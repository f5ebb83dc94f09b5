"""The compiled modules and how they are built; the rest of the project is in pyproject.toml.

CACHECORE_BUILD chooses the mode: "release" (the default), "debug" (the C code checks what it relies
on, CC_DEBUG) or "asan" (the same under AddressSanitizer and UBSan, see ci/sanitize.sh). Each mode
builds in a folder of its own, build/MODE, generated C included.
"""

import os
import subprocess
import tempfile
from glob import glob
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODES = {
    "release": (["-O3"], []),
    "debug": (["-O1", "-g", "-DCC_DEBUG", "-UNDEBUG"], []),
    "asan": (
        ["-O1", "-g", "-DCC_DEBUG", "-UNDEBUG", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE"],
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    ),
}
# No -march: what is built here must run on any machine of the platform.
# No fused multiplication: the policy's floats are to be the same everywhere.
COMPILE = ["-std=gnu11", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
LTO = "-flto=auto"  # a set at capacity takes 9 % less time
# What Cython generates leaves parameters unused and casts method pointers.
QUIET = ["-Wno-unused-parameter", "-Wno-cast-function-type"]
# No pickling by field and no doctest table: neither is meant, and both would need stubs.
DIRECTIVES = {"language_level": 3, "auto_pickle": False, "autotestdict": False}
VECTORS = [f"src/core/cc_{unit}.c" for unit in ("narrow", "row", "segment", "stripe", "sum")]
VECTORS += sorted(glob("src/core/cc_vectors*.c"))
PREFIXES = ["src/core/cc_blake2b.c", "src/core/cc_prefixes.c"]
RESP = [f"src/core/cc_{unit}.c" for unit in ("out", "resp")]
SOCKET = ["src/core/cc_socket.c"]
GLOB = ["src/core/cc_glob.c"]
CORE = sorted({*glob("src/core/*.c")} - {*VECTORS, *PREFIXES, *RESP, *SOCKET, *GLOB})
MEMO = sorted(glob("src/python/cc_memo*.c"))
TIERED = ["src/python/cc_tiered.c"]
SERVE = [f"src/python/cc_{unit}.c" for unit in ("commands", "commands_hash", "serve")]
TABLE = ["src/python/cc_table.c", "src/python/cc_lifetime.c"]
MODULES = {
    "_arrays": [],
    "_backlog": [],
    "_bench": [],
    "_core": [*CORE, *sorted({*glob("src/python/*.c")} - {*MEMO, *SERVE, *TIERED})],
    "_envelope": ["src/core/cc_sum.c"],
    "_fingerprint": [],
    "_flight": [],
    "_frames": RESP,
    "_keyspace": [*CORE, *GLOB, *TABLE],
    "_load": [],
    "_memo": MEMO,
    "_payload": ["src/core/cc_sum.c"],
    "_prefix": ["src/core/cc_index.c", "src/core/cc_pages.c", *PREFIXES],
    "_resp": [*CORE, *RESP, *SOCKET, *TABLE, *SERVE],
    "_resp_client": [*CORE, *RESP, *TABLE, *SERVE],
    "_resp_dispatch": [*CORE, *RESP, *TABLE, *SERVE],
    "_resp_values": RESP,
    "_safetensors": [],
    "_simulate": CORE,
    "_texts": [],
    "_snapshot": [*CORE, *TABLE],
    "_tiered": [*CORE, *TABLE, *TIERED],
    "_vectors": [*CORE, *VECTORS],
    "_writes": [],
}


class BuildExt(build_ext):
    """Optimises a release while linking, where the compiler and the linker can do that."""

    def build_extensions(self) -> None:
        if mode == "release" and self.links_with(LTO):
            for extension in self.extensions:
                extension.extra_compile_args.append(LTO)
                extension.extra_link_args += [*flags, LTO]
        super().build_extensions()

    def links_with(self, flag: str) -> bool:
        """Whether the compiler can make a shared library with this flag."""
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder, "probe.c"), Path(folder, "probe.so")
            source.write_text("int probe(void) { return 0; }\n")
            command = [*self.compiler.linker_so, "-fPIC", flag, str(source), "-o", str(library)]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0


mode = os.environ.get("CACHECORE_BUILD", "release")
if mode not in MODES:
    raise SystemExit(f"CACHECORE_BUILD must be one of {', '.join(MODES)}, not {mode!r}")
flags, link = MODES[mode]

setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            f"cachecore.{name}",
            [f"cachecore/{name}.pyx", *sources],
            include_dirs=["src/core", "src/python", numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            extra_compile_args=[*COMPILE, *QUIET, *flags, *link],
            extra_link_args=[*link],  # BuildExt adds to it
            depends=glob("src/*/*.h") + glob("cachecore/*.pxd"),
        )
        for name, sources in MODULES.items()
    ],
    options={
        "build": {"build_base": f"build/{mode}"},
        "build_ext": {"cython_c_in_temp": True, "cython_directives": DIRECTIVES},
    },
)
