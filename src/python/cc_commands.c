/* cc_commands.c — the table of the commands, and those on keys and strings. */
#include "cc_commands_inner.h"

#include <math.h>

enum { PREFETCH = 16 }; /* keys of an MGET whose lines are fetched ahead */
enum { PAGE = 4096, LINE = 64, LINES = 4, AHEAD = 64 * 1024 }; /* the same of a large value's pages */

static const char NOT_INTEGER[] = "ERR value is not an integer or out of range";
static const char TOO_LARGE[] = "OOM command not allowed when used memory > 'maxmemory'.";

/* --- keys and values ------------------------------------------------------------------------- */

cc_result cc_look_up_slowly(cc_table *table, cc_raw raw, uint32_t hash, PyObject **value)
{
    PyObject *key = new_bytes(raw);
    if (key == NULL)
        return CC_FAILED;
    cc_result result = cc_table_look_up_hashed(table, key, hash, value);
    Py_DECREF(key);
    return result;
}

/* The record of a key that has not expired, uncounted; NULL: none, or *failed. */
static cc_record *peek(cc_table *table, cc_raw raw, int64_t *now, bool *failed)
{
    *failed = !cc_table_now_if_expiring(table, now);
    if (*failed)
        return NULL;
    cc_record *record = cc_raw_find(table, raw, cc_raw_hash(table, raw));
    return record != NULL && !cc_table_expired(table, record, *now) ? record : NULL;
}

/* Bytes that an object counts for: what sys.getsizeof says of it. */
CC_INLINE uint64_t size_of_bytes(size_t length)
{
    return length + offsetof(PyBytesObject, ob_sval) + 1;
}

/* Seconds that what is set without a lifetime is to live. */
CC_INLINE double default_ttl(const cc_call *call)
{
    double ttl = call->service->ttl, jitter = call->service->jitter;
    if (jitter != 0 && !isinf(ttl))
        ttl *= 1 - jitter * cc_random(&call->service->table->policy.random) / 4294967296.0;
    return ttl;
}

CC_INLINE uint64_t size_of(size_t key, size_t value)
{
    return size_of_bytes(key) + size_of_bytes(value) + CC_ENTRY_OVERHEAD;
}

/* Sets a key to a value whose reference it takes. NOT_MINE: the value is larger than the cache. */
static cc_run set(const cc_call *call, cc_raw raw, PyObject *value, double ttl)
{
    cc_table *table = call->service->table;
    cc_run result = CC_RUN_FAILED;
    if (value == NULL)
        return result;
    cc_record *record = cc_raw_find(table, raw, cc_raw_hash(table, raw));
    PyObject *key = record != NULL ? Py_NewRef(cc_record_key(record)) : new_bytes(raw);
    if (key != NULL) {
        cc_item item = {.key = key, .value = value, .ttl = ttl, .cost = 1};
        if (table->sized)
            item.size = size_of(raw.size, (size_t)PyBytes_GET_SIZE(value));
        if (table->sized && item.size > table->max_bytes)
            result = CC_RUN_NOT_MINE;
        else if (cc_table_set(table, &item, call->service->on_evict) != CC_FAILED)
            result = CC_RUN_DONE;
        Py_DECREF(key);
    }
    Py_DECREF(value);
    return result;
}

void cc_value_put(const cc_service *service, cc_out *out, PyObject *value)
{
    size_t size = (size_t)PyBytes_GET_SIZE(value);
    const char *bytes = PyBytes_AS_STRING(value);
    if (size < service->point) {
        cc_resp_put_bulk(out, bytes, size);
        return;
    }
    /* The kernel copies it later, and begins each page with lines that nothing has fetched yet. */
    for (size_t at = 0; at < size && at < AHEAD; at += PAGE - ((uintptr_t)(bytes + at) & (PAGE - 1)))
        for (size_t line = 0; line < LINES; line++)
            CC_PREFETCH(bytes + at + line * LINE);
    cc_resp_put_head(out, '$', (int64_t)size);
    if (cc_out_point(out, bytes, size, value))
        Py_INCREF(value);
    cc_out_put(out, "\r\n", 2);
}

void cc_value_release(void *owner)
{
    Py_DECREF((PyObject *)owner);
}

/* --- numbers --------------------------------------------------------------------------------- */

