"""What goes to the upstream and comes back: order, verbatim replies, modes, backpressure."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from cachecore.tiers.testing import eventually
from server.hosts import resident
from server.proxy.conftest import Start
from server.proxy.proxies import ProxyProcess, Wire, client
from servers import Server, redis_server


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = redis_server(tmp_path_factory.mktemp("upstream"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def proxy(upstream: Server) -> Iterator[ProxyProcess]:
    one = ProxyProcess(f"redis://127.0.0.1:{upstream.port}")
    yield one
    one.close()


@pytest.fixture(autouse=True)
def _empty(upstream: Server) -> None:
    with client(upstream.port) as some:
        some.flushall()


@pytest.fixture
def wire(proxy: ProxyProcess) -> Iterator[Wire]:
    one = Wire(proxy.port)
    yield one
    one.close()


CONVERSATIONS = {  # commands, one a line
    "strings": """
        SET k 1; GET k; GET k; MGET k none k; STRLEN k; EXISTS k; GET none
    """,
    "empty": """
        SET k ''; GET k; GET k; STRLEN k; EXISTS k
    """,
    "hashes": """
        HSET h a 1 b 2; HGETALL h; HGET h a; HMGET h a z; HLEN h; HEXISTS h z; HKEYS h;
        HVALS h; HSTRLEN h a; HGETALL none; HGET none a
    """,
    "hashes in RESP3": """
        HELLO 3 SETNAME x; HSET h a 1; HGETALL h; HGETALL h; GET none; HGETALL none; HGET h z
    """,
    "wrong kinds": """
        LPUSH l 1; GET l; HGETALL l; STRLEN l; MGET l; EXISTS l; SET s 1; GET s; HGET s f;
        HSET h a 1; HGET h a; GET h; MGET h s
    """,
    "arguments": """
        GET; GET a b; HGET h; MGET; NOSUCH a; SET k; HGETALL a b
    """,
    "transactions": """
        MULTI; SET k 1; GET k; EXEC; GET k; MULTI; GET k; DISCARD; EXEC; WATCH k; GET k;
        SET k 2; MULTI; GET k; EXEC; GET k; MULTI; NOSUCH; EXEC
    """,
    "databases": """
        SET k 0; GET k; SELECT 3; GET k; SET k 3; GET k; SELECT 0; GET k; SELECT 99; GET k;
        SELECT 3; GET k; MOVE k 0; COPY k k DB 4
    """,
    "in a transaction": """
        SET k 0; MULTI; SELECT 3; SET k 3; EXEC; GET k; GET k
    """,
    "scripts": """
        SET k 1; GET k; EVAL "return redis.call('set', 'k', '2')" 0; GET k
    """,
    "flushed": """
        SET k 1; GET k; FLUSHDB; GET k; SET k 1; GET k; FLUSHALL; GET k
    """,
    "swapped": """
        SET k 1; GET k; SELECT 1; SET k 2; GET k; SWAPDB 0 1; GET k; SELECT 0; GET k
    """,
    "expired": """
        SET k 1 PX 1; BLPOP none 0.02; GET k; SET k 1; GET k; PEXPIRE k 1; BLPOP none 0.02;
        GET k; GET k
    """,
    "no replies": """
        SET k 1; GET k; CLIENT REPLY SKIP; GET k; CLIENT REPLY OFF; SET k 2; GET k;
        CLIENT REPLY ON; GET k
    """,
    "lifetimes": """
        SET k 1; TTL k; GET k; PTTL k; TTL none; SET k 1 EX 100; GET k; TTL k; PERSIST k;
        TTL k; GET k
    """,
    "reset": """
        SELECT 3; HELLO 3; RESET; GET none; SET k 1; GET k
    """,
}


@pytest.mark.parametrize("topic", CONVERSATIONS)
@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_says_what_the_upstream_says(
    topic: str, together: bool, proxy: ProxyProcess, upstream: Server
) -> None:
    """Whether commands come in one piece, and are forwarded, or one by one, and are not."""
    answers = []
    for port in (proxy.port, upstream.port):
        with client(upstream.port) as some:
            some.flushall()
        lines = [line.strip() for line in CONVERSATIONS[topic].split(";")]
        answers.append(masked(conversation(port, lines, together)))
    assert answers[0] == answers[1]


def conversation(port: int, lines: list[str], together: bool) -> bytes:
    """What is answered to these lines, some of which have no reply of their own."""
    wire, answer = Wire(port), b""
    raw = [f"{line}\r\n".encode() for line in lines]
    for piece in [b"".join(raw)] if together else raw:
        wire.send(piece)
        if not together:
            time.sleep(0.01)  # a reply has come, if there is one
    wire.send(b"ECHO the-end\r\n")
    while not answer.endswith(b"the-end\r\n"):
        answer += wire.line()
    wire.close()
    return answer


def masked(answer: bytes) -> bytes:
    """Without HELLO's number of the connection."""
    lines = answer.split(b"\r\n")
    numbers = [at + 1 for at, line in enumerate(lines) if line == b"id"]
    return b"\r\n".join(b"ID" if at in numbers else line for at, line in enumerate(lines))


