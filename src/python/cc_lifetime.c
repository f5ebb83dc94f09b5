/* cc_lifetime.c — the clock of a table and when its entries expire; declared in cc_table.h.
 *
 * A record holds its expiry as 32 bits of ms since the table's base, which moves on every 24.8
 * days. A deadline that is farther away lies in a side array, and the record's expiry is the time to
 * look there. */
#include "cc_table.h"

#include "cc_pages.h"

#include <math.h>

#define FAR_MS ((int64_t)INT32_MAX) /* twice this fits the 32 bits of an expiry */
#define MOST_MS 9.0e15 /* what a double holds to the millisecond */

static bool read_timer(cc_table *table, int64_t *ms)
{
    int64_t latest = table->latest; /* as of now: other threads may read a later time meanwhile */
    PyObject *reading = PyObject_CallNoArgs(table->timer);
    if (reading == NULL)
        return false;
    double seconds = PyFloat_AsDouble(reading);
    Py_DECREF(reading);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_SetString(PyExc_TypeError, "timer must return a number of seconds");
        return false;
    }
    if (!(fabs(seconds * 1000.0) < MOST_MS)) {
        PyErr_SetString(PyExc_ValueError, "timer must return a finite number of seconds");
        return false;
    }
    *ms = (int64_t)llrint(seconds * 1000.0);
    if (*ms < latest) {
        PyErr_Format(PyExc_ValueError, "timer must not go backwards: %lld ms after %lld ms",
                     (long long)*ms, (long long)latest);
        return false;
    }
    if (*ms > table->latest)
        table->latest = *ms;
    *ms = table->latest;
    return true;
}

/* Moves the base to `ms`, so that table time fits 32 bits for another 49 days. */
static CC_COLD void move_base(cc_table *table, int64_t ms)
{
    int64_t shift = ms - 1 - table->base;
    for (uint32_t slot = 0; slot < table->policy.used; slot++) {
        cc_record *record = &table->policy.records[slot];
        if (cc_record_live(record) && record->meta.expiry != 0)
            record->meta.expiry =
                record->meta.expiry > shift + 1 ? (uint32_t)(record->meta.expiry - shift) : CC_PASSED;
    }
    table->base += shift;
}

bool cc_table_now(cc_table *table, int64_t *now)
{
    int64_t ms;
    if (table->timer == NULL)
        ms = cc_clock_ms();
    else if (!read_timer(table, &ms))
        return false;
    if (CC_UNLIKELY(table->base == INT64_MIN))
        table->base = ms - 1;
    if (CC_UNLIKELY(ms - table->base > FAR_MS))
        move_base(table, ms);
    *now = ms;
    return true;
}

bool cc_table_now_if_expiring(cc_table *table, int64_t *now)
{
    *now = CC_NO_TIME;
    return table->expiring == 0 || cc_table_now(table, now);
}

/* What a record says of an entry that has `left` ms from now: when to look again at the latest. */
static uint32_t expiry_after(const cc_table *table, int64_t now, int64_t left)
{
    int64_t since = now - table->base; /* the base may have moved on since `now` was read */
    return (uint32_t)((since > 1 ? since : 1) + (left < FAR_MS ? left : FAR_MS));
}

bool cc_table_expired_indeed(cc_table *table, cc_record *record, int64_t now)
{
    uint32_t slot = cc_table_slot(table, record);
    if (CC_LIKELY(slot >= table->deadlines_room || table->deadlines[slot] == 0))
        return true;
    int64_t left = table->deadlines[slot] - now;
    if (left <= 0)
        return true;
    record->meta.expiry = expiry_after(table, now, left);
    return false;
}

/* Grows an array of times, one for each slot, to `room` slots; false: no memory. */
static bool fit(int64_t **times, size_t *has_room, size_t room)
{
    size_t size = sizeof **times;
    if (CC_LIKELY(*has_room >= room))
        return true;
    void *grown = cc_pages_grow(*times, *has_room * size, room * size);
    if (grown == NULL)
        return false;
    *times = grown;
    *has_room = room;
    return true;
}

bool cc_table_fit_deadlines(cc_table *table)
{
    return fit(&table->deadlines, &table->deadlines_room, table->policy.room);
}

bool cc_table_fit_softs(cc_table *table)
{
    return fit(&table->softs, &table->softs_room, table->policy.room);
}

static int64_t in_ms(double seconds)
{
    double ms = ceil(seconds * 1000.0 - 1e-6); /* 0.1 * 1000 is not quite 100 */
    return ms < 1 ? 1 : ms < MOST_MS ? (int64_t)ms : (int64_t)MOST_MS;
}

bool cc_table_set_ttl(cc_table *table, cc_record *record, int64_t now, double ttl)
{
    uint32_t slot = cc_table_slot(table, record), before = record->meta.expiry;
    int64_t left = in_ms(ttl);
    if (isfinite(ttl) && left >= FAR_MS && !cc_table_fit_deadlines(table))
        return false;
    if (slot < table->deadlines_room)
        table->deadlines[slot] = isfinite(ttl) && left >= FAR_MS ? now + left : 0;
    record->meta.expiry = isfinite(ttl) ? expiry_after(table, now, left) : 0;
    if (slot < table->softs_room)
        table->softs[slot] = 0;
    table->expiring += (record->meta.expiry != 0) - (before != 0);
    return true;
}

void cc_table_set_soft(cc_table *table, cc_record *record, int64_t now, double soft)
{
    if (soft == 0 || record->meta.expiry == 0)
        return;
    int64_t at = soft < 0 ? INT64_MIN : now + in_ms(soft);
    table->softs[cc_table_slot(table, record)] = at != 0 ? at : 1;
}

int64_t cc_table_deadline(const cc_table *table, const cc_record *record)
{
    uint32_t slot = cc_table_slot(table, record);
    if (record->meta.expiry == 0)
        return INT64_MAX;
    if (slot < table->deadlines_room && table->deadlines[slot] != 0)
        return table->deadlines[slot];
    return table->base + record->meta.expiry;
}

int64_t cc_table_soft(const cc_table *table, const cc_record *record)
{
    uint32_t slot = cc_table_slot(table, record);
    return slot < table->softs_room && table->softs[slot] != 0 ? table->softs[slot]
                                                               : cc_table_deadline(table, record);
}

double cc_table_ttl(const cc_table *table, const cc_record *record, int64_t now)
{
    int64_t deadline = cc_table_deadline(table, record);
    return deadline == INT64_MAX ? (double)INFINITY : (double)(deadline - now) / 1000.0;
}

cc_result cc_table_expire(cc_table *table, int64_t now, uint32_t *from, uint32_t until,
                          cc_leavers *leavers)
{
    for (; *from < until && *from < table->policy.used; ++*from) {
        cc_record *record = &table->policy.records[*from];
        if (!cc_record_live(record) || !cc_table_expired(table, record, now))
            continue;
        if (leavers->count == CC_LEAVERS)
            return CC_AGAIN;
        cc_table_take(table, record, CC_EXPIRED, &leavers->at[leavers->count++]);
    }
    return CC_FOUND;
}