/* A decimal integer as Redis reads one: no sign but '-', no leading zeros, no spaces. */
static bool read_integer(const char *text, size_t size, int64_t *number)
{
    bool negative = size > 0 && text[0] == '-';
    uint64_t value = 0, most = (uint64_t)INT64_MAX + negative;
    size_t i = negative;
    if (i == size || size > 20 || (text[i] == '0' && size > 1))
        return false;
    for (; i < size; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (digit > 9 || value > (most - digit) / 10)
            return false;
        value = 10 * value + digit;
    }
    *number = (int64_t)(negative ? 0 - value : value);
    return true;
}

static bool integer_at(const cc_call *call, uint32_t i, int64_t *number)
{
    return read_integer(call->data + call->args[i].at, call->args[i].size, number);
}

CC_INLINE cc_run put_integer(const cc_call *call, int64_t number)
{
    cc_resp_put_head(call->out, ':', number);
    return CC_RUN_DONE;
}

/* --- commands -------------------------------------------------------------------------------- */

static cc_run run_get(const cc_call *call)
{
    PyObject *value;
    if (call->count != 2)
        return CC_RUN_NOT_MINE;
    cc_table *table = call->service->table;
    cc_raw raw = key_at(call, 1);
    cc_result result = look_up(table, raw, cc_raw_hash(table, raw), &value);
    if (CC_UNLIKELY(result != CC_FOUND)) {
        if (result == CC_FAILED)
            return CC_RUN_FAILED;
        if (call->service->proxy)
            return CC_RUN_NOT_MINE;
        cc_resp_put_null(call->out, call->session->protocol);
        return CC_RUN_DONE;
    }
    if (CC_LIKELY(PyBytes_CheckExact(value)))
        cc_value_put(call->service, call->out, value);
    else
        put_error(call, CC_WRONG_TYPE);
    Py_DECREF(value);
    return CC_RUN_DONE;
}

static cc_run run_set(const cc_call *call)
{
    double ttl = default_ttl(call);
    if (call->count == 5) { /* EX seconds, PX milliseconds */
        int64_t number;
        const char *option = call->data + call->args[3].at;
        if (call->args[3].size != 2 || (option[1] | 32) != 'x' || !integer_at(call, 4, &number)
            || number <= 0 || number > INT32_MAX)
            return CC_RUN_NOT_MINE;
        if ((option[0] | 32) == 'e')
            ttl = (double)number;
        else if ((option[0] | 32) == 'p')
            ttl = (double)number / 1000;
        else
            return CC_RUN_NOT_MINE;
    } else if (call->count != 3) {
        return CC_RUN_NOT_MINE;
    }
    cc_run result = set(call, key_at(call, 1), value_at(call, 2), ttl);
    if (result == CC_RUN_DONE)
        cc_resp_put_ok(call->out);
    return result == CC_RUN_NOT_MINE ? put_error(call, TOO_LARGE) : result;
}