def test_pipelines_keep_their_order(proxy: ProxyProcess, upstream: Server) -> None:
    """Local hits, fills and forwarded commands in one pipeline, of several clients at a time."""
    with client(upstream.port) as some:
        some.mset({f"k{at}": f"v{at}" for at in range(1000)})
    faults = []

    def talk(who: int) -> None:
        with proxy.client() as some:
            for round_ in range(20):
                pipe = some.pipeline(transaction=False)
                expected: list[object] = []
                for at in range(40):
                    number = (who * 131 + round_ * 17 + at * at) % 1000
                    if at % 7 == 3:
                        pipe.echo(str(number))
                        expected.append(str(number).encode())
                    elif at % 11 == 5:
                        pipe.set(f"own{who}", number)
                        pipe.get(f"own{who}")
                        expected += [True, str(number).encode()]
                    elif at % 5 == 1:
                        pipe.mget(f"k{number}", "none")
                        expected.append([f"v{number}".encode(), None])
                    else:
                        pipe.get(f"k{number}")
                        expected.append(f"v{number}".encode())
                if (got := pipe.execute()) != expected:
                    faults.append((got, expected))

    threads = [threading.Thread(target=talk, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    facts = proxy.info()
    assert facts["fills"] > 0
    assert facts["forwarded"] > 0


def test_hits_do_not_reach_the_upstream(proxy: ProxyProcess, upstream: Server) -> None:
    with client(upstream.port) as behind, proxy.client() as some:
        behind.set("s", "x")
        behind.hset("h", mapping={"f": "y"})
        for _ in range(2):
            assert some.get("s") == b"x"
            assert some.hgetall("h") == {b"f": b"y"}
        before = behind.info("commandstats")
        for _ in range(50):
            assert some.get("s") == b"x"
            assert some.mget("s", "s") == [b"x", b"x"]
            assert some.hget("h", "f") == b"y"
            assert some.exists("s") == 1
        after = behind.info("commandstats")
        for name in ("get", "getrange", "mget", "hget", "hscan", "exists"):
            assert after.get(f"cmdstat_{name}") == before.get(f"cmdstat_{name}"), name


def test_expires_with_the_upstream(proxy: ProxyProcess, upstream: Server) -> None:
    with client(upstream.port) as behind, proxy.client() as some:
        behind.config_set("hz", 1)  # it notices by itself late
        behind.set("k", 1, px=200)
        assert some.get("k") == b"1"
        eventually(lambda: some.get("k") is None)
        assert behind.get("k") is None


def test_large_values_pass_but_are_not_kept(start: Start, upstream: Server) -> None:
    proxy = start(max_value=1000, max_fields=10)
    with proxy.client() as some:
        some.set("exact", b"x" * 1000)
        some.set("large", b"y" * 1001)
        some.hset("wide", mapping={f"f{at}": at for at in range(600)})
        for _ in range(3):
            assert some.get("exact") == b"x" * 1000
            assert some.get("large") == b"y" * 1001
            assert len(some.hgetall("wide")) == 600
            assert some.mget("large", "exact") == [b"y" * 1001, b"x" * 1000]
        some.set("large", b"small now")
        fills = proxy.info()["fills"]
        assert some.get("large") == b"small now"
        assert some.get("large") == b"small now"
        assert proxy.info()["fills"] == fills + 1


def test_hashes_count_for_what_they_hold(start: Start, upstream: Server) -> None:
    """A cache of 1 MB does not hold 100 hashes of 30 KB: most are fetched again."""
    proxy = start(memory_limit=1 << 20)
    with client(upstream.port) as behind, proxy.client() as some:
        for at in range(100):
            behind.hset(f"h{at}", "f", b"x" * 30_000)
        for _ in range(2):
            assert all(some.hlen(f"h{at}") == 1 for at in range(100))
        assert proxy.info()["fills"] > 150


def test_who_authenticates_is_not_served_from_the_cache(
    proxy: ProxyProcess, upstream: Server
) -> None:
    with client(upstream.port) as behind, proxy.client() as some:
        behind.set("k", 1)
        behind.acl_setuser(
            "narrow",
            enabled=True,
            passwords=["+pass"],
            keys=["other*"],
            commands=["+get", "+hello"],
        )
        assert some.get("k") == b"1"
        wire = Wire(proxy.port)
        wire.send(b"AUTH narrow wrong\r\nGET k\r\nAUTH narrow pass\r\nGET k\r\n")
        assert wire.line().startswith(b"-WRONGPASS")
        assert wire.read(7) == b"$1\r\n1\r\n"
        assert wire.line() == b"+OK\r\n"
        assert wire.line().startswith(b"-NOPERM")
        wire.send(b"GET k\r\n")
        assert wire.line().startswith(b"-NOPERM")
        wire.close()


def test_with_the_proxys_own_password_it_is(upstream: Server, start: Start) -> None:
    with client(upstream.port) as behind:
        behind.set("k", 1)
        behind.config_set("requirepass", "secret")
        proxy = start(f"redis://:secret@127.0.0.1:{upstream.port}")
        with proxy.client(password="secret") as some:
            assert [some.get("k") for _ in range(3)] == [b"1"] * 3
        assert proxy.info()["fills"] == 1
        behind.config_set("requirepass", "")


@pytest.mark.parametrize("queued", [False, True])
def test_swapped_databases(queued: bool, proxy: ProxyProcess) -> None:
    """Redis does not tell who tracks; the proxy drops all that it has."""
    with proxy.client() as zero, proxy.client(db=1) as one:
        for some, value in ((zero, "0"), (one, "1")):
            some.set("k", value)
            fills = proxy.info()["fills"]
            eventually(lambda: some.get("k") and proxy.info()["fills"] > fills)  # noqa: B023
        if queued:
            zero.pipeline().swapdb(0, 1).execute()
        else:
            zero.swapdb(0, 1)
        assert [zero.get("k"), one.get("k")] == [b"1", b"0"]


def test_subscribers_in_both_protocols(proxy: ProxyProcess, upstream: Server) -> None:
    for protocol in (2, 3):
        with proxy.client(protocol=protocol) as some, proxy.client() as other:
            listener = some.pubsub()
            listener.subscribe("a", "b")
            kinds = [listener.get_message(timeout=5)["type"] for _ in range(2)]
            assert kinds == ["subscribe", "subscribe"]
            assert other.publish("b", "hello") == 1
            assert listener.get_message(timeout=5)["data"] == b"hello"
            listener.unsubscribe()
            kinds = [listener.get_message(timeout=5)["type"] for _ in range(2)]
            assert kinds == ["unsubscribe", "unsubscribe"]
            listener.close()


def test_a_blocked_client_keeps_nobody_waiting(proxy: ProxyProcess) -> None:
    got = []
    with proxy.client() as some, proxy.client() as other:
        waiter = threading.Thread(target=lambda: got.append(some.blpop("list", timeout=10)))
        waiter.start()
        eventually(lambda: other.info("clients")["blocked_clients"] == 1)
        other.lpush("list", "x")
        waiter.join()
    assert got == [(b"list", b"x")]


def test_who_leaves_while_blocked_takes_nothing(proxy: ProxyProcess) -> None:
    with proxy.client() as other:
        for at in range(5):
            wire = Wire(proxy.port)
            wire.send(b"BLPOP list 0\r\n")
            eventually(lambda: other.info("clients")["blocked_clients"] == 1)
            if at % 2:
                wire.close()
            else:
                wire.sock.shutdown(socket.SHUT_WR)
            eventually(lambda: other.info("clients")["blocked_clients"] == 0)
            wire.close()
        assert other.rpush("list", "x") == 1
        assert other.llen("list") == 1


def test_client_tracking_of_a_client_works(proxy: ProxyProcess, upstream: Server) -> None:
    wire = Wire(proxy.port)
    with client(upstream.port) as behind:
        wire.send(b"HELLO 3\r\nCLIENT TRACKING ON\r\nGET k\r\nPING\r\n")
        while wire.line() != b"+PONG\r\n":
            pass
        behind.set("k", 2)
        assert [wire.line() for _ in range(5)] == [
            b">2\r\n", b"$10\r\n", b"invalidate\r\n", b"*1\r\n", b"$1\r\n",
        ]  # fmt: skip
    wire.close()


def test_quit_and_a_closed_upstream_close_the_client(proxy: ProxyProcess, wire: Wire) -> None:
    wire.send(b"SET k 1\r\nQUIT\r\n")
    assert wire.line() == b"+OK\r\n"
    assert wire.line() == b"+OK\r\n"
    assert wire.closed()


def test_who_does_not_read_does_not_fill_the_proxys_memory(start: Start, upstream: Server) -> None:
    """Replies of 120 MB in all, too large to be cached, to a client that reads nothing."""
    proxy = start(max_value=100_000)
    with client(upstream.port) as behind:
        behind.set("big", b"x" * (3 << 20))
        wire = Wire(proxy.port)
        before = resident(proxy.process.pid)
        wire.send(b"GET big\r\n" * 40)
        time.sleep(0.5)  # it could take all of it
        assert resident(proxy.process.pid) < before + (30 << 20)
        for _ in range(40):
            assert wire.line() == b"$3145728\r\n"
            assert wire.read((3 << 20) + 2) == b"x" * (3 << 20) + b"\r\n"
        wire.close()


def test_an_upstream_that_does_not_read_does_not_fill_it_either(
    proxy: ProxyProcess, upstream: Server
) -> None:
    import signal

    wire = Wire(proxy.port)
    wire.send(b"SET k 0\r\n")
    assert wire.line() == b"+OK\r\n"
    upstream.send(signal.SIGSTOP)
    value = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n" + b"x" * 100_000 + b"\r\n"
    wire.sock.settimeout(1)
    sent = 0
    try:
        for _ in range(3000):
            wire.send(value)
            sent += 1
    except TimeoutError:
        pass
    assert sent < 1000
    assert resident(proxy.process.pid) < 200 << 20
    upstream.send(signal.SIGCONT)
    wire.sock.settimeout(10)
    assert [wire.line() for _ in range(sent)] == [b"+OK\r\n"] * sent
    wire.close()


def test_errors_are_redis_errors(proxy: ProxyProcess) -> None:
    with proxy.client() as some, pytest.raises(redis.ResponseError, match="unknown command"):
        some.execute_command("NOSUCH")
