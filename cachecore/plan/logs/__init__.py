"""Access logs of many formats, all read as a stream of chunks of requests; one format a file."""

from cachecore.plan.logs.chunks import UNKNOWN, Chunk, Log, LogError
from cachecore.plan.logs.opening import FORMATS, Other, open_log

__all__ = ["FORMATS", "UNKNOWN", "Chunk", "Log", "LogError", "Other", "open_log"]
