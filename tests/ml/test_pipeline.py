"""Pipeline: which stages run for an input, and what a new version of a stage leaves alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.preprocessing import StandardScaler

from cachecore import TieredCache
from cachecore.ml import Pipeline, Stage
from cachecore.tiers import MmapTier
from support import Clock, yield_to_others

NAMES = ["clean", "embed", "score"]


class Noted:
    """Functions that note which of them ran, for which input."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Any]] = []

    def stage(self, name: str, version: str) -> Callable[[Any], Any]:
        """Appends its name and version to a text."""

        def function(value: str) -> str:
            self.ran.append((name + version, value))
            return f"{value}|{name}{version}"

        return function

    def pipeline(self, **options: Any) -> Pipeline:
        stages = [(name, self.stage(name, "1"), "1") for name in NAMES]
        return Pipeline(stages, **{"maxsize": 1_000} | options)

    def names(self) -> list[str]:
        names = [name for name, _ in self.ran]
        self.ran.clear()
        return names


ACTIONS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("abcd"), max_size=6),
        st.tuples(st.sampled_from(NAMES), st.sampled_from("123")),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(ACTIONS, st.sampled_from([1, 1_000]))
def test_any_sequence_of_runs_and_versions(actions: list[Any], maxsize: int) -> None:
    """The result is that of the present versions; with room, nothing is ever computed twice."""
    noted = Noted()
    pipeline = noted.pipeline(maxsize=maxsize)
    versions = dict.fromkeys(NAMES, "1")
    for action in actions:
        if isinstance(action, tuple):
            name, version = action
            if versions[name] != version:
                pipeline.replace(name, noted.stage(name, version), version=version)
                versions[name] = version
            assert [stage.version for stage in pipeline.stages] == list(versions.values())
        else:
            expected = "".join(f"|{name}{version}" for name, version in versions.items())
            assert pipeline.run_many(action) == [x + expected for x in action]
    if maxsize > 1:
        assert len(set(noted.ran)) == len(noted.ran)


def test_a_new_version_recomputes_from_its_stage_on() -> None:
    noted = Noted()
    pipeline = noted.pipeline()
    pipeline.run("x")
    assert noted.names() == ["clean1", "embed1", "score1"]
    pipeline.run("x")
    assert noted.names() == []
    pipeline.replace("score", noted.stage("score", "2"), version="2")
    pipeline.run("x")
    assert noted.names() == ["score2"]
    pipeline.replace("embed", noted.stage("embed", "2"), version="2")
    assert pipeline.run("x") == "x|clean1|embed2|score2"
    assert noted.names() == ["embed2", "score2"]
    pipeline.replace("clean", noted.stage("clean", "2"), version="2")
    pipeline.run("x")
    assert noted.names() == ["clean2", "embed2", "score2"]
    pipeline.replace("clean", noted.stage("clean", "1"), version="1")
    pipeline.run("x")
    assert noted.names() == [], "the results of the old version are still there"
    pipeline.clear()
    pipeline.run("x")
    assert noted.names() == ["clean1", "embed2", "score2"]


def test_keys() -> None:
    noted = Noted()
    pipeline = noted.pipeline()
    keys = {pipeline.key(x) for x in ("a", b"a", 1, 1.0, True, np.zeros(3), np.zeros(3, "f4"))}
    pipeline.replace("clean", noted.stage("clean", "2"), version="2")
    keys |= {pipeline.key("a"), noted.pipeline(salt=b"tenant").key("a")}
    swapped = [(name, noted.stage(name, "1"), "1") for name in ("embed", "clean", "score")]
    joined = [("cleanembed", len, "1"), ("score", len, "1")]
    keys |= {Pipeline(swapped, maxsize=1).key("a"), Pipeline(joined, maxsize=1).key("a")}
    assert len(keys) == 11
    assert {len(key) for key in keys} == {64}


def test_a_batch_stage_gets_what_is_new_once() -> None:
    asked: list[list[int]] = []

    def embed(values: list[int]) -> np.ndarray[Any, Any]:
        asked.append(values)
        return np.array(values)[:, None] * np.ones(3)

    def total(row: np.ndarray[Any, Any]) -> float:
        return float(row.sum())

    pipeline = Pipeline([Stage("embed", embed, 1, batch=True), ("total", total, 1)], maxsize=100)
    assert pipeline.run_many([3, 1, 3, 2]) == [9.0, 3.0, 9.0, 6.0]
    assert pipeline.run_many(iter([1, 5, 3, 5])) == [3.0, 15.0, 9.0, 15.0]
    assert asked == [[3, 1, 2], [5]]
    assert pipeline.run_many([]) == []


