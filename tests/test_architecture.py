"""The house rules: who may import and include whom, what an import costs, how long files get.

A rule is a function from names and text to a list of faults, so that each can be shown to fail.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Modules of the package from the bottom up; each imports only from lines above its own. A folder
# is one module here: its files may import each other.
LAYERS = [
    {"cc_clock", "cc_glob", "cc_out", "cc_sum", "cc_table", "cc_vectors"},  # C declarations
    {"cc_resp", "cc_socket"},
    {"cc_serve"},
    {"cc_batch", "cc_memo", "cc_slots", "cc_tiered"},
    {"errors", "progress", "sentinel", "settings", "stats", "units"},
    {"async_flight", "dtypes", "rows", "views", "_arrays", "_flight", "_frames"},
    {"_core"},
    {
        "_bench",
        "_keyspace",
        "_memo",
        "_payload",
        "_resp_values",
        "_safetensors",
        "_simulate",
        "_snapshot",
        "_vectors",
    },
    {"_resp_client"},
    {"_resp_dispatch"},
    {"_resp"},
    {"_envelope"},
    {"_backlog"},
    {"_load"},
    {"_tiered", "codecs"},
    {"_writes"},
    {"tiers"},
    {"_fingerprint", "_prefix", "_texts"},
    {"ml"},
    {"__init__"},
    {"plan"},
    {"integrations"},
    {"server"},
    {"cli"},
    {"__main__"},
]
# The C units from the bottom up; each includes only headers of those before it, and its own.
C_ORDER = {
    "core": [
        "base",
        "clock",
        "pages",
        "index",
        "sketch",
        "ghosts",
        "watch",
        "age",
        "policy",
        "policy_inner",
        "policy_memory",
        "loads",
        "blake2b",
        "prefixes",
        "simulator",
        "sum",
        "row",
        "narrow",
        "segment",
        "vectors",
        "vectors_inner",
        "vectors_file",
        "vectors_read",
        "vectors_write",
        "vectors_pins",
        "stripe",
        "out",
        "resp",
        "socket",
        "glob",
    ],
    "python": [
        "keys",
        "table",
        "lifetime",
        "fault",
        "hit",
        "batch",
        "slots",
        "tiered",
        "memo_key",
        "memo_ready",
        "memo",
        "raw",
        "commands",
        "commands_inner",
        "commands_hash",
        "serve",
    ],
}
MOST_LINES = {".py": 400, ".pyx": 600, ".pxd": 600, ".pyi": 400, ".c": 600, ".h": 600}
MOST_LINES |= {".js": 400, ".css": 400, ".html": 400}


def files(*patterns: str) -> list[Path]:
    """The project's files that match; a pattern without any is a mistake in the rule."""
    found = {pattern: sorted(ROOT.glob(pattern)) for pattern in patterns}
    assert all(found.values()), found
    return [path for paths in found.values() for path in paths]


# --- imports between the package's modules ---


