"""Tiered: what a look-up does when the process's own memory does not have the answer.

A hit is C (src/python/cc_tiered.c). Here is the miss: one body of logic, `Tiered.steps`, a
generator that yields what is to be asked of tiers and of the loader. A thread runs it by `drive`,
an event loop by tiers/tasks.py. The rest of a TieredCache is Python (tiers/tiered.py).

Single flight: `flights` has, for each key that is being loaded or written, its Load. Who finds one
there waits for it. A load whose key is no longer its own in `flights` has been overtaken by a write
or an invalidation: what it brings is returned to those who waited for it, and kept nowhere. Between
two steps that belong together no Python code runs, so the GIL makes them one.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.math cimport INFINITY, log
from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from cachecore._arrays cimport is_array, snapshot
from cachecore._core cimport Cache, put
from cachecore._envelope cimport Sealed, joined, opened
from cachecore._load cimport OP_GET, OP_RUN, OP_WAIT, Latencies, Level, Load, Tagged
from cachecore._load cimport claim, land
from cachecore.cc_slots cimport cc_owned
from cachecore.cc_table cimport *
from cachecore.cc_tiered cimport cc_clock_unix_ms, cc_counted_hit, cc_key_is_plain, cc_nanoseconds
from cachecore.cc_tiered cimport cc_tiered_install, cc_tiered_own_get

import random

cdef extern from "Python.h":
    # The result is a new reference; an exception is set: -1.
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object steps, object sent, PyObject **result) except PYGEN_ERROR

from cachecore.sentinel import MISSING
from cachecore.settings import sequence_of

NEVER = INT64_MAX  # for Python
GENERATION_MS = BELIEVED_MS  # how long a generation that was read is believed

cdef enum:
    SAME_MS = 20  # by which times that went through two clocks may differ

cdef double FAR_SECONDS = 3e9  # as good as never, and finite
cdef object FETCH = object()  # of `look`: it must be asked for


# --- the cache ------------------------------------------------------------------------------------

cdef class Tiered:
    """The compiled part of TieredCache: look-ups, loads, and what keeps them apart."""

    def __cinit__(self, *args, **kwargs):
        self.l0 = Cache(1)
        self.slow = 1  # until __init__ is through
        self.flights = {}
        self.levels = []
        self.tag_epochs = {}
        self.leaving = {}
        self.load_latencies = Latencies()

    cdef int64_t now(self) except? -1:
        if self.timer is not None:
            return <int64_t>(<double>self.timer() * 1000 + 0.5)
        return cc_clock_unix_ms()

    cdef int64_t clock_ahead(self) except? -1:
        """Unix ms less the ms of the innermost cache's clock."""
        cdef int64_t now
        cc_table_now(&self.l0.table, &now)
        return self.now() - now

    def now_ms(self):
        """The time, in Unix ms."""
        return self.now()

    # --- look-ups

    def get_many(self, keys, default=None):
        """The values of an iterable of keys, as a list aligned with it; `default` where absent.

        What is not here is asked of each tier in one call, and the rest of the loader in one. What
        the loader raised for some of the keys is raised when the others have been kept.
        """
        cdef Py_ssize_t i
        cdef list values, missing = []
        nothing = MISSING
        fast = sequence_of(keys)
        self.check_keys(fast)
        if self.slow:
            values = [nothing] * len(fast)
            self.l0.table.misses += len(values)
        else:
            values = self.l0.get_many(fast, nothing)
        for i in range(len(values)):
            if values[i] is nothing:
                missing.append(i)
        if missing:
            found = self.missed_many([fast[i] for i in missing])
            for i in missing:
                value = found[fast[i]]
                values[i] = default if value is nothing else value
        return values

    def missed_many(self, keys):
        """The values of keys that the innermost cache does not tell, a dict; for threads."""
        cdef Load load = Load()
        cdef dict found
        self.check_open()
        found, rest = self.look_many(keys, load)
        if self.awaits and (rest or load.refresh is not None):
            self.check_caller()
        if rest:
            loaded = run(self, self.fetch(rest, load))
            if found:
                found.update(loaded)
            else:
                found = loaded
        if load.refresh is not None:
            self.refresh_later(load.refresh)
        return found

    def here(self, key):
        """A hit, or MISSING."""
        if not cc_key_is_plain(key):
            raise no_key(key)
        if self.slow:
            self.l0.table.misses += 1
            return MISSING
        return self.l0.get(key, MISSING)

    def check_keys(self, keys):
        """TypeError if one of them is none."""
        for key in keys:
            if not cc_key_is_plain(key):
                raise no_key(key)

    def check_open(self):
        """ValueError if it is closed."""
        if self.closed:
            raise ValueError("this cache is closed")

    def check_caller(self):
        """Raises what there is to say against a synchronous call."""
        self.check_open()
        if self.awaits:
            raise TypeError("the loader is a coroutine function: use the asynchronous methods")

    def look_many(self, keys, Load load):
        """What is known of keys without asking anyone, a dict, and a list of the others."""
        cdef dict found = {}
        cdef list rest = []
        for key in dict.fromkeys(keys):
            value = self.look(key, load)
            if value is FETCH:
                rest.append(key)
            else:
                found[key] = value
        return found, rest

    cdef object look(self, object key, Load load):
        """What is known of a key without asking anyone: its value, or MISSING, or FETCH. A miss has
        been counted. Notes what is to be refreshed, and what to return if the loader fails."""
        cdef int64_t table_now, now, soft
        cdef cc_record *record
        cdef cc_table *table = &self.l0.table
        cdef Tagged tagged
        if (not self.distrusted
                and cc_table_peek(table, <PyObject *>key, &table_now, &record) == CC_FOUND):
            if not cc_table_stale(table, record, table_now):
                table.misses -= 1
                return cc_counted_hit(table, record)
            value = <object>cc_record_value(record)
            soft = cc_table_deadline(table, record) - table_now
            now = self.now()
            if type(value) is not Tagged:
                soft += now - max(self.revalidate_ms, self.error_ms)
                return self.stale(key, value, soft, now, load)
            tagged = <Tagged>value
            for tag in tagged.tags:
                if self.tag_epochs.get(tag, 0) > tagged.epoch:
                    self.l0.delete(key)
                    return FETCH
            if now < tagged.soft:
                table.misses -= 1
                table.policy.tick += 1  # a hit; the entry's own count is left alone
                return tagged.value
            return self.stale(key, tagged.value, tagged.soft, now, load)
        if self.leaving and not self.distrusted:
            left = self.leaving.pop(key, None)
            now = self.now()
            if left is not None and now < left[1]:
                return self.put_here(key, left[0], now, left[2], left[1], left[3])
        if self.absent is not None and key in self.absent:
            self.negative_hits += 1
            return MISSING
        return FETCH

    cdef object stale(self, object key, object value, int64_t soft, int64_t now, Load load):
        """A value that is to be refreshed, if it may be returned meanwhile; else FETCH."""
        if load.known is None:
            if now < soft:
                self.early_refreshes += 1
            elif now < soft + self.revalidate_ms:
                self.stale_revalidated += 1
            elif now < soft + self.error_ms and key in self.cooling:
                self.stale_errors += 1
                return value
            else:
                if now < soft + self.error_ms:
                    load.remember(key, value)
                return FETCH
            other = self.flights.get(key)
            if (other is None or other is load) and key not in self.cooling:
                if load.refresh is None:
                    load.refresh = {}
                load.refresh[key] = soft
            return value
        load.remember(key, value)
        return FETCH

    # --- flights

    def claim(self, Load load, list keys):
        """The keys that nobody has under way, now ours; and (key, load) of the others."""
        return claim(self.flights, load, keys)

    def land(self, Load load, keys):
        """End a load: its keys are free, and who waited goes on."""
        land(self.flights, load, keys)

    def overtake(self, keys):
        """Have what is being loaded for these keys kept nowhere, or taken away from tiers again."""
        cdef Load load
        for key in keys:
            load = self.flights.get(key)
            if load is not None and load.writing:
                load.voided = load.voided or set()
                load.voided.add(key)
            elif load is not None:
                del self.flights[key]

    cdef bint holds(self, Load load, object key) except -1:
        """Whether what a load brings for a key is to be kept."""
        return self.flights.get(key) is load and (load.voided is None or key not in load.voided)

    # --- a fetch, for threads and for tasks

    def fetch(self, list keys, Load load):
        """A generator that returns the values of keys, a dict, whoever loads them."""
        cdef dict found, values = {}
        cdef list mine, others, rest = keys
        cdef Load other
        error = None
        while rest:
            mine, others = self.claim(load, rest)
            if mine:
                yield OP_RUN, load, mine
                if values:
                    values.update(load.values)
                else:
                    values = load.values
                error = load.error() or error
            rest = []
            for key, other in others:
                if not (yield OP_WAIT, None, other):  # its end depends on this call's
                    other = Load()
                    yield OP_RUN, other, [key]
                if (other.failure is not None or other.write
                        or (other.voided is not None and key in other.voided)):
                    rest.append(key)
                elif other.errors is not None and key in other.errors:
                    error = other.errors[key]
                else:
                    values[key] = other.values.get(key, MISSING)
            if rest:
                load = Load()
                found, rest = self.look_many(rest, load)
                values.update(found)
        if error is not None:
            raise error
        return values

    def steps(self, Load load, list keys):
        """A generator that looks for keys in the tiers, has the others loaded, and keeps them."""
        cdef int64_t now = self.now(), begin
        cdef Level level
        cdef list rest = keys, ask, found, wires, failed = []
        cdef Py_ssize_t at, i, count
        cdef bint partly
        load.values = {}
        for at in range(len(self.levels)):
            if not rest:
                break
            level = <Level>self.levels[at]
            ask, left = rest, []
            if self.distrusted and not level.tier.shared:
                failed.append(level)  # it is told by the same sources
                continue
            if level.ledger is not None:
                ask, left = level.ledger.readable(rest)
                left = self.owed_here(load, level, left, now)
                if left:
                    failed.append(level)  # nobody knows what it should have
                rest = ask + left
                if not ask:
                    continue
            wires = [joined(self.prefix, key) for key in ask]
            count = len(wires)
            if not self.raw and now - level.generation_read >= BELIEVED_MS:
                wires.append(level.generation_key)
            begin, partly = cc_nanoseconds(), False
            try:
                datas = yield OP_GET, level, wires
                level.latencies.add((cc_nanoseconds() - begin) * 1e-9)
            except Exception as error:
                level.failed(error)
                failed.append(level)
                datas, partly = getattr(error, "values", None), True
            if datas is None or len(datas) != len(wires):
                continue
            if len(wires) > count and not (partly and datas[count] is None and level.generation):
                try:
                    yield from self.generation_found(level, datas[count], now)
                except Exception as error:
                    level.failed(error)
                    failed.append(level)
                    continue
            found, rest = [], left
            for i in range(count):
                data = datas[i]
                if data is None:
                    rest.append(ask[i])
                elif self.accept(load, ask[i], data, now, level):
                    found.append(ask[i])
                else:
                    sealed = load.doubtful
                    if (sealed is not None
                            and (yield from self.tags_hold(level, sealed.tags, now))
                            and self.take(load, ask[i], sealed, now)):
                        found.append(ask[i])
                    else:
                        rest.append(ask[i])
            level.hits += len(found)
            level.misses += count - len(found)
            if found and (at > 0 or level.exclusive):
                yield from self.climb(load, found, at, failed, now)
        if rest:
            yield from self.load_rest(load, rest, failed)

    cdef bint accept(self, Load load, object key, object data, int64_t now, Level level) except -1:
        """Keeps what a tier had, if it is good. False with `doubtful`: look at its tags first."""
        load.doubtful = None
        level.bytes_read += len(data)
        if self.raw:
            soft, hard = self.lifetimes(now, None)
            if load.sealed is None:
                load.sealed = {}
            load.sealed[key] = self.sealed_now(now, soft, hard)
            self.keep(load, key, data, now, soft, hard, soft)
            return True
        found = opened(data, key, self.codec, now, level.generation, self.prefix)
        if type(found) is not Sealed:
            level.refused[found] = level.refused.get(found, 0) + 1
            return False
        if (<Sealed>found).tags:
            load.doubtful = found
            return False
        return self.take(load, key, <Sealed>found, now)

    def accept_late(self, Load load, key, data, int64_t now, Level level):
        """Keep what a tier had, if it is good and has no tags; whether it is."""
        return self.accept(load, key, data, now, level)

    cdef bint take(self, Load load, object key, Sealed sealed, int64_t now) except -1:
        """Keeps what a tier had, unless it is too old."""
        cdef int64_t soft = sealed.soft, hard = sealed.hard, due
        cdef double spent
        # Whoever wrote it may have another policy.
        cdef int64_t most = max(self.revalidate_ms, self.error_ms)
        if soft < hard - most:
            hard = soft + most
            if hard <= now:
                return False
        due = soft
        if load.known is not None and soft <= <int64_t>load.known[key] + SAME_MS:
            load.remember(key, sealed.value)
            return False
        if self.early != 0 and soft != INT64_MAX:
            spent = sealed.load
            if 0 <= spent < FAR_SECONDS:  # whoever writes to a tier may write anything
                due -= self.ahead(spent)
        if now >= due:
            if self.stale(key, sealed.value, soft, now, load) is FETCH:
                return False
            due = now
        if len(self.levels) > 1 or (<Level>self.levels[0]).exclusive:
            if load.sealed is None:
                load.sealed = {}
            load.sealed[key] = sealed
        self.keep(load, key, sealed.value, now, soft, hard, due, sealed.tags)
        return True

    cdef object keep(self, Load load, object key, object value, int64_t now, int64_t soft,
                     int64_t hard, int64_t due, tuple tags=()):
        """Keeps a value in the innermost cache, unless it was overtaken; notes it as the outcome.
        `due`: when it is to be refreshed, in ms as the others; at the latest at `soft`."""
        cdef Tagged tagged
        if is_array(value):
            value = snapshot(value)
        load.values[key] = value
        if self.distrusted or self.closed or not self.holds(load, key):
            self.overtaken += not self.holds(load, key)
            return None
        if self.absent is not None:
            self.absent.delete(key)
        if self.leaving:
            self.leaving.pop(key, None)
        if tags:
            tagged = Tagged()
            tagged.value, tagged.soft, tagged.epoch = value, soft, self.epoch
            tagged.tags = tuple([tag for tag, _ in tags])
            value, due = tagged, now
        self.put_here(key, value, now, hard, due)
        return None

    cdef object put_here(self, object key, object value, int64_t now, int64_t hard, int64_t due,
                         uint32_t frequency=0):
        """Puts a value into the innermost cache, and returns it as it is kept there."""
        cdef double ttl = FAR_SECONDS if hard == INT64_MAX else (hard - now) / 1000.0
        cdef double wait = 0 if due >= hard else -1 if due <= now else (due - now) / 1000.0
        if wait == 0 and hard == INT64_MAX:
            ttl = INFINITY
        value = put(self.l0, key, value, ttl, 1, False, frequency, wait)
        if self.leaving and not self.handing_down:
            self.hand_down_soon()
        return value

    def kept(self, Load load, key, value, int64_t now, int64_t soft, int64_t hard, double seconds,
             tuple tags=()):
        """Keep what was loaded in so many seconds, or set, in the innermost cache."""
        cdef int64_t due = soft
        if self.early != 0 and soft != INT64_MAX:
            due = max(due - self.ahead(seconds), now + 1)
        self.keep(load, key, value, now, soft, hard, due, tags)

    cdef int64_t ahead(self, double seconds):
        """How many ms before its expiry a value is to be loaded anew that took so long to load."""
        return <int64_t>min(-log(1 - <double>random.random()) * self.early * seconds * 1000, 1e15)

    cdef int64_t expiry(self, int64_t now, double seconds):
        """When a value of now with such a lifetime is to be refreshed."""
        if seconds > FAR_SECONDS:
            return INT64_MAX
        if self.jitter != 0:
            seconds *= 1 - self.jitter * <double>random.random()
        return now + max(1, <int64_t>(seconds * 1000))

    cdef int64_t end(self, int64_t soft):
        """When it is no good any more."""
        return INT64_MAX if soft == INT64_MAX else soft + max(self.revalidate_ms, self.error_ms)

    def lifetimes(self, int64_t now, ttl):
        """When a value of now is to be refreshed, and when it is no good any more; Unix ms."""
        cdef int64_t soft = self.expiry(now, self.lifetime if ttl is None else ttl)
        return soft, self.end(soft)


