"""INFO: what the server tells of itself, with the names that Redis gives to it."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

from cachecore import __version__
from cachecore._resp_client import Client
from cachecore.server.commands.connection import VERSION
from cachecore.server.commands.registry import Table
from cachecore.server.service import Server

TABLE = Table()
Fields = dict[str, Any]
POLICY = "allkeys-lfu"  # what of Redis comes nearest to the policy of the core


def _server(server: Server) -> Fields:
    uptime = int(time.time() - server.started)
    name = os.uname()
    return {
        "redis_version": VERSION,
        "cachecore_version": __version__,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": "0",
        "redis_mode": "standalone",
        "os": f"{name.sysname} {name.release} {name.machine}",
        "arch_bits": 64,
        "multiplexing_api": "epoll",
        "python_version": platform.python_version(),
        "process_id": os.getpid(),
        "run_id": server.run_id,
        "tcp_port": server.port,
        "server_time_usec": int(time.time() * 1e6),
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
        "hz": 1,
    }


def _clients(server: Server) -> Fields:
    clients = server.engine.clients.values()
    return {
        "connected_clients": len(clients),
        "maxclients": server.engine.max_clients,
        "client_recent_max_input_buffer": max((each.unread_bytes for each in clients), default=0),
        "client_recent_max_output_buffer": max((each.unsent_bytes for each in clients), default=0),
        "blocked_clients": sum(each.waiting_replies for each in clients),
        "tracking_clients": 0,
    }


def _memory(server: Server) -> Fields:
    held = server.cache.stats().bytes
    buffers = server.engine.buffered_bytes
    used, rss = held + buffers, resident_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = server.cache.max_bytes or 0
    fields = {
        "used_memory": used,
        "used_memory_rss": rss,
        "used_memory_peak": max(used, peak),
        "used_memory_overhead": buffers,
        "used_memory_dataset": held,
        "total_system_memory": total,
        "maxmemory": most,
    }
    shown = ("used_memory", "used_memory_rss", "used_memory_peak", "total_system_memory")
    human = {f"{name}_human": human_size(fields[name]) for name in (*shown, "maxmemory")}
    return {
        **fields,
        **human,
        "maxmemory_policy": POLICY,
        "mem_fragmentation_ratio": f"{rss / max(used, 1):.2f}",
        "mem_fragmentation_bytes": rss - used,
        "mem_clients_normal": buffers,
        "mem_allocator": "libc",
        "lazyfree_pending_objects": 0,
    }


def _persistence(server: Server) -> Fields:
    saver = server.saver
    taking = saver.taking if saver is not None else None
    return {
        "loading": 0,
        "rdb_bgsave_in_progress": int(taking is not None),
        "rdb_last_save_time": int(saver.saved_at if saver is not None else server.started),
        "rdb_last_bgsave_status": "ok" if saver is None or saver.error is None else "err",
        "rdb_last_bgsave_time_sec": -1 if saver is None else round(saver.took),
        "rdb_current_bgsave_time_sec": -1 if taking is None else round(time.time() - taking),
        "rdb_saves": 0 if saver is None else saver.saves,
        "rdb_last_load_keys_expired": 0 if saver is None else saver.loaded.expired,
        "rdb_last_load_keys_loaded": 0 if saver is None else saver.loaded.entries,
        "aof_enabled": 0,
        "aof_rewrite_in_progress": 0,
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok",
    }


def _stats(server: Server) -> Fields:
    counts = server.counts()
    return {
        **{name: counts[name] - server.base.get(name, 0) for name in counts},
        "instantaneous_ops_per_sec": round(server.rates["total_commands_processed"]),
        "instantaneous_input_kbps": f"{server.rates['total_net_input_bytes'] / 1024:.2f}",
        "instantaneous_output_kbps": f"{server.rates['total_net_output_bytes'] / 1024:.2f}",
        "pubsub_channels": 0,
        "pubsub_patterns": 0,
        "latest_fork_usec": 0,
        "total_forks": 0,
        "unexpected_error_replies": 0,
    }


def _replication(server: Server) -> Fields:
    return {
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": server.run_id,
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
    }


def _cpu(server: Server) -> Fields:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": f"{children.ru_stime:.6f}",
        "used_cpu_user_children": f"{children.ru_utime:.6f}",
    }


def _commandstats(server: Server) -> Fields:
    """Calls of each command; how long they took is not measured: it would cost more than most."""
    calls, base = server.engine.calls(), server.base_calls
    return {
        f"cmdstat_{name.decode()}": f"calls={count - base.get(name, 0)},usec=0,usec_per_call=0.00,"
        f"rejected_calls=0,failed_calls={server.engine.commands[name].failed}"
        for name, count in sorted(calls.items())
        if count > base.get(name, 0)
    }


def _errorstats(server: Server) -> Fields:
    errors = server.engine.errors
    return {f"errorstat_{code}": f"count={count}" for code, count in sorted(errors.items())}


def _cluster(server: Server) -> Fields:
    return {"cluster_enabled": 0}


def _keyspace(server: Server) -> Fields:
    """Of several databases the numbers of keys that expire are estimates, by their shares."""
    sizes = server.keyspace.sizes(recent=True)
    total, expiring = max(sum(sizes.values()), 1), server.engine.expiring
    return {
        f"db{number}": f"keys={keys},expires={expiring * keys // total},avg_ttl=0"
        for number, keys in sizes.items()
    }


SECTIONS: dict[str, Callable[[Server], Fields]] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _stats,
    "Replication": _replication,
    "CPU": _cpu,
    "Commandstats": _commandstats,
    "Errorstats": _errorstats,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
}
NOT_BY_DEFAULT = {"Commandstats"}


@TABLE.command("info", -1, flags="loading stale")
def info(client: Client, args: list[bytes]) -> bytes:
    """INFO [section ...]; a proxy, of which only INFO cachecore is answered here, tells all."""
    server, wanted = client.engine.server, args[1:] if client.engine.server.proxy is None else []
    return text_of(server, [arg.decode(errors="replace").lower() for arg in wanted])


def text_of(server: Server, wanted: list[str]) -> bytes:
    """Sections of INFO; none wanted: those that Redis shows by default."""
    every = bool({"all", "everything"} & {*wanted})
    usual = not wanted or "default" in wanted
    parts, proxy = [], server.proxy
    sections = SECTIONS if proxy is None else {**SECTIONS, "Cachecore": lambda _: proxy.info()}
    for name, fields in sections.items():
        if every or name.lower() in wanted or (usual and name not in NOT_BY_DEFAULT):
            lines = [f"{field}:{value}" for field, value in fields(server).items()]
            parts.append("\r\n".join([f"# {name}", *lines, ""]))
    return "\r\n".join(parts).encode()


def resident_bytes() -> int:
    """Bytes of memory that the process has in RAM."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def human_size(size: float) -> str:
    """Bytes as Redis prints them: 1.50M."""
    for unit in "BKMGTP":
        if size < 1024 or unit == "P":
            break
        size /= 1024
    return f"{size:.0f}B" if unit == "B" else f"{size:.2f}{unit}"
