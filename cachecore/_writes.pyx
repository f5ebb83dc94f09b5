"""TieredWrites: the one write of `set` where nothing stands in its way, compiled."""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport INT64_MAX, int64_t

from cachecore._arrays cimport bytes_of, holds_objects, is_array
from cachecore._envelope cimport Later, joined
from cachecore._load cimport Level, Load, current_era
from cachecore._tiered cimport BELIEVED_MS, Tiered
from cachecore.cc_tiered cimport cc_key_is_plain

cdef int64_t NEVER = INT64_MAX


cdef class TieredWrites(Tiered):
    """A cache with tiers that can be written to."""

    cdef Load spare                # of a write that has ended
    cdef public object item        # the type of what tiers are given
    cdef public bint around        # writes go to the last tier only
    cdef public bint strict        # a tier that does not take a write is an error
    cdef public tuple writable     # types of values that the codec surely takes, but for objects

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
        cdef Py_ssize_t size
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
        load.ended = False
        load.write = load.writing = True
        self.flights[key] = load
        try:
            value = self.put_here(key, value, now, hard, soft)
            if self.absent is not None:
                self.absent.delete(key)
            if self.leaving:
                self.leaving.pop(key, None)
            for level in self.levels:
                later = Later.__new__(Later)
                later.key, later.value, later.codec = key, value, self.codec
                later.written, later.soft, later.hard = now, soft, hard
                later.generation, later.namespace = level.generation, self.prefix
                later.nbytes = size
                lifetime = None if hard == NEVER else max(1, hard - now)
                try:
                    data = later if level.lazy else later()
                    item = (wire, data, lifetime)
                    level.set_many([item if level.plain else tuple.__new__(self.item, item)])
                except BaseException as error:
                    failure = self.set_missed(level, key, value, now, soft, hard, error) or failure
                else:
                    level.writes += 1
                    level.bytes_written += size
        finally:
            if load.waiters is None and self.flights.get(key) is load:
                del self.flights[key]
                load.ended = True
                self.spare = load  # whoever has found it meanwhile looks again after its next end
            else:
                self.land(load, (key,))
        if failure is not None:
            raise failure
        return True
