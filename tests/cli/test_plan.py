"""`cachecore plan`: its report, its JSON and its page, also in processes of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from cachecore.cli.group import cli
from cachecore.cli.svg import Axis, Series, chart
from cachecore.plan import analysis
from cachecore.units import duration, seconds_in, span
from plan.traces import skewed

COMMAND = [sys.executable, "-m", "cachecore", "plan"]
TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
MONEY = ["--gpu-time", "5ms", "--gpu-hour-price", "2.5", "--rate", "1000"]
NASTY = "<script>alert(1)</script>&\"'[bold].csv"


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], env=environment)


def run_json(*arguments: object) -> dict[str, Any]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert isinstance(report, dict)
    return report


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if libcachesim were not installed."""
    monkeypatch.setattr(analysis, "libcachesim_is_installed", lambda: False)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A skewed log with sizes and times under a name that is markup in HTML and on the terminal."""
    keys = skewed(40_000, 1 << 13, 1)
    rows = [f"<b>{key}</b>,{key * 37 % 4000 + 1},{at / 50}" for at, key in enumerate(keys.tolist())]
    path = tmp_path_factory.mktemp("logs") / NASTY.replace("/", ":")
    path.write_text("\n".join(["key,size,time", *rows]))
    return path


OUTCOME = (
    "entries memory_bytes hit_ratio error byte_hit_ratio cost_saved latency gpu_hours_a_day"
    " saved_a_day memory_a_day net_a_day"
).split()
FIELDS = {
    "": "log format requests complete sample_rate sizes_known traffic terms attainable curve"
    " policies byte_curve targets asked recommended chosen verdict notes",
    "traffic": "distinct_keys one_hit_keys one_hit_requests top_1_percent top_10_percent zipf"
    " object_bytes working_set_bytes seconds requests_per_second slices popularity",
    "terms": "value_bytes entry_bytes hit_latency miss_latency gpu_time gpu_hour_price"
    " memory_price rate assumed",
    "verdict": "worth_it why reason",
}


def test_json_has_the_fields_that_are_documented(log: Path) -> None:
    report = run_json(log, *MONEY, "--target", "0.5", "--target", "0.999", "--maxsize", 50)
    for name, fields in FIELDS.items():
        assert list(report[name] if name else report) == fields.split(), name
    assert list(report["traffic"]["zipf"]) == ["exponent", "first", "keys"]
    assert list(report["traffic"]["slices"][0]) == ["start", "distinct_keys", "new_keys"]
    assert list(report["targets"][0]) == ["hit_ratio", "outcome"]
    assert report["targets"][1]["outcome"] is None
    outcomes = [report["recommended"], report["targets"][0]["outcome"]]
    for outcome in (*report["curve"], *report["byte_curve"], *report["asked"], *outcomes):
        assert list(outcome) == OUTCOME
    assert (report["format"], report["requests"]) == ("csv", 40_000)
    assert report["terms"]["rate"] == 1000
    assert report["terms"]["assumed"] == ["hit_latency", "miss_latency", "memory_price"]
    assert report["traffic"]["requests_per_second"] == pytest.approx(50, rel=0.01)
    for ratios in report["policies"].values():
        assert len(ratios) == len(report["curve"])


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("options", [[], [*MONEY, "--max-bytes", "1MB"]])
def test_report_keeps_to_its_width(log: Path, width: int, options: list[str]) -> None:
    result = run(log, *options, COLUMNS=str(width))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    flat = " ".join(result.stdout.split())
    for words in ("Worth it.", "40,000", "Zipf exponent", "Hit ratio by entries", "byte hit ratio"):
        assert words in flat
    assert "assumed: 200 ns a hit (--hit-latency)" in flat
    assert 'need: pip install "cachecore-ml[plan]"' in flat
    assert ("net saving" in flat) == bool(options)
    assert max(cell_len(line.rstrip()) for line in result.stdout.splitlines()) <= width


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(f"key {n}" for n in range(5000)))
    result = run(tmp_path / "log")
    assert "Not worth it: few repeats. Only 0.0%" in result.stdout


class Page(HTMLParser):
    """Collects what a page is made of, and that each element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_escaped_and_needs_nothing_else(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    report = run_json(log, "--html", path, *MONEY, "--maxsize", 50)
    text = path.read_text()
    page = Page(text)
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))  # well-formed as XML, too
    assert page.tags.count("svg") == 5
    assert "script" not in page.tags
    assert "bold" not in page.tags
    assert "&lt;script&gt;" in text
    assert not re.search(r"https?:|//|@import|url\(", text)
    assert {"src", "href", "onload", "onclick"}.isdisjoint(dict(page.attributes))
    assert "prefers-color-scheme: dark" in text
    for number in (report["recommended"]["entries"], report["traffic"]["distinct_keys"]):
        assert f"{number:,}" in text
    for words in ("recommended", "Zipf&#x27;s law", "net saving", "assumed:", "in 30 days"):
        assert words in text
    for policy in report["policies"]:
        assert f">{policy}</li>" in text


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("text", ["a\n", "a\na\n", "a\nb\n", "a\nb\na\n" * 40])
def test_tiny_logs(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    result = run(tmp_path / "log", "--html", tmp_path / "page.html", "--max-bytes", "1GB")
    assert result.exit_code == 0, result.output
    Page((tmp_path / "page.html").read_text())


def test_charts_escape_and_keep_inside() -> None:
    x = Axis("<x>", 1, 1000, str, log=True)
    y = Axis("", 0, 9, "{:g}&".format)
    lines = [Series("<b>", "ours", [(1, 0), (1000, 9)]), Series("c", "lru", [(1, 5)], bars=True)]
    svg = chart("a & b", x, y, lines, ("<mark>", 30))
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("text")]
    assert {"<x>", "<mark>", "1.0", "10.0", "100.0", "1000.0"} <= set(texts)
    assert [tick for tick in texts if tick and tick[-1] == "&"] == ["0&", "2.5&", "5&", "7.5&"]
    for element in root.iter("circle"):
        assert 0 <= float(element.get("cx", "-1")) <= 760
        assert 0 <= float(element.get("cy", "-1")) <= 320


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--maxsize", "0"], "--maxsize must be"),
        (["--max-bytes", "4XB"], "--max-bytes must be"),
        (["--value-bytes", "nothing"], "--value-bytes must be"),
        (["--hit-latency", "5"], "--hit-latency must be a duration above 0 with its unit"),
        (["--miss-latency", "0ms"], "--miss-latency must be a duration above 0"),
        (["--gpu-time", "-1s"], "--gpu-time must be"),
        (["--gpu-hour-price", "3"], "needs the GPU time"),
    ],
)
def test_bad_options_are_one_line(log: Path, arguments: list[str], message: str) -> None:
    check_refused(run(log, *arguments), message)


