/* cc_batch.c — see cc_batch.h. */
#include "cc_batch.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NO_IMPORT_ARRAY
#include <numpy/ndarraytypes.h>

enum {
    BLOCK = 16,         /* keys in flight: measured, 8 and 32 are slower */
    HEADERS_AHEAD = 8,  /* arrays whose header is fetched before its data pointer is needed */
    ROWS_AHEAD = 4,     /* rows between the one that is copied and the one that is fetched in step */
};

/* Borrowed; NULL: code run by a comparison made the sequence shorter. */
CC_INLINE PyObject *key_at(PyObject *keys, Py_ssize_t i)
{
    return i < PySequence_Fast_GET_SIZE(keys) ? PySequence_Fast_GET_ITEM(keys, i) : NULL;
}

static bool look_up_one(cc_table *table, PyObject *keys, PyObject **values, Py_ssize_t i)
{
    PyObject *key = key_at(keys, i);
    if (key == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "keys changed size while they were looked up");
        return false;
    }
    Py_INCREF(key);
    cc_result result = cc_table_look_up(table, key, &values[i]);
    Py_DECREF(key);
    return result != CC_FAILED;
}

/* Looks up keys[from ... from + BLOCK) as long as no Python code is needed for them; returns the
   first that needs it, or the end of the block. */
static Py_ssize_t look_up_block(cc_table *table, PyObject *keys, PyObject **values, Py_ssize_t from)
{
    PyObject **items = PySequence_Fast_ITEMS(keys) + from;
    const cc_index *index = &table->index;
    cc_record *records = table->policy.records;
    uint32_t hashes[BLOCK];
    cc_record *guess[BLOCK];
    unsigned plain = 0;

    for (; plain < BLOCK && cc_key_plain(Py_TYPE(items[plain])); plain++) {
        if (!cc_key_hash(items[plain], table->secret, &hashes[plain]))
            break;
        CC_PREFETCH(&index->chunks[cc_index_home(index, hashes[plain])]);
    }
    for (unsigned i = 0; i < plain; i++) {
        const cc_chunk *chunk = &index->chunks[cc_index_home(index, hashes[i])];
        cc_matches matches = cc_chunk_match(chunk, cc_index_tag(hashes[i]));
        guess[i] = matches ? &records[chunk->slot[cc_matches_first(matches)]] : NULL;
        CC_PREFETCH_WRITE(guess[i]);
    }
    for (unsigned i = 0; i < plain; i++) {
        if (guess[i] == NULL)
            continue;
        CC_PREFETCH_WRITE(cc_record_value(guess[i]));
        if (cc_record_key(guess[i]) != items[i])
            CC_PREFETCH(cc_record_key(guess[i]));
    }
    for (unsigned i = 0; i < plain; i++) {
        cc_record *record = guess[i];
        cc_result result = CC_FOUND;
        if (CC_UNLIKELY(record == NULL || cc_record_key(record) != items[i]))
            result = cc_table_probe(table, items[i], hashes[i], &record);
        if (result == CC_AGAIN || (result == CC_FOUND && !cc_table_fresh(table, record)))
            return from + i;
        if (CC_LIKELY(result == CC_FOUND)) {
            values[from + i] = Py_NewRef(cc_record_value(record));
            cc_policy_hit(&table->policy, &record->meta);
        } else {
            table->misses++;
        }
    }
    return from + plain;
}

bool cc_table_look_up_many(cc_table *table, PyObject *keys, PyObject **values, Py_ssize_t count)
{
    Py_ssize_t i = 0;
    while (i < count) {
        if (i + BLOCK <= count && i + BLOCK <= PySequence_Fast_GET_SIZE(keys)) {
            Py_ssize_t done = look_up_block(table, keys, values, i);
            if (done == i + BLOCK) {
                i = done;
                continue;
            }
            i = done;
        }
        if (!look_up_one(table, keys, values, i))
            return false;
        i++;
    }
    return true;
}

PyObject *cc_table_get_many(cc_table *table, PyObject *keys, PyObject *absent)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(keys);
    PyObject *list = PyList_New(count);
    if (list == NULL)
        return NULL;
    PyObject_GC_UnTrack(list); /* its places are NULL until they are filled */
    PyObject **values = ((PyListObject *)list)->ob_item;
    bool done = cc_table_look_up_many(table, keys, values, count);
    for (Py_ssize_t i = 0; i < count; i++)
        if (values[i] == NULL)
            values[i] = Py_NewRef(absent);
    PyObject_GC_Track(list);
    if (!done)
        Py_CLEAR(list);
    return list;
}

/* --- gather --------------------------------------------------------------------------------- */

CC_INLINE bool is_array(const cc_rows *rows, PyObject *value)
{
    return Py_TYPE(value) == rows->array_type || PyType_IsSubtype(Py_TYPE(value), rows->array_type);
}

CC_INLINE npy_intp items_of(PyArrayObject *array)
{
    npy_intp items = 1;
    for (int i = 0; i < PyArray_NDIM(array); i++)
        items *= PyArray_DIM(array, i);
    return items;
}

CC_INLINE bool fits(const cc_rows *rows, PyObject *value)
{
    PyArrayObject *array = (PyArrayObject *)value;
    if (Py_TYPE(value) != rows->array_type || (PyObject *)PyArray_DESCR(array) != rows->descr
        || !(PyArray_FLAGS(array) & NPY_ARRAY_C_CONTIGUOUS))
        return false;
    return items_of(array) == rows->items;
}

