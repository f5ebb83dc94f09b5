"""Weight stores in processes of their own: forks, limits on locked memory, other users' files."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cachecore.ml import WeightStore
from cachecore.ml.residency import _resident_pages
from cachecore.ml.shards import Shard

NOBODY = 65534
MB = 1 << 20


def file_of(count: int, size: int = MB) -> str:
    """A file of `count` tensors of `size` bytes."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    path = os.path.join(folder, "m.safetensors")
    save_file({f"t{at}": np.full(size, at, np.uint8) for at in range(count)}, path)
    os.chmod(path, 0o644)
    return path


def in_a_fork(check: object) -> None:
    """Run a function in a forked process; what it raises is printed there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check()  # type: ignore[operator]
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_shares_the_map() -> None:
    store = WeightStore(file_of(4), budget=3 * MB)
    store.pin(["t0"])
    view = store["t1"]
    locked = store.stats().locked_bytes

    def child() -> None:
        assert (view == 1).all()
        assert (store["t2"] == 2).all()
        assert (store["t0"] == 0).all()
        stats = store.stats()
        assert stats.pinned == 1
        assert stats.locked_bytes <= MB  # t2: the parent's locks are the parent's
        for at in (3, 1, 2, 3):
            assert (store[f"t{at}"] == at).all()
        store.pin(["t0", "t1"])
        store.close()
        assert (view == 1).all()

    in_a_fork(child)
    assert store.stats().locked_bytes == locked
    assert (store["t3"] == 3).all()


def test_a_fork_while_a_thread_has_the_lock() -> None:
    store = WeightStore(file_of(4), budget=3 * MB)
    with store._guard():  # of the main thread, which a child's main thread takes for its own
        import threading

        def fork() -> None:
            in_a_fork(lambda: store.pin(["t0"]) or store["t1"])

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()


def limited(most: int) -> None:
    """May lock `most` bytes, as somebody without privileges."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
    if os.geteuid() == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)


def test_what_may_not_be_locked_is_counted() -> None:
    path = file_of(4)
    limited(3 * MB - MB // 2)
    store = WeightStore(path, budget=6 * MB)
    store.pin(["t0", "t1", "t2"])
    stats = store.stats()
    assert (stats.pinned, stats.locked_bytes, stats.unlocked_bytes) == (3, 2 * MB, MB)
    store["t3"]
    assert store.stats().unlocked_bytes == 2 * MB
    store.unpin(["t0"])
    store.pin(["t0"])
    store.close()
    again = WeightStore(path)
    again.pin(["t2", "t3"])
    assert again.stats().unlocked_bytes == 0


def test_nothing_may_be_locked() -> None:
    path = file_of(2)
    limited(0)
    store = WeightStore(path, budget=2 * MB)
    store.pin(["t0"])
    assert (store["t1"] == 1).all()
    assert (store.stats().locked_bytes, store.stats().unlocked_bytes) == (0, 2 * MB)


def test_what_is_in_memory_of_files_of_others() -> None:
    """The kernel would say that all is."""
    other = Shard("/etc/passwd")  # of root, who alone may write to it
    store = WeightStore(file_of(1))
    if os.geteuid() == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        assert (store["t0"] == 0).all()
        with pytest.raises(PermissionError, match="the kernel tells what is in memory only to who"):
            store.residency()
    with pytest.raises(PermissionError, match="/etc/passwd: the kernel tells"):
        _resident_pages(other)


def test_two_processes_share_the_pages() -> None:
    path = file_of(16)
    code = f"""if True:
        import sys
        from cachecore.ml import WeightStore
        store = WeightStore({path!r})
        assert sum(int(array.max()) for array in store.values()) == 120
        print("ready", flush=True)
        sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    store = WeightStore(path)
    assert sum(int(array.max()) for array in store.values()) == 120
    rss, pss = mapped(path)
    child.communicate()
    assert rss >= 16 * MB
    assert pss < 0.6 * rss
    assert mapped(path)[1] > 0.9 * rss


def mapped(path: str) -> tuple[int, int]:
    """Bytes of a file that this process maps and has touched: all, and its share of them."""
    smaps = Path("/proc/self/smaps").read_text()
    entry = smaps[smaps.index(path) :]
    rss, pss = (re.search(rf"{what}:\s+(\d+) kB", entry) for what in ("Rss", "Pss"))
    assert rss is not None
    assert pss is not None
    return int(rss[1]) << 10, int(pss[1]) << 10


def test_a_truncated_file_is_a_bus_error() -> None:
    """As the documentation warns: there is nothing else that a map could do."""
    path = file_of(2)
    code = f"""if True:
        import os
        from cachecore.ml import WeightStore
        store = WeightStore({path!r})
        os.truncate({path!r}, 4096)
        store["t1"].max()
    """
    child = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert child.returncode == -7