# --- the driver of threads ------------------------------------------------------------------------

cdef object perform(Tiered self, tuple call):
    cdef int op = call[0]
    level, arg = call[1], call[2]
    if op == OP_GET:
        return (<Level>level).get_many(arg)
    if op == OP_RUN:
        return drive(self, <Load>level, arg)
    return self.perform(op, level, arg)  # what takes longer


cdef object run(Tiered self, object steps):
    """What a generator of calls returns, when a thread makes them. No StopIteration is made for it:
    that would take longer than all the rest."""
    cdef PyObject *yielded = NULL
    cdef bint more = PyIter_Send(steps, None, &yielded) == PYGEN_NEXT
    result = cc_owned(yielded)
    while more:
        try:
            result = perform(self, result)
        except BaseException as error:
            try:
                result = steps.throw(error)
            except StopIteration as end:
                return end.value
        else:
            yielded = NULL
            more = PyIter_Send(steps, result, &yielded) == PYGEN_NEXT
            result = cc_owned(yielded)
    return result


cdef object drive(Tiered self, Load load, list keys):
    """Runs a load to its end in this thread."""
    load.thread = PyThread_get_thread_ident()
    try:
        run(self, self.steps(load, keys))
    except BaseException as error:
        load.end_with(error, keys)
        if load.failure is not None:
            raise
    finally:
        self.land(load, keys)
    if load.refresh is not None:
        self.refresh_later(load.refresh)
        load.refresh = None