def test_a_price_needs_a_rate(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\na\n")
    check_refused(run(tmp_path / "log", *MONEY[:4]), "needs a rate of requests")


@pytest.mark.parametrize("target", ["0", "1", "-0.5", "x"])
def test_bad_targets(log: Path, target: str) -> None:
    assert run(log, "--target", target).exit_code == 2


def test_bad_logs_and_pages_are_one_line(tmp_path: Path, log: Path) -> None:
    check_refused(run(tmp_path / "nothing"), "nothing: No such file or directory")
    (tmp_path / "log.csv").write_text("key,size\n")
    check_refused(run(tmp_path / "log.csv"), "log.csv: no request in it")
    (tmp_path / "log.csv").write_text("key,time\na,1\nb,late\n")
    check_refused(run(tmp_path / "log.csv"), "log.csv:3: time 'late' is no time")
    check_refused(run(log, "--html", tmp_path / "no" / "page"), "no such folder")


def check_refused(result: Result, message: str) -> None:
    """One line on stderr, nothing on stdout, exit code 2."""
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ns", 2e-7), (" 1.5 ms", 1.5e-3), ("3us", 3e-6), ("2min", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_in(text, "it") == pytest.approx(seconds)


def test_spans() -> None:
    seconds = [0, 0.005, 90, 120, 7200, 86_400 * 3]
    assert [span(n) for n in seconds] == ["0", "5 ms", "90 s", "2 min", "2 h", "3 days"]
    assert duration(0) == "0"


# --- processes ---


def in_process(code: str, *arguments: object, **options: Any) -> Any:
    """A run of the command line after `code`, which may take modules away."""
    main = "from cachecore.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", f"import sys; {code}\n{main}", "plan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


@pytest.mark.parametrize(
    ("module", "data", "what"),
    [("zstandard", b"\x28\xb5\x2f\xfd", "Zstandard"), ("pyarrow", b"PAR1", "Parquet")],
)
def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, module: str, data: bytes, what: str
) -> None:
    (tmp_path / "log").write_bytes(data * 4)
    done = in_process(f"sys.modules[{module!r}] = None", tmp_path / "log")
    assert (done.returncode, done.stdout) == (2, b"")
    message = f'log: {what} needs: pip install "cachecore-ml[plan]"\n'
    assert done.stderr.decode().endswith(message)


def test_base_and_cli_suffice(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", key=skewed(5_000, 1 << 10, 1))
    code = (
        "sys.modules.update(dict.fromkeys(['libcachesim', 'pyarrow', 'zstandard', 'matplotlib']))"
    )
    done = in_process(code, tmp_path / "log.npz", "--json", "--html", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, b"")
    report = json.loads(done.stdout)
    assert report["policies"] == {}
    assert "pip install" in report["notes"][0]
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_memory_does_not_grow_with_the_log() -> None:
    """A pipe of 10^7 requests for as many keys, of which a tenth may be held."""
    code = (
        "import cachecore.plan.trace as t; t.collect.__defaults__ = (1_000_000,);"
        "import cachecore.plan.analysis as a; a.libcachesim_is_installed = lambda: False;"
        "import atexit; atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()))"
    )
    writer = (
        "import sys\n"
        "for at in range(0, 10**7, 10**5):\n"
        "    sys.stdout.write('\\n'.join(f'key:{n}' for n in range(at, at + 10**5)) + '\\n')"
    )
    with subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE) as pipe:
        done = in_process(code, "-", "--json", stdin=pipe.stdout)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["requests"] == 10**7
    assert report["sample_rate"] <= 0.125
    assert report["traffic"]["distinct_keys"] == pytest.approx(10**7, rel=0.01)
    assert report["verdict"]["why"] == "few repeats"
    peak = re.search(rb"VmHWM:\s*(\d+) kB", done.stderr)
    assert peak is not None
    assert int(peak[1]) < 160 << 10  # 10^7 hashes alone are 80 MB


@pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real traces: {TRACES} is absent")
def test_real_trace() -> None:
    report = run_json(TRACES / "web12.npz")
    assert (report["requests"], report["traffic"]["distinct_keys"]) == (95_607, 13_756)
    assert report["traffic"]["one_hit_keys"] == pytest.approx(0.451, abs=0.001)
    assert report["verdict"]["worth_it"]
