"""Clients of others: one in another language, redis-cli, redis-benchmark, hiredis."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from server.engines import array
from server.hosts import Host
from servers import redis_server

PERL = r"""
use strict; use warnings; use Redis;
my $r = Redis->new(server => "127.0.0.1:$ARGV[0]", encoding => undef, name => "perl");
die "ping" unless $r->ping;
$r->flushall;
my $all = join "", map { chr } 0 .. 255;
$r->set("bytes", $all);
die "bytes" unless $r->get("bytes") eq $all;
$r->mset(map { ("k$_" => "v$_") } 1 .. 500);
die "mget" unless join(",", $r->mget(map { "k$_" } 1 .. 500)) eq join(",", map { "v$_" } 1 .. 500);
die "absent" if defined $r->get("absent");
$r->hmset("h", a => 1, b => 2);
my %h = $r->hgetall("h");
die "hash" unless $h{a} == 1 && $h{b} == 2 && keys %h == 2;
die "ttl" unless $r->setex("s", 100, "x") && $r->ttl("s") > 90;
$r->multi; $r->incr("n"); $r->incrby("n", 41); my @done = $r->exec;
die "exec" unless "@done" eq "1 42";
my @seen; my $got = 0;
$r->set("p$_", $_, sub { $got++ }) for 1 .. 1000;
$r->get("p$_", sub { push @seen, $_[0] }) for 1 .. 1000;
$r->wait_all_responses;
die "pipeline" unless $got == 1000 && "@seen" eq join(" ", 1 .. 1000);
my ($cursor, %names) = (0);
do {
    ($cursor, my $some) = $r->scan($cursor, MATCH => "k*", COUNT => 50);
    $names{$_} = 1 for @$some;
} while $cursor;
die "scan" unless keys %names == 500;
eval { $r->incr("bytes") };
die "error: $@" unless $@ =~ /ERR value is not an integer or out of range/;
$r->quit;
print "done\n";
"""


@pytest.fixture(params=["alone", "proxy"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Of a server, and of one with a Redis behind."""
    redis = redis_server(tmp_path) if request.param == "proxy" else None
    behind: dict[str, Any] = (
        {} if redis is None else {"upstream": f"redis://127.0.0.1:{redis.port}"}
    )
    host = Host(tmp_path / "host", **behind)
    yield host.port
    host.kill()
    if redis is not None:
        redis.kill()


def said(*command: object, given: bytes = b"") -> str:
    """What a program printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=given, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_perl(port: int) -> None:
    assert said("perl", "-e", PERL, port) == "done\n"


def test_redis_cli(port: int) -> None:
    cli = ("redis-cli", "-p", port)
    assert said(*cli, "SET", "k", "v") == "OK\n"
    assert said(*cli, "-3", "HSET", "h", "f", "v") == "1\n"
    assert said(*cli, "-3", "HGETALL", "h") == "f v\n"
    assert said(*cli, "--json", "HGETALL", "h") == '{"f":"v"}\n'
    commands = b"".join(b"SET key:%d %b\r\n" % (at, b"v" * (1 + at % 300)) for at in range(10_000))
    assert "errors: 0, replies: 10000" in said(*cli, "--pipe", given=commands)
    assert len(said(*cli, "--scan", "--pattern", "key:*").split()) == 10_000
    assert "Biggest string found" in said(*cli, "--bigkeys")
    assert said(*cli, "-x", "SET", "raw", given=b"a\0b") == "OK\n"
    assert said(*cli, "STRLEN", "raw") == "3\n"
    assert said(*cli, "--no-raw", "GET", "absent") == "(nil)\n"


def test_redis_benchmark(port: int) -> None:
    tests = "ping_inline,ping_mbulk,set,get,incr,hset,mset"
    load = ("redis-benchmark", "-p", port, "-n", 2000, "-c", 20, "-r", 100, "--csv", "-t", tests)
    for more in ((), ("-P", "16"), ("-3",)):
        lines = said(*load, *more).splitlines()
        rates = [float(line.split('","')[1]) for line in lines if not line.startswith('"test"')]
        assert len(rates) == 7
        assert min(rates) > 0


def test_hiredis_reads_replies_in_any_pieces(port: int) -> None:
    packed = [array(b"SET", b"k", b"v" * 5000), *[array(b"MGET", b"k", b"absent", b"k")] * 50]
    reader = hiredis.Reader()
    replies: list[Any] = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.sendall(b"".join(packed))
        while len(replies) < 51:
            reader.feed(link.recv(777))
            while (reply := reader.gets()) is not False:
                replies.append(reply)
    assert replies == [b"OK", *[[b"v" * 5000, None, b"v" * 5000]] * 50]