def imports_of_python(text: str) -> Iterator[str]:
    """Dotted names that a Python file imports, also within functions; `from a import b` is a.b."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of_cython(text: str) -> Iterator[str]:
    """The same for a .pyx or .pxd."""
    for line in text.splitlines():
        if match := re.match(r"\s*from\s+([\w.]+)\s+c?import\s+\(?(.*)", line):
            yield from (f"{match[1]}.{name}" for name in re.findall(r"\w+", match[2]) or [""])
        elif match := re.match(r"\s*c?import\s+([\w., ]+)", line):
            yield from re.findall(r"[\w.]+", match[1])


def rank(module: str) -> int:
    ranks = [at for at, modules in enumerate(LAYERS) if module in modules]
    assert ranks, f"cachecore.{module} has no place in LAYERS"
    return ranks[0]


def upward_imports(module: str, imported: Iterable[str]) -> list[str]:
    """Those of the imported names that `module`, a name in LAYERS, must not know."""
    known = set().union(*LAYERS)
    own = rank(module)
    faults = []
    for name in imported:
        package, _, rest = name.partition(".")
        first = rest.partition(".")[0]
        target = first if first in known else "__init__"
        same_folder = target == module and (ROOT / "cachecore" / module).is_dir()
        if package == "cachecore" and not same_folder and rank(target) >= own:
            faults.append(name)
    return faults


@pytest.mark.parametrize(
    "path",
    files("cachecore/**/*.py", "cachecore/*.pyx", "cachecore/*.pxd"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_go_one_way(path: Path) -> None:
    module = path.relative_to(ROOT / "cachecore").parts[0].partition(".")[0]
    reader = imports_of_python if path.suffix == ".py" else imports_of_cython
    assert upward_imports(module, reader(path.read_text())) == []


def test_an_upward_import_is_found() -> None:
    python = "import numpy\ndef f():\n    from cachecore._core import Cache\n    import cachecore"
    assert upward_imports("settings", imports_of_python(python)) == [
        "cachecore._core.Cache",
        "cachecore",
    ]
    assert upward_imports("cli", imports_of_python(python + "\nfrom cachecore.cli import x")) == []
    cython = "from cachecore._memo cimport x\ncimport cachecore._core\nfrom cachecore import (\n"
    assert upward_imports("_core", imports_of_cython(cython)) == [
        "cachecore._memo.x",
        "cachecore._core",
        "cachecore.",
    ]
    with pytest.raises(AssertionError, match="no place in LAYERS"):
        upward_imports("nowhere", [])


def test_what_the_orders_name_is_there() -> None:
    there = {path.name.partition(".")[0] for path in files("cachecore/*")}
    assert set().union(*LAYERS) - there == set()
    for folder, units in C_ORDER.items():
        assert all(files(*(f"src/{folder}/cc_{unit}.[ch]" for unit in units)))


def test_no_cython_file_is_cut_in_pieces() -> None:
    for path in files("cachecore/*.pyx", "cachecore/*.pxd"):
        assert not re.search(r"(?m)^\s*include\s+[\"']", path.read_text()), path


# --- the C sources ---


def includes_of(text: str) -> list[str]:
    """What a C file includes: '<name>' or 'name'."""
    return re.findall(r"(?m)^\s*#\s*include\s+[\"]?(<[^>]+>|[^\"\s]+)", text)


def wrong_includes(folder: str, name: str, includes: Iterable[str]) -> list[str]:
    """Those of the includes that src/`folder`/`name` must not have."""
    order = [f"cc_{unit}.h" for units in C_ORDER.values() for unit in units]
    own = name.replace(".c", ".h")
    assert own in order, f"src/{folder}/{name} has no place in C_ORDER"
    allowed = order[: order.index(own) + name.endswith(".c")]
    if name.endswith(".c"):  # and the inner headers of its unit, which follow it
        allowed += [header for header in order if header.startswith(f"{own[:-2]}_")]
    if folder == "core":  # standard headers and those of the processor: no Python, no NumPy
        allowed = [header for header in allowed if header[3:-2] in C_ORDER["core"]]
    foreign = re.compile(r"<(Python\.h|numpy/.*|cpython/.*)>")
    return [
        header
        for header in includes
        if (header.startswith("<") and folder == "core" and foreign.match(header))
        or (not header.startswith("<") and header not in allowed)
    ]


@pytest.mark.parametrize(
    "path", files("src/core/*.[ch]", "src/python/*.[ch]"), ids=lambda path: str(path.name)
)
def test_includes_go_one_way(path: Path) -> None:
    assert wrong_includes(path.parent.name, path.name, includes_of(path.read_text())) == []


def test_a_wrong_include_is_found() -> None:
    text = (
        '#include <string.h>\n#include <Python.h>\n  # include "cc_table.h"\n#include "cc_base.h"'
    )
    wrong = ["<Python.h>", "cc_table.h"]
    assert wrong_includes("core", "cc_policy.c", includes_of(text)) == wrong
    assert wrong_includes("core", "cc_index.h", ["cc_sketch.h", "cc_index.h"]) != []
    assert wrong_includes("python", "cc_slots.c", includes_of(text)) == []
    assert wrong_includes("core", "cc_policy.c", ["cc_policy_inner.h"]) == []
    assert wrong_includes("core", "cc_loads.c", ["cc_policy_inner.h"]) == []
    assert wrong_includes("core", "cc_policy.h", ["cc_policy_inner.h"]) != []
    with pytest.raises(AssertionError, match="no place in C_ORDER"):
        wrong_includes("core", "cc_unknown.c", [])


def first_system_header(path: Path) -> str:
    """The system header that the compiler meets first in a file, its own headers followed."""
    for header in includes_of(path.read_text()):
        if header.startswith("<"):
            return header
        if found := first_system_header(next(ROOT.glob(f"src/*/{header}"))):
            return found
    return ""


@pytest.mark.parametrize("path", files("src/python/*.[ch]"), ids=lambda path: str(path.name))
def test_python_comes_before_the_standard_headers(path: Path) -> None:
    """CPython's documentation asks for it: Python.h defines what they depend on."""
    assert first_system_header(path) == "<Python.h>"


