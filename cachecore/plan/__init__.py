"""How large a cache should be: the shipped policy on access logs."""

from cachecore.plan.curve import Curve, simulate_curve
from cachecore.plan.simulation import SimulationResult, simulate

__all__ = ["Curve", "SimulationResult", "simulate", "simulate_curve"]