def test_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(200, 12))
    labels = rows[:, 0] > 0
    scale = StandardScaler().fit(rows)
    parts = [PCA(n, random_state=0).fit(scale.transform(rows)) for n in (4, 6)]
    models = [
        GradientBoostingClassifier(n_estimators=5, random_state=0).fit(
            part.transform(scale.transform(rows)), labels
        )
        for part in parts
    ]
    calls: list[str] = []

    def noted(name: str, call: Any) -> Any:
        def stage(values: list[Any]) -> Any:
            calls.append(name)
            return np.stack([call(np.asarray(value)[None])[0] for value in values])

        return stage

    pipeline = Pipeline(
        [
            Stage("scale", noted("scale", scale.transform), "1", batch=True),
            Stage("pca", noted("pca", parts[0].transform), "4", batch=True),
            Stage("score", noted("score", models[0].predict_proba), "4", batch=True),
        ],
        maxsize=1_000,
    )
    for at in (0, 1):
        if at:
            pipeline.replace("pca", noted("pca", parts[1].transform), version="6")
            pipeline.replace("score", noted("score", models[1].predict_proba), version="6")
        for _ in range(2):
            expected = models[at].predict_proba(parts[at].transform(scale.transform(rows)))
            np.testing.assert_allclose(pipeline.run_many(rows), expected, rtol=1e-9)
    assert calls == ["scale", "pca", "score", "pca", "score"]


def test_arrays_cannot_be_changed() -> None:
    def double(row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        row *= 2
        return row

    ones = Stage("ones", np.ones, 1)
    pipeline = Pipeline([ones], maxsize=10)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            pipeline.run(3)[0] = 2
    careless = Pipeline([ones, Stage("double", double, 1)], maxsize=10)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            careless.run(3)


async def coroutine(value: Any) -> Any:
    return value


class Fault:
    """A stage that fails until it is mended."""

    def __init__(self, fault: Any) -> None:
        self.fault = fault

    def __call__(self, values: list[Any]) -> Any:
        return self.fault(values) if self.fault is not None else [0.5] * len(values)


def gone(values: list[Any]) -> Any:
    raise ConnectionError("the device is gone")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (gone, ConnectionError, "the device is gone"),
        (lambda values: values[1:], ValueError, "'score' must return 3 results.*not 2"),
        (lambda values: [*values, 1], ValueError, "'score' must return 3 results.*not 4"),
        (lambda values: [1.0, float("nan"), 1.0], ValueError, "NaN for 1 of the 3.* first at 1"),
        (
            lambda values: np.array([[1], [1], [np.nan]]),
            ValueError,
            "NaN for 1 of the 3.* first at 2",
        ),
        (lambda values: [{"s": [np.nan]}, 1, 1], ValueError, "NaN for 1 of the 3.* first at 0"),
        (lambda values: None, TypeError, "must return a list or array, not NoneType"),
        (lambda values: "abc", TypeError, "must return a list or array, not str"),
        (lambda values: dict.fromkeys("abc"), TypeError, "a list or array, not dict"),
        (lambda values: set("abc"), TypeError, "a list or array, not set"),
        (lambda values: (1, 2, 3), TypeError, "a list or array, not tuple"),
        (lambda values: np.array(1.0), TypeError, "a list or array, not ndarray"),
        (lambda values: np.ma.ones(3), TypeError, "a list or array, not MaskedArray"),
        (lambda values: map(len, values), TypeError, "a list or array, not map"),
        (lambda values: [map(len, values)] * 3, TypeError, "'score' returned a map, which"),
        (lambda values: [coroutine(1) for _ in values], TypeError, "returned a coroutine, which"),
    ],
)
def test_nothing_is_kept_of_a_failure(fault: Any, error: type[Exception], message: str) -> None:
    noted = Noted()
    stage = Fault(fault)
    pipeline = Pipeline(
        [("clean", noted.stage("clean", "1"), "1"), Stage("score", stage, "1", batch=True)],
        maxsize=100,
    )
    for _ in range(2):
        with pytest.raises(error, match=message):
            pipeline.run_many(["a", "b", "c"])
    assert noted.names() == ["clean1"] * 3, "what lies before it is kept"
    stage.fault = None
    assert pipeline.run_many(["a", "b", "c"]) == [0.5] * 3
    assert noted.names() == []


def test_a_warning_points_at_the_caller() -> None:
    with pytest.warns(UserWarning, match="2033-01-05") as caught:
        pipeline = Pipeline([("a", len, "2033-01-05")], maxsize=1)
    with pytest.warns(UserWarning, match="2033-01-06") as again:
        pipeline.replace("a", len, version="2033-01-06")
    assert [each.filename for each in (*caught, *again)] == [__file__] * 2


def test_a_stage_may_allow_nan() -> None:
    features = Stage("features", lambda x: np.array([x, np.nan]), 1, allow_nan=True)
    pipeline = Pipeline([features, ("mean", lambda row: float(np.nanmean(row)), 1)], maxsize=10)
    assert pipeline.run(3.0) == 3.0
    pipeline.replace("mean", np.mean, version=2)
    with pytest.raises(ValueError, match="stage 'mean' returned NaN"):
        pipeline.run(3.0)


