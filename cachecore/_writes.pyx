"""TieredWrites: the one write of `set` where nothing stands in its way, compiled."""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport INT64_MAX, int64_t

from cachecore._arrays cimport bytes_of, holds_objects, is_array
from cachecore._envelope cimport Later, joined, later_of
from cachecore._flight cimport current_era
from cachecore._load cimport Level, Load, Tagged, is_over
from cachecore._tiered cimport BELIEVED_MS, Tiered
from cachecore.cc_tiered cimport cc_key_is_plain

from cachecore.errors import TierError

cdef int64_t NEVER = INT64_MAX

cdef enum:
    MOST = 2_000  # values that wait to be handed down; beyond, the oldest are let go and counted
    EARNED = 2  # look-ups of late that a value must have had


cdef class TieredWrites(Tiered):
    """A cache with tiers that can be written to."""

    cdef Load spare                # of a write that has ended
    cdef public object item        # the type of what tiers are given
    cdef public bint around        # writes go to the last tier only
    cdef public bint strict        # a tier that does not take a write is an error
    cdef public tuple writable     # types of values that the codec surely takes, but for objects

    def held(self, Load load, keys):
        """The keys for which what a load brings is to be kept."""
        return [key for key in keys if self.holds(load, key)]

    def gone(self, Load load, key):
        """Know that there is no value for a key, unless it was overtaken."""
        if self.holds(load, key) and not (self.distrusted or self.closed):
            if self.absent is not None:
                self.absent.set(key, True)
            self.l0.delete(key)

    def forget_keys(self, keys):
        """Forget keys in this process; how many were there. From leaving to l0 and back a key moves
        without Python code, so nothing is missed between the two."""
        cdef Py_ssize_t count = 0
        for key in keys:
            left = self.leaving.pop(key, None)
            count += self.l0.delete(key)
            if self.absent is not None:
                self.absent.delete(key)
            del left  # not before: a value's end may run anything
        return count

    def note_leavers(self):
        """Begin to take note of what the innermost cache lets go."""
        self.l0.on_evict = self.left
        self.l0.plain = False
        self.l0.table.detailed = True

    def left(self, key, value, reason, frequency, int64_t soft, int64_t deadline):
        """Take note of what leaves; times in ms of the innermost cache's clock.

        From when it is gone there until it stands here no Python code runs, in which another thread
        could write the key: this would then come after it.
        """
        cdef int64_t ahead
        if reason == "expired" or frequency < EARNED or type(value) is Tagged:
            return
        ahead = self.clock_ahead()
        self.leaving[key] = (value, NEVER if soft == NEVER else soft + ahead,
                             NEVER if deadline == NEVER else deadline + ahead, frequency)
        if len(self.leaving) > MOST:
            self.leaving.pop(next(iter(self.leaving)), None)
            self.demotions_lost += 1

    def set(self, key, value, *, ttl=None, tags=()):
        """Set a key here and in the tiers.

        Args:
            key: a str, bytes or int.
            value: what the codec can write down.
            ttl: seconds that this value lives; None: as the policy says; math.inf: for ever.
            tags: names by which it can be invalidated together with others.

        Raises:
            TypeError: the codec cannot write the value down; nothing was changed.
            TierError: with `strict`, when a tier did not take it.
        """
        if tags or not self.set_quickly(key, value, ttl):
            self.set_many([(key, value)], ttl=ttl, tags=tags)

    cdef bint set_quickly(self, object key, object value, object ttl) except -1:
        """Sets a key where nothing stands in the way of it; False: something does, nothing is done.
        It is what `set_steps` of writing.py does for many, in any state."""
        cdef Load other, load
        cdef Level level
        cdef Later later
        cdef int64_t now, soft, hard
        cdef Py_ssize_t size, at
        cdef bytes wire
        failure = None
        if self.slow or self.around or not cc_key_is_plain(key):
            return False
        if type(value) is bytes:
            size = len(<bytes>value)
        elif is_array(value) and not holds_objects(value):
            size = bytes_of(value)
        else:
            return False
        if type(value) not in self.writable:
            return False
        if ttl is not None and not (type(ttl) is float and ttl > 0):
            return False
        other = self.flights.get(key)
        if other is not None and other.writing:
            return False
        now = self.now()
        for level in self.levels:
            if (level.ledger is not None or level.exclusive
                    or (now - level.generation_read >= BELIEVED_MS and not self.raw)):
                return False
        soft = self.expiry(now, self.lifetime if ttl is None else ttl)
        hard = self.end(soft)
        wire = joined(self.prefix, key)
        load = self.spare
        self.spare = None
        if load is None or load.era != current_era():
            load = Load.__new__(Load)
        load.thread = PyThread_get_thread_ident()
        load.ended, load.voided = False, None
        load.write = load.writing = True
        self.flights[key] = load
        try:
            if self.absent is not None:
                self.absent.delete(key)
            if self.leaving:
                self.leaving.pop(key, None)
            value = self.put_here(key, value, now, hard, soft)
            for at in range(len(self.levels)):
                level = <Level>self.levels[at]
                try:
                    if level.backlog is None or not level.backlog.note(
                        wire, key, value, size, self.codec, self.prefix, now, soft, hard,
                        level.generation,
                    ):
                        later = later_of(key, value, size, self.codec, self.prefix, now, soft, hard,
                                         level.generation)
                        item = (wire, later if level.lazy else later(),
                                None if hard == INT64_MAX else max(1, hard - now))
                        level.set_many([tuple.__new__(self.item, item)])
                except BaseException as error:
                    self.set_missed(at, key, value, now, soft, hard, error)
                    failure = error
                else:
                    level.writes += 1
                    level.bytes_written += size
            if failure is not None and self.strict:
                raise TierError(f"not every tier took the write: {failure}") from failure
        finally:
            if load.waiters is None and self.flights.get(key) is load:
                del self.flights[key]
                load.ended = True
                self.spare = load  # whoever has found it meanwhile looks again after its next end
            else:
                self.land(load, (key,))
        return True

    # --- the flights of writes

    def claim_write(self, Load load, keys):
        """The keys that no other write has under way, now ours; and the loads to wait for.

        A write overtakes a load, unless that has begun to write its tiers.
        """
        cdef list mine = [], others = self.writing(keys)
        load.write = load.writing = True
        for key in keys:
            if is_over(self.flights.get(key)) or not (<Load>self.flights[key]).writing:
                self.flights[key] = load
                mine.append(key)
        return mine, others

    def claim_writes(self, Load load, keys):
        """Claim all of the keys, or none: who waits holds nothing, so that two never wait for each
        other. The loads to wait for."""
        cdef list others = self.writing(keys)
        if not others:
            self.claim_write(load, keys)
        return others

    cdef list writing(self, keys):
        """The loads that write some of the keys."""
        cdef Load other
        cdef list found = []
        for key in keys:
            other = self.flights.get(key)
            if not is_over(other) and other.writing:
                found.append(other)
        return found
