/* cc_tiered.c — see cc_tiered.h. */
#include "cc_tiered.h"

#include "cc_slots.h"

/* Of _tiered.pyx; written once, when the module is imported. */
static cc_tiered_missed missed;

static cc_table *table_of(PyObject *self)
{
    return &((cc_cache_head *)((cc_tiered *)self)->l0)->table;
}

PyDoc_STRVAR(get_doc, "get($self, key, default=None)\n--\n\n"
                      "The value of a key, or `default` where there is none.\n\n"
                      "What this process does not hold is asked of the tiers, in their order, and then of "
                      "the loader.\nOf all who ask for a key at a time one does that.\n\n"
                      "Raises:\n"
                      "    TypeError: the key is not a str, bytes or int; the loader is a coroutine "
                      "function.\n"
                      "    Whatever the loader raises. What a tier raises is counted, and a miss.");

/* A hit that is not where the key's tag points to first, or one with a lifetime. */
static CC_NOINLINE PyObject *get_further(PyObject *self, PyObject *key, PyObject *absent)
{
    cc_table *table = table_of(self);
    cc_record *record;
    uint32_t hash;
    if (((cc_tiered *)self)->slow || !cc_key_plain(Py_TYPE(key)))
        return missed(self, key, absent);
    if (!cc_key_hash(key, table->secret, &hash))
        return NULL;
    if (cc_table_probe(table, key, hash, &record) == CC_FOUND && cc_table_fresh(table, record))
        return cc_hit(table, record);
    return missed(self, key, absent);
}

static CC_NOINLINE PyObject *get_expiring(PyObject *self, PyObject *key, cc_record *record,
                                          PyObject *absent)
{
    cc_table *table = table_of(self);
    return CC_LIKELY(cc_table_fresh(table, record)) ? cc_hit(table, record)
                                                    : missed(self, key, absent);
}

/* A leaf, as `get` of Cache is: whatever else may be the case goes on in a function called last. */
CC_INLINE PyObject *get(PyObject *self, PyObject *key, PyObject *absent)
{
    cc_table *table = table_of(self);
    uint32_t hash;
    bool surely_absent;
    if (CC_UNLIKELY(((cc_tiered *)self)->slow || !cc_hash_at_hand(table, key, &hash)))
        return get_further(self, key, absent);
    cc_record *record = cc_find_identical(table, key, hash, &surely_absent);
    if (CC_UNLIKELY(record == NULL))
        return get_further(self, key, absent);
    if (record->meta.expiry != 0)
        return get_expiring(self, key, record, absent);
    return cc_hit(table, record);
}

static CC_COLD PyObject *get_unusual(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                     PyObject *names)
{
    static const char *const keywords[] = {"key", "default", NULL};
    PyObject *key = NULL, *absent = Py_None, *tuple = PyTuple_New(count), *named = PyDict_New(), *value = NULL;
    if (tuple == NULL || named == NULL)
        goto end;
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++)
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, i), args[count + i]) < 0)
            goto end;
    if (PyArg_ParseTupleAndKeywords(tuple, named, "O|O:get", (char **)keywords, &key, &absent))
        value = get(self, key, absent);
end:
    Py_XDECREF(tuple);
    Py_XDECREF(named);
    return value;
}

static PyObject *tiered_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (CC_LIKELY(count == 1 && names == NULL))
        return get(self, args[0], Py_None);
    if (CC_LIKELY(count == 2 && names == NULL))
        return get(self, args[0], args[1]);
    return get_unusual(self, args, count, names);
}

static PyMethodDef get_method = {
    "get", (PyCFunction)(void (*)(void))tiered_get, METH_FASTCALL | METH_KEYWORDS, get_doc};

int cc_tiered_own_get(PyTypeObject *type)
{
    PyObject *descriptor = PyDescr_NewMethod(type, &get_method);
    int failed = descriptor == NULL ? -1 : PyDict_SetItemString(type->tp_dict, "get", descriptor);
    Py_XDECREF(descriptor);
    PyType_Modified(type);
    return failed;
}

int cc_tiered_install(PyTypeObject *type, size_t slow_offset, cc_tiered_missed on_miss)
{
    if (slow_offset != offsetof(cc_tiered, slow)) {
        PyErr_SetString(PyExc_SystemError, "Tiered was compiled with its fields in other places");
        return -1;
    }
    missed = on_miss;
    return cc_tiered_own_get(type);
}