def test_lifetime() -> None:
    clock, noted = Clock(), Noted()
    pipeline = noted.pipeline(ttl=10, timer=clock)
    pipeline.run("x")
    clock.advance(11)
    noted.names()
    pipeline.run("x")
    assert noted.names() == ["clean1", "embed1", "score1"]


def test_over_a_cache_below(tmp_path: Path) -> None:
    for start, expected in ((0, ["clean1", "embed1", "score1"]), (1, []), (2, ["score2"])):
        noted = Noted()
        tier = MmapTier(str(tmp_path / "kept"), max_bytes="16MB")
        with TieredCache(100, tiers=[tier], namespace="pipeline") as below:
            pipeline = noted.pipeline(below=below)
            if start == 2:
                pipeline.replace("score", noted.stage("score", "2"), version="2")
            assert pipeline.run("x").startswith("x|clean1|embed1|score")
            assert noted.names() == expected


def test_threads_compute_once() -> None:
    noted = Noted()
    pipeline = noted.pipeline()
    begin = threading.Barrier(8)

    def work(seed: int) -> None:
        begin.wait(30)
        draw = np.random.default_rng(seed)
        for _ in range(30):
            inputs = [f"x{i}" for i in draw.integers(0, 200, 10)]
            yield_to_others()
            assert pipeline.run_many(inputs) == [f"{x}|clean1|embed1|score1" for x in inputs]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(set(noted.ran)) == len(noted.ran)


def test_a_run_ends_with_the_stages_it_began_with() -> None:
    noted = Noted()
    pipeline = noted.pipeline()

    def replacing(value: str) -> str:
        pipeline.replace("score", noted.stage("score", "3"), version="3")
        return value

    pipeline.replace("embed", replacing, version="2")
    assert pipeline.run("x") == "x|clean1|score1"
    pipeline.replace("embed", noted.stage("embed", "4"), version="4")
    assert pipeline.run("x") == "x|clean1|embed4|score3"


def test_savings_of_each_stage() -> None:
    noted = Noted()
    pipeline = noted.pipeline()
    pipeline.run_many(["a", "b", "a"])
    pipeline.replace("score", noted.stage("score", "2"), version="2")
    pipeline.run_many(["a", "b", "c", "c"])
    savings = pipeline.savings(gpu_cost_per_hour=1)
    counts = [
        (line.name, line.version, line.requests, line.rows, line.calls, line.rows_computed)
        for line in (*savings.lines, savings.total)
    ]
    assert counts == [
        ("clean", "1", 2, 7, 2, 3),
        ("embed", "1", 2, 7, 2, 3),
        ("score", "2", 2, 7, 2, 5),
        ("total", "", 2, 7, 6, 11),
    ]


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ([], ValueError, "stages must be at least one, each of another name"),
        ([("a", len, 1), ("a", len, 2)], ValueError, "each of another name"),
        ([("a", len)], TypeError, "must be tuples"),
        ([len], TypeError, "must be tuples"),
        ([Stage("a", len, 1, batch=1)], TypeError, "batch of stage 'a' must be a bool, not int"),  # type: ignore[arg-type]
        ([Stage("a", len, 1, allow_nan=None)], TypeError, "allow_nan of stage 'a' must be a bool"),  # type: ignore[arg-type]
        (5, TypeError, "stages must be an iterable of Stages or tuples, not int"),
        ([("", len, 1)], TypeError, "name must be a str"),
        ([(1, len, 1)], TypeError, "name must be a str"),
        ([("a", 3, 1)], TypeError, "function of stage 'a' must be callable, not int"),
        ([("a", coroutine, 1)], TypeError, "must not be a coroutine function"),
        ([("a", len, None)], TypeError, "version must be"),
    ],
)
def test_bad_stages(stages: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Pipeline(stages, maxsize=1)


def test_bad_arguments() -> None:
    noted = Noted()
    with pytest.raises(ValueError, match="maxsize or max_bytes is required"):
        noted.pipeline(maxsize=None)
    with pytest.raises(TypeError, match="below must be a TieredCache"):
        noted.pipeline(below={})
    pipeline = noted.pipeline()
    with pytest.raises(KeyError, match="nothing"):
        pipeline.replace("nothing", len, version=2)
    with pytest.raises(ValueError, match="version must be another than that of stage 'clean', '1'"):
        pipeline.replace("clean", len, version="1")
    with pytest.raises(TypeError, match="must be callable"):
        pipeline.replace("clean", 3, version="2")  # type: ignore[arg-type]
    assert pipeline.run("x") == "x|clean1|embed1|score1"
    with pytest.raises(TypeError):
        pipeline.run(object())
    with pytest.raises(TypeError, match="xs must be an iterable of inputs, not str"):
        pipeline.run_many("text")