def run_sync(Tiered self, steps):
    """What a generator of calls returns, when this thread makes them."""
    return run(self, steps)


def run_load(Tiered self, Load load, list keys):
    """Run a load of keys that it has claimed to its end in this thread."""
    drive(self, load, keys)


cdef object missed(object cache, object key, object default):
    cdef Tiered self = <Tiered>cache
    cdef Load load
    if not cc_key_is_plain(key):
        raise no_key(key)
    self.l0.table.misses += 1
    if self.slow:
        value = self.missed_many([key])[key]
        return default if value is MISSING else value
    load = Load.__new__(Load)
    value = self.look(key, load)
    if self.awaits and (value is FETCH or load.refresh is not None):
        self.check_caller()
    if value is FETCH:
        if key in self.flights:
            value = run(self, self.fetch([key], load))[key]
        else:
            self.flights[key] = load
            drive(self, load, [key])
            if load.errors is not None:
                raise load.error()
            value = load.values[key]
    if load.refresh is not None:
        self.refresh_later(load.refresh)
    return default if value is MISSING else value


def own_get(kind):
    """A class decorator: a `get` of its own, that is called as fast as that of Cache."""
    if not issubclass(kind, Tiered):
        raise TypeError(f"kind must be a subclass of Tiered, not {kind!r}")
    cc_tiered_own_get(<PyTypeObject *>kind)
    return kind


cdef object no_key(object key):
    return TypeError(f"a key must be a str, bytes or int, not {type(key).__name__}")


cdef int install() except -1:
    cdef Tiered tiered = Tiered()
    cdef size_t start = <size_t><PyObject *>tiered
    return cc_tiered_install(<PyTypeObject *>Tiered, <size_t>&tiered.slow - start, missed)


install()