/* Fetches what looking up `count` keys from `from` on will touch, as far as it can be known. */
static void prefetch(const cc_call *call, uint32_t from, uint32_t count, uint32_t *hashes)
{
    const cc_table *table = call->service->table;
    const cc_index *index = &table->index;
    const cc_record *guess[PREFETCH];
    for (uint32_t i = 0; i < count; i++) {
        hashes[i] = cc_raw_hash(table, key_at(call, from + i));
        CC_PREFETCH(&index->chunks[cc_index_home(index, hashes[i])]);
    }
    for (uint32_t i = 0; i < count; i++) {
        const cc_chunk *chunk = &index->chunks[cc_index_home(index, hashes[i])];
        cc_matches matches = cc_chunk_match(chunk, cc_index_tag(hashes[i]));
        guess[i] = matches ? &table->policy.records[chunk->slot[cc_matches_first(matches)]] : NULL;
        CC_PREFETCH_WRITE(guess[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (guess[i] == NULL)
            continue;
        CC_PREFETCH((char *)cc_record_key(guess[i]) + offsetof(PyBytesObject, ob_sval));
        CC_PREFETCH((char *)cc_record_value(guess[i]) + offsetof(PyBytesObject, ob_sval));
    }
}

static cc_run run_mget(const cc_call *call)
{
    uint32_t hashes[PREFETCH];
    cc_out *out = call->out;
    size_t size = out->size, pieces = out->count;
    if (call->count < 2)
        return CC_RUN_NOT_MINE;
    cc_resp_put_head(out, '*', call->count - 1);
    for (uint32_t i = 1; i < call->count; i++) {
        PyObject *value;
        uint32_t step = (i - 1) % PREFETCH, left = call->count - i;
        if (step == 0)
            prefetch(call, i, left < PREFETCH ? left : PREFETCH, hashes);
        cc_result result = look_up(call->service->table, key_at(call, i), hashes[step], &value);
        if (result == CC_FAILED || (result == CC_ABSENT && call->service->proxy)) {
            cc_out_cut(out, size, pieces, cc_value_release);
            return result == CC_FAILED ? CC_RUN_FAILED : CC_RUN_NOT_MINE;
        }
        if (result == CC_FOUND && PyBytes_CheckExact(value))
            cc_value_put(call->service, out, value);
        else
            cc_resp_put_null(out, call->session->protocol);
        if (result == CC_FOUND)
            Py_DECREF(value);
    }
    return CC_RUN_DONE;
}

static cc_run run_mset(const cc_call *call)
{
    const cc_table *table = call->service->table;
    if (call->count < 3 || call->count % 2 == 0)
        return CC_RUN_NOT_MINE;
    for (uint32_t i = 1; i < call->count && table->sized; i += 2)
        if (size_of((size_t)call->args[i].size + 1, call->args[i + 1].size) > table->max_bytes)
            return put_error(call, TOO_LARGE); /* all of it or nothing */
    for (uint32_t i = 1; i < call->count; i += 2) {
        cc_run result = set(call, key_at(call, i), value_at(call, i + 1), default_ttl(call));
        if (result != CC_RUN_DONE)
            return result == CC_RUN_NOT_MINE ? put_error(call, TOO_LARGE) : result;
    }
    cc_resp_put_ok(call->out);
    return CC_RUN_DONE;
}

static cc_run run_del(const cc_call *call)
{
    int64_t found = 0;
    if (call->count < 2)
        return CC_RUN_NOT_MINE;
    for (uint32_t i = 1; i < call->count; i++) {
        cc_leavers leavers = {.count = 0};
        PyObject *key = new_bytes(key_at(call, i));
        if (key == NULL)
            return CC_RUN_FAILED;
        cc_result result = cc_table_remove(call->service->table, key, &leavers);
        Py_DECREF(key);
        if (result == CC_FAILED)
            return CC_RUN_FAILED;
        cc_leavers_release(&leavers, call->service->on_evict);
        found += result == CC_FOUND;
    }
    return put_integer(call, found);
}

static cc_run run_exists(const cc_call *call)
{
    int64_t found = 0, now;
    bool failed;
    if (call->count < 2)
        return CC_RUN_NOT_MINE;
    for (uint32_t i = 1; i < call->count; i++) {
        found += peek(call->service->table, key_at(call, i), &now, &failed) != NULL;
        if (failed)
            return CC_RUN_FAILED;
    }
    if (call->service->proxy && found != call->count - 1)
        return CC_RUN_NOT_MINE;
    return put_integer(call, found);
}

static cc_run run_strlen(const cc_call *call)
{
    int64_t now;
    bool failed;
    if (call->count != 2)
        return CC_RUN_NOT_MINE;
    cc_record *record = peek(call->service->table, key_at(call, 1), &now, &failed);
    if (failed)
        return CC_RUN_FAILED;
    if (record == NULL)
        return call->service->proxy ? CC_RUN_NOT_MINE : put_integer(call, 0);
    PyObject *value = cc_record_value(record);
    return PyBytes_CheckExact(value) ? put_integer(call, PyBytes_GET_SIZE(value))
                                     : put_error(call, CC_WRONG_TYPE);
}

/* INCR and the like: what is there keeps its lifetime. */
static cc_run add(const cc_call *call, int64_t step)
{
    cc_table *table = call->service->table;
    cc_raw raw = key_at(call, 1);
    int64_t now, number = 0, deadline = INT64_MAX;
    bool failed;
    double ttl = default_ttl(call);
    char text[24];
    cc_record *record = peek(table, raw, &now, &failed);
    if (failed)
        return CC_RUN_FAILED;
    if (record != NULL) {
        PyObject *value = cc_record_value(record);
        if (!PyBytes_CheckExact(value))
            return put_error(call, CC_WRONG_TYPE);
        if (!read_integer(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value), &number))
            return put_error(call, NOT_INTEGER);
        ttl = cc_table_ttl(table, record, now);
        deadline = cc_table_deadline(table, record);
    }
    if (__builtin_add_overflow(number, step, &number))
        return put_error(call, "ERR increment or decrement would overflow");
    size_t size = cc_resp_decimal(text, number);
    cc_run result = set(call, raw, PyBytes_FromStringAndSize(text, (Py_ssize_t)size), ttl);
    if (result == CC_RUN_NOT_MINE)
        return put_error(call, TOO_LARGE);
    if (result != CC_RUN_DONE)
        return result;
    if (deadline != INT64_MAX) { /* the clock may have gone on since the lifetime was read */
        record = peek(table, raw, &now, &failed);
        if (failed)
            return CC_RUN_FAILED;
        if (record != NULL)
            cc_table_set_ttl(table, record, now, ((double)(deadline - now) - 0.5) / 1000);
    }
    return put_integer(call, number);
}

static cc_run run_incr(const cc_call *call)
{
    return call->count == 2 ? add(call, 1) : CC_RUN_NOT_MINE;
}

static cc_run run_decr(const cc_call *call)
{
    return call->count == 2 ? add(call, -1) : CC_RUN_NOT_MINE;
}

static cc_run add_argument(const cc_call *call, int sign)
{
    int64_t step;
    if (call->count != 3)
        return CC_RUN_NOT_MINE;
    if (!integer_at(call, 2, &step))
        return put_error(call, NOT_INTEGER);
    if (sign < 0 && step == INT64_MIN)
        return put_error(call, "ERR decrement would overflow");
    return add(call, sign * step);
}

static cc_run run_incrby(const cc_call *call)
{
    return add_argument(call, 1);
}

static cc_run run_decrby(const cc_call *call)
{
    return add_argument(call, -1);
}

static cc_run expire(const cc_call *call, double unit)
{
    cc_table *table = call->service->table;
    int64_t number, start, now;
    bool failed;
    if (call->count != 3 || !integer_at(call, 2, &number) || number <= 0 || number > INT32_MAX)
        return CC_RUN_NOT_MINE;
    if (!cc_table_now(table, &start)) /* first: a timer runs Python code */
        return CC_RUN_FAILED;
    cc_record *record = peek(table, key_at(call, 1), &now, &failed);
    if (failed)
        return CC_RUN_FAILED;
    if (record != NULL
        && !cc_table_set_ttl(table, record, now > start ? now : start, (double)number * unit)) {
        PyErr_NoMemory();
        return CC_RUN_FAILED;
    }
    return put_integer(call, record != NULL);
}

static cc_run run_expire(const cc_call *call)
{
    return expire(call, 1);
}

static cc_run run_pexpire(const cc_call *call)
{
    return expire(call, 0.001);
}

/* TTL and PTTL. What is left is read off the precise clock: the coarse one runs up to one of its
   ticks behind, and would tell more than was given. A proxy knows no lifetimes. */
static cc_run put_ttl(const cc_call *call, int64_t unit)
{
    int64_t now, left;
    bool failed;
    if (call->count != 2 || call->service->proxy)
        return CC_RUN_NOT_MINE;
    cc_record *record = peek(call->service->table, key_at(call, 1), &now, &failed);
    if (failed)
        return CC_RUN_FAILED;
    if (record == NULL)
        return put_integer(call, -2);
    int64_t deadline = cc_table_deadline(call->service->table, record);
    if (deadline == INT64_MAX)
        return put_integer(call, -1);
    if (call->service->table->timer == NULL)
        now = cc_clock_read(CLOCK_MONOTONIC);
    left = deadline > now ? deadline - now : 0;
    return put_integer(call, (left + unit / 2) / unit);
}

static cc_run run_ttl(const cc_call *call)
{
    return put_ttl(call, 1000);
}

static cc_run run_pttl(const cc_call *call)
{
    return put_ttl(call, 1);
}

static cc_run run_ping(const cc_call *call)
{
    if (call->count == 1)
        cc_out_put(call->out, "+PONG\r\n", 7);
    else if (call->count == 2)
        cc_resp_put_bulk(call->out, call->data + call->args[1].at, call->args[1].size);
    else
        return CC_RUN_NOT_MINE;
    return CC_RUN_DONE;
}

/* --- the table ------------------------------------------------------------------------------- */

enum {
    GET, SET, MGET, MSET, DEL, UNLINK, EXISTS, STRLEN, INCR, DECR, INCRBY, DECRBY, EXPIRE,
    PEXPIRE, TTL, PTTL, HGET, HMGET, HGETALL, PING, COMMANDS
};
static_assert((int)COMMANDS <= (int)CC_HOT_COMMANDS, "there is a count for each");

static const cc_hot hot[] = {
    [GET] = {"get", 3, run_get, CC_MAY_READ},
    [SET] = {"set", 3, run_set, CC_MAY_WRITE},
    [MGET] = {"mget", 4, run_mget, CC_MAY_READ},
    [MSET] = {"mset", 4, run_mset, CC_MAY_WRITE},
    [DEL] = {"del", 3, run_del, CC_MAY_WRITE},
    [UNLINK] = {"unlink", 6, run_del, CC_MAY_WRITE},
    [EXISTS] = {"exists", 6, run_exists, CC_MAY_READ},
    [STRLEN] = {"strlen", 6, run_strlen, CC_MAY_READ},
    [INCR] = {"incr", 4, run_incr, CC_MAY_WRITE},
    [DECR] = {"decr", 4, run_decr, CC_MAY_WRITE},
    [INCRBY] = {"incrby", 6, run_incrby, CC_MAY_WRITE},
    [DECRBY] = {"decrby", 6, run_decrby, CC_MAY_WRITE},
    [EXPIRE] = {"expire", 6, run_expire, CC_MAY_WRITE},
    [PEXPIRE] = {"pexpire", 7, run_pexpire, CC_MAY_WRITE},
    [TTL] = {"ttl", 3, run_ttl, CC_MAY_READ},
    [PTTL] = {"pttl", 4, run_pttl, CC_MAY_READ},
    [HGET] = {"hget", 4, cc_run_hget, CC_MAY_READ},
    [HMGET] = {"hmget", 5, cc_run_hmget, CC_MAY_READ},
    [HGETALL] = {"hgetall", 7, cc_run_hgetall, CC_MAY_READ},
    [PING] = {"ping", 4, run_ping, CC_MAY_CONNECT},
};

/* A name of at most eight letters as a number, filled up with spaces. Setting a bit that only tells
   capitals from small letters is exact: nothing but the two becomes a letter by it. */
#define NAME(a, b, c, d, e, f, g, h)                                                               \
    ((uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24                \
     | (uint64_t)(e) << 32 | (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)

CC_INLINE uint64_t name_of(const char *text, uint32_t size)
{
    uint64_t name = 0;
    for (uint32_t i = size; i-- > 0;)
        name = name << 8 | (unsigned char)text[i];
    return name | 0x2020202020202020ull;
}

const cc_hot *cc_hot_find(const char *text, uint32_t size, unsigned *number)
{
    if (size > 8)
        return NULL;
    switch (name_of(text, size)) {
    case NAME('g', 'e', 't', ' ', ' ', ' ', ' ', ' '): *number = GET; break;
    case NAME('s', 'e', 't', ' ', ' ', ' ', ' ', ' '): *number = SET; break;
    case NAME('m', 'g', 'e', 't', ' ', ' ', ' ', ' '): *number = MGET; break;
    case NAME('m', 's', 'e', 't', ' ', ' ', ' ', ' '): *number = MSET; break;
    case NAME('d', 'e', 'l', ' ', ' ', ' ', ' ', ' '): *number = DEL; break;
    case NAME('u', 'n', 'l', 'i', 'n', 'k', ' ', ' '): *number = UNLINK; break;
    case NAME('e', 'x', 'i', 's', 't', 's', ' ', ' '): *number = EXISTS; break;
    case NAME('s', 't', 'r', 'l', 'e', 'n', ' ', ' '): *number = STRLEN; break;
    case NAME('i', 'n', 'c', 'r', ' ', ' ', ' ', ' '): *number = INCR; break;
    case NAME('d', 'e', 'c', 'r', ' ', ' ', ' ', ' '): *number = DECR; break;
    case NAME('i', 'n', 'c', 'r', 'b', 'y', ' ', ' '): *number = INCRBY; break;
    case NAME('d', 'e', 'c', 'r', 'b', 'y', ' ', ' '): *number = DECRBY; break;
    case NAME('e', 'x', 'p', 'i', 'r', 'e', ' ', ' '): *number = EXPIRE; break;
    case NAME('p', 'e', 'x', 'p', 'i', 'r', 'e', ' '): *number = PEXPIRE; break;
    case NAME('t', 't', 'l', ' ', ' ', ' ', ' ', ' '): *number = TTL; break;
    case NAME('p', 't', 't', 'l', ' ', ' ', ' ', ' '): *number = PTTL; break;
    case NAME('h', 'g', 'e', 't', ' ', ' ', ' ', ' '): *number = HGET; break;
    case NAME('h', 'm', 'g', 'e', 't', ' ', ' ', ' '): *number = HMGET; break;
    case NAME('h', 'g', 'e', 't', 'a', 'l', 'l', ' '): *number = HGETALL; break;
    case NAME('p', 'i', 'n', 'g', ' ', ' ', ' ', ' '): *number = PING; break;
    default: return NULL;
    }
    return hot[*number].size == size ? &hot[*number] : NULL; /* what follows may be spaces or zeros */
}

const char *cc_hot_name(unsigned number)
{
    return number < COMMANDS ? hot[number].name : NULL;
}