def without_noise(text: str) -> str:
    """C without comments, preprocessor lines and strings."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", " ", text)
    return re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', "0", text)


def mutable_globals(text: str) -> list[str]:
    """Declarations of variables that outlive a call and are not const; at any depth of braces."""
    text = without_noise(text)
    faults = re.findall(r"(?<=[{};])\s+static\s+(?!const\b|inline\b|_Thread)[^;(){}]*;", text)
    while "{" in text:
        text = re.sub(r"\{[^{}]*\}", " \0 ", text)
    # A body ends a function; after a type or an initialiser the declaration goes on to its ';'.
    for declaration in re.split(r";|(?<=\))\s*\0", text):
        head = declaration.partition("=")[0].strip()
        constant = re.search(r"\bconst\b", head.rpartition("*")[2] if "*" in head else head)
        a_type = re.match(r"(typedef|static_assert|(struct|union|enum)\s+\w*\s*\0?$)", head)
        if head and "(" not in head and not constant and not a_type:
            faults.append(head)
    return [" ".join(fault.replace("\0", "{}").split()) for fault in faults]


@pytest.mark.parametrize("path", files("src/core/*.[ch]"), ids=lambda path: str(path.name))
def test_core_has_no_globals(path: Path) -> None:
    assert mutable_globals(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "int count;",
        "#define X 1\nstatic uint64_t seed = 7;",
        "static int table[] = {1, 2};",
        "static const char *name;",
        "struct x { int a; } the_x;",
        "int f(int a) { static int calls; return ++calls; }",
        "static void g(void) { if (1) { ; } }\n_Thread_local int last;",
    ],
)
def test_a_global_is_found(text: str) -> None:
    assert len(mutable_globals(text)) == 1


def test_what_is_no_global_is_not_found() -> None:
    text = """
        /* int count; */
        #define A(x) \\
            int x;
        typedef struct { int a; } a; struct b { int c; }; enum { ONE = 1 };
        typedef int (*visit)(void *); struct forward;
        static const int table[] = {1, 2}; const char *const name = "a;b";
        static_assert(sizeof(int) == 4, "of 4"); static inline int h(int x) { int y; return x; }
        int f(int a, const char *b) { static const int c = 3; if (a) { a++; } return a; }
    """
    assert mutable_globals(text) == []


# --- the tree as a whole ---


def test_files_stay_readable() -> None:
    paths = files("cachecore/**/*.py*", "src/*/*.[ch]")
    paths += files("tests/**/*.py", "asv_bench/**/*.py", "docs/**/*.py")
    paths += files("cachecore/server/page/*")
    lengths = {
        path: len(path.read_text().splitlines()) for path in paths if path.suffix in MOST_LINES
    }
    too_long = {path: lines for path, lines in lengths.items() if lines > MOST_LINES[path.suffix]}
    assert too_long == {}


def test_no_generated_c_lies_among_the_sources() -> None:
    for path in files("src/**/*.[ch]", "cachecore/**/*"):
        if path.is_file() and path.suffix in {".c", ".h", ".cpp", ".html"}:
            assert path.suffix == ".html" or path.parts[-3] == "src", path
            assert "Generated by Cython" not in path.read_text()[:200], path


def modules_after(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_package_imports_nothing_before_it_is_used() -> None:
    assert {
        name for name in modules_after("import cachecore") if name.startswith("cachecore.")
    } == set()


def test_the_core_imports_numpy_and_nothing_else_that_must_be_installed() -> None:
    statement = "from cachecore import Cache, VectorCache, memoize"
    added = {name.partition(".")[0] for name in modules_after(statement)}
    added -= {name.partition(".")[0] for name in modules_after("import numpy")}
    installed = {name for name in added - sys.stdlib_module_names if "cython_" not in name}
    assert installed == {"cachecore"}
    # Of the standard library, not what is slow to import or starts something.
    assert added.isdisjoint({"asyncio", "concurrent", "multiprocessing", "socket", "ssl"})
