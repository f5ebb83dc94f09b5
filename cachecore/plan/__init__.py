"""How large a cache should be: the shipped policy on access logs."""

from cachecore.plan.analysis import Outcome, Plan, Target, analyze
from cachecore.plan.curve import Curve, simulate_curve
from cachecore.plan.simulation import SimulationResult, simulate
from cachecore.plan.terms import Settled, Terms
from cachecore.plan.trace import Trace, collect, trace_of
from cachecore.plan.traffic import Slice, Traffic, Zipf
from cachecore.plan.verdict import Verdict

__all__ = [
    "Curve",
    "Outcome",
    "Plan",
    "Settled",
    "SimulationResult",
    "Slice",
    "Target",
    "Terms",
    "Trace",
    "Traffic",
    "Verdict",
    "Zipf",
    "analyze",
    "collect",
    "simulate",
    "simulate_curve",
    "trace_of",
]
