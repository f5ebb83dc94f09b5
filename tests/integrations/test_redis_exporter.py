"""redis_exporter, which watches a Redis for Prometheus, watches our server as well."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from cachecore.tiers.testing import eventually
from server.hosts import Host
from servers import free_port


def test_redis_exporter(tmp_path: Path) -> None:
    host, port = Host(tmp_path, memory_limit="64MB"), free_port()
    for at in range(10):
        host.ask("SET", f"k{at}", "v", "EX", "1000")
    host.ask("GET", "k1")
    host.ask("GET", "absent")
    host.ask("INCR", "k1")
    command = ["prometheus-redis-exporter", f"-redis.addr=redis://127.0.0.1:{host.port}"]
    command += [f"-web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as exporter:
        found: dict[tuple[str, ...], float] = {}

        def answers() -> bool:
            try:
                with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
                    text = reply.read().decode()
            except URLError:
                return False
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found[sample.name, *sample.labels.values()] = sample.value
            return True

        eventually(answers)
        exporter.kill()
    host.kill()
    assert found["redis_up",] == 1
    assert found["redis_exporter_last_scrape_error", ""] == 0
    assert found["redis_keyspace_hits_total",] == 1
    assert found["redis_keyspace_misses_total",] == 1
    assert found["redis_db_keys", "db0"] == found["redis_db_keys_expiring", "db0"] == 10
    assert found["redis_memory_max_bytes",] == 64 << 20
    assert found["redis_memory_used_bytes",] > 1000
    assert found["redis_commands_total", "set"] == 10
    assert found["redis_evicted_keys_total",] == found["redis_expired_keys_total",] == 0
    assert found["redis_connected_clients",] >= 1