/* A C-contiguous copy, made by NumPy's own method whatever a subclass overrides. */
static PyObject *in_order(const cc_rows *rows, PyObject *value)
{
    PyObject *copy = PyObject_CallMethod((PyObject *)rows->array_type, "copy", "Os", value, "C");
    if (copy == NULL)
        return NULL;
    PyArrayObject *array = (PyArrayObject *)copy;
    if (is_array(rows, copy) && items_of(array) == rows->items
        && (PyArray_FLAGS(array) & NPY_ARRAY_C_CONTIGUOUS))
        return copy;
    Py_DECREF(copy);
    PyErr_SetString(PyExc_TypeError, "gather needs arrays that can be copied");
    return NULL;
}

/* True while the values are rows, and `out` the memory, that they were when they were looked at: what
   ran since to copy other values (`copied` of them) may have changed them. */
static bool still_there(const cc_rows *rows, PyObject **values, Py_ssize_t copied)
{
    for (Py_ssize_t i = 0; copied > 0 && i < rows->count; i++) {
        if (values[i] == NULL || PyBytes_CheckExact(values[i]))
            continue;
        PyArrayObject *array = (PyArrayObject *)values[i];
        if (items_of(array) == rows->items && (PyArray_FLAGS(array) & NPY_ARRAY_C_CONTIGUOUS))
            continue;
        PyErr_SetString(PyExc_RuntimeError, "a value changed while keys were looked up");
        return false;
    }
    PyArrayObject *out = (PyArrayObject *)rows->out;
    if (PyArray_BYTES(out) == rows->start && items_of(out) == rows->items * rows->count
        && (PyObject *)PyArray_DESCR(out) == rows->descr && PyArray_ISWRITEABLE(out))
        return true;
    PyErr_SetString(PyExc_RuntimeError, "out changed while keys were looked up");
    return false;
}

/* The value as something that `data_of` understands: itself, or a contiguous copy. NULL: it does not fit. */
static CC_NOINLINE PyObject *fitting(const cc_rows *rows, PyObject *value, PyObject *key)
{
    if (PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) == rows->row_size)
        return Py_NewRef(value);
    if (is_array(rows, value)) {
        PyArrayObject *array = (PyArrayObject *)value;
        int same = PyObject_RichCompareBool((PyObject *)PyArray_DESCR(array), rows->descr, Py_EQ);
        npy_intp items = items_of(array);
        if (same < 0)
            return NULL;
        if (same && items == rows->items)
            return PyArray_FLAGS(array) & NPY_ARRAY_C_CONTIGUOUS ? Py_NewRef(value)
                                                                 : in_order(rows, value);
        PyErr_Format(PyExc_ValueError,
                     "out has rows of %zd items of %R, but the value of key %R has %zd of %R",
                     rows->items, rows->descr, key, (Py_ssize_t)items, PyArray_DESCR(array));
        return NULL;
    }
    PyErr_Format(PyExc_TypeError, "gather needs arrays, but the value of key %R is of type %s", key,
                 Py_TYPE(value)->tp_name);
    return NULL;
}

static bool check_values(const cc_rows *rows, PyObject *keys, PyObject **values,
                         Py_ssize_t *copied)
{
    for (Py_ssize_t i = 0; i < rows->count; i++) {
        if (i + HEADERS_AHEAD < rows->count && values[i + HEADERS_AHEAD] != NULL) {
            CC_PREFETCH(values[i + HEADERS_AHEAD]);
            CC_PREFETCH((char *)values[i + HEADERS_AHEAD] + CC_LINE);
        }
        if (values[i] == NULL || CC_LIKELY(fits(rows, values[i])))
            continue;
        PyObject *key = Py_XNewRef(key_at(keys, i));
        PyObject *fit = fitting(rows, values[i], key ? key : Py_None);
        Py_XDECREF(key);
        if (fit == NULL)
            return false;
        ++*copied;
        Py_SETREF(values[i], fit);
    }
    return true;
}

CC_INLINE const char *data_of(PyObject *value)
{
    return PyBytes_CheckExact(value) ? PyBytes_AS_STRING(value)
                                     : PyArray_BYTES((PyArrayObject *)value);
}

/* Copies a row line by line and fetches a later one in step: bursts of fetches would wait for each other. */
CC_INLINE void copy_row(char *restrict to, const char *restrict from, const char *next, size_t size)
{
    size_t at = 0;
    for (; at + CC_LINE <= size; at += CC_LINE) {
        CC_PREFETCH(next + at);
        memcpy(to + at, from + at, CC_LINE);
    }
    memcpy(to + at, from + at, size - at);
}

static void copy_rows(const cc_rows *rows, PyObject **values, char *found)
{
    size_t size = (size_t)rows->row_size;
    char *row = rows->start;
    for (Py_ssize_t i = 0; i < rows->count; i++, row += size) {
        found[i] = values[i] != NULL;
        if (values[i] == NULL) {
            memset(row, 0, size);
            continue;
        }
        const char *from = data_of(values[i]);
        const char *next = from;
        if (i + ROWS_AHEAD < rows->count && values[i + ROWS_AHEAD] != NULL)
            next = data_of(values[i + ROWS_AHEAD]);
        copy_row(row, from, next, size);
    }
}

bool cc_table_gather(cc_table *table, PyObject *keys, const cc_rows *rows, char *found)
{
    PyObject **values = PyMem_Calloc((size_t)rows->count + 1, sizeof *values);
    if (values == NULL) {
        PyErr_NoMemory();
        return false;
    }
    Py_ssize_t copied = 0;
    bool done = cc_table_look_up_many(table, keys, values, rows->count)
                && check_values(rows, keys, values, &copied) && still_there(rows, values, copied);
    if (done)
        copy_rows(rows, values, found);
    for (Py_ssize_t i = 0; i < rows->count; i++)
        Py_XDECREF(values[i]);
    PyMem_Free(values);
    return done;
}
