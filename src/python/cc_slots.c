/* cc_slots.c — see cc_slots.h.
 *
 * The hit path is here: `cache[key]` and `cache.get(key)` when the key object itself is the first or
 * second thing its tag points to. It is a leaf: no call, no register saved, no Python. Whatever
 * else may be the case (another object that is equal, a lifetime, an absent key's KeyError) goes
 * on in a function that is called last, with the hash in hand. */
#include "cc_slots.h"

#include "cc_hit.h"

#include <math.h>

/* What Cython made, and NumPy's type; written once, when the module is imported. */
static traverseproc fields_traverse;
static inquiry fields_clear;
static destructor fields_dealloc;
static objobjargproc ass_subscript;
static PyTypeObject *array;

static cc_table *table_of(PyObject *self)
{
    return &((cc_cache_head *)self)->table;
}

static int cache_traverse(PyObject *self, visitproc visit, void *arg)
{
    int stop = cc_table_traverse(table_of(self), visit, arg);
    return stop ? stop : fields_traverse(self, visit, arg);
}

static int cache_clear(PyObject *self)
{
    cc_table_clear(table_of(self));
    Py_CLEAR(table_of(self)->timer);
    return fields_clear(self);
}

/* Weak references go first: releasing the values may run code that would follow them to a cache that
   is half gone. A cache in a cache in a cache must not use up the stack: hence the trashcan. */
static void cache_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, cache_dealloc)
    PyObject_ClearWeakRefs(self);
    cc_table_free(table_of(self));
    fields_dealloc(self);
    Py_TRASHCAN_END
}

/* Of types that no array type inherits from. */
#define PLAIN_FLAGS                                                                                \
    (Py_TPFLAGS_UNICODE_SUBCLASS | Py_TPFLAGS_BYTES_SUBCLASS | Py_TPFLAGS_LONG_SUBCLASS            \
     | Py_TPFLAGS_TUPLE_SUBCLASS | Py_TPFLAGS_LIST_SUBCLASS | Py_TPFLAGS_DICT_SUBCLASS)

/* A hit on a record with a lifetime; NULL, without an exception: the slow way must tell. */
CC_INLINE PyObject *hit_if_fresh(cc_table *table, cc_record *record)
{
    return CC_LIKELY(cc_table_fresh(table, record)) ? cc_hit(table, record) : NULL;
}

/* --- cache[key] ----------------------------------------------------------------------------- */

/* KeyError, or what a subclass's __missing__ returns. */
static CC_COLD PyObject *missing(PyObject *self, PyObject *key)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__missing__");
    if (method == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
            PyObject *arguments = PyTuple_Pack(1, key); /* or a tuple would be taken for them */
            if (arguments != NULL)
                PyErr_SetObject(PyExc_KeyError, arguments);
            Py_XDECREF(arguments);
        }
        return NULL;
    }
    PyObject *value = PyObject_CallFunctionObjArgs(method, self, key, NULL);
    Py_DECREF(method);
    return value;
}

static CC_NOINLINE PyObject *subscript_hashed(PyObject *self, PyObject *key, uint32_t hash)
{
    PyObject *value;
    switch (cc_table_look_up_hashed(table_of(self), key, hash, &value)) {
    case CC_FOUND: return value;
    case CC_FAILED: return NULL;
    default: return missing(self, key);
    }
}

static CC_NOINLINE PyObject *subscript_unhashed(PyObject *self, PyObject *key)
{
    uint32_t hash;
    if (!cc_key_hash(key, table_of(self)->secret, &hash))
        return NULL;
    return subscript_hashed(self, key, hash);
}

static CC_NOINLINE PyObject *subscript_expiring(PyObject *self, PyObject *key, cc_record *record)
{
    PyObject *value = hit_if_fresh(table_of(self), record);
    return value != NULL ? value : subscript_hashed(self, key, record->meta.hash);
}

PyObject *cc_cache_subscript(PyObject *self, PyObject *key)
{
    cc_table *table = table_of(self);
    uint32_t hash;
    bool absent;
    if (CC_UNLIKELY(!cc_hash_at_hand(table, key, &hash)))
        return subscript_unhashed(self, key);
    cc_record *record = cc_find_identical(table, key, hash, &absent);
    if (CC_UNLIKELY(record == NULL))
        return subscript_hashed(self, key, hash);
    if (record->meta.expiry != 0)
        return subscript_expiring(self, key, record);
    return cc_hit(table, record);
}

/* --- cache[key] = value --------------------------------------------------------------------- */

/* True for arrays; types that are met often are told apart without a walk of their bases. */
CC_INLINE bool may_need_snapshot(PyObject *value)
{
    return !(Py_TYPE(value)->tp_flags & PLAIN_FLAGS) && PyObject_TypeCheck(value, array);
}

static int cache_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    if (value == NULL || !((cc_cache_head *)self)->plain || may_need_snapshot(value))
        return ass_subscript(self, key, value);
    cc_item item = {.key = key, .value = value, .ttl = INFINITY, .cost = 1};
    return cc_table_set(table_of(self), &item, NULL) == CC_FAILED ? -1 : 0;
}

/* --- cache.get(key, default=None) ----------------------------------------------------------- */

PyDoc_STRVAR(get_doc, "get($self, key, default=None)\n--\n\n"
                      "The value of a key, or `default`.");

static CC_NOINLINE PyObject *get_hashed(PyObject *self, PyObject *key, uint32_t hash,
                                        PyObject *absent)
{
    PyObject *value;
    switch (cc_table_look_up_hashed(table_of(self), key, hash, &value)) {
    case CC_FOUND: return value;
    case CC_FAILED: return NULL;
    default: return Py_NewRef(absent);
    }
}

static CC_NOINLINE PyObject *get_unhashed(PyObject *self, PyObject *key, PyObject *absent)
{
    uint32_t hash;
    if (!cc_key_hash(key, table_of(self)->secret, &hash))
        return NULL;
    return get_hashed(self, key, hash, absent);
}

static CC_NOINLINE PyObject *get_expiring(PyObject *self, PyObject *key, cc_record *record,
                                          PyObject *absent)
{
    PyObject *value = hit_if_fresh(table_of(self), record);
    return value != NULL ? value : get_hashed(self, key, record->meta.hash, absent);
}

CC_INLINE PyObject *get(PyObject *self, PyObject *key, PyObject *absent)
{
    cc_table *table = table_of(self);
    uint32_t hash;
    bool surely_absent;
    if (CC_UNLIKELY(!cc_hash_at_hand(table, key, &hash)))
        return get_unhashed(self, key, absent);
    cc_record *record = cc_find_identical(table, key, hash, &surely_absent);
    if (record == NULL) {
        if (CC_UNLIKELY(!surely_absent))
            return get_hashed(self, key, hash, absent);
        table->misses++;
        cc_policy_expect(&table->policy, hash);
        return Py_NewRef(absent);
    }
    if (record->meta.expiry != 0)
        return get_expiring(self, key, record, absent);
    return cc_hit(table, record);
}

/* Calls with keywords, or with a wrong number of arguments. */
static CC_COLD PyObject *get_unusual(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                     PyObject *names)
{
    PyObject *given[2] = {count > 0 ? args[0] : NULL, count > 1 ? args[1] : NULL};
    if (count > 2)
        return PyErr_Format(PyExc_TypeError, "get() takes at most 2 arguments (%zd given)", count);
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int at = PyUnicode_CompareWithASCIIString(name, "key") == 0       ? 0
                 : PyUnicode_CompareWithASCIIString(name, "default") == 0 ? 1
                                                                          : -1;
        if (at < 0)
            return PyErr_Format(PyExc_TypeError, "get() got an unexpected argument %R", name);
        if (given[at] != NULL)
            return PyErr_Format(PyExc_TypeError, "get() got two values for argument %R", name);
        given[at] = args[count + i];
    }
    if (given[0] == NULL) {
        PyErr_SetString(PyExc_TypeError, "get() missing its argument 'key'");
        return NULL;
    }
    return get(self, given[0], given[1] != NULL ? given[1] : Py_None);
}

static PyObject *cache_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (CC_LIKELY(count == 1 && names == NULL))
        return get(self, args[0], Py_None);
    if (CC_LIKELY(count == 2 && names == NULL))
        return get(self, args[0], args[1]);
    return get_unusual(self, args, count, names);
}

static PyMethodDef get_method = {
    "get", (PyCFunction)(void (*)(void))cache_get, METH_FASTCALL | METH_KEYWORDS, get_doc};

/* --- the type ------------------------------------------------------------------------------- */

/* Puts a function into a slot that Cython filled, and into the descriptor that subclasses take it from. */
static bool replace(PyTypeObject *type, const char *name, void *function)
{
    PyObject *wrapper = PyDict_GetItemString(type->tp_dict, name);
    if (wrapper == NULL || Py_TYPE(wrapper) != &PyWrapperDescr_Type) {
        PyErr_Format(PyExc_SystemError, "Cache.%s was compiled as something else than a slot", name);
        return false;
    }
    ((PyWrapperDescrObject *)wrapper)->d_wrapped = function;
    return true;
}

int cc_cache_install(PyTypeObject *type, PyTypeObject *array_type, size_t table_offset,
                     size_t plain_offset)
{
    if (table_offset != offsetof(cc_cache_head, table)
        || plain_offset != offsetof(cc_cache_head, plain)) {
        PyErr_SetString(PyExc_SystemError, "Cache was compiled with its fields in other places");
        return -1;
    }
    PyObject *get_descriptor = PyDescr_NewMethod(type, &get_method);
    if (get_descriptor == NULL)
        return -1;
    int failed = PyDict_SetItemString(type->tp_dict, "get", get_descriptor);
    Py_DECREF(get_descriptor);
    if (failed || !replace(type, "__getitem__", (void *)cc_cache_subscript)
        || !replace(type, "__setitem__", (void *)cache_ass_subscript)
        || !replace(type, "__delitem__", (void *)cache_ass_subscript))
        return -1;
    fields_traverse = type->tp_traverse;
    fields_clear = type->tp_clear;
    fields_dealloc = type->tp_dealloc;
    ass_subscript = type->tp_as_mapping->mp_ass_subscript;
    array = array_type;
    type->tp_traverse = cache_traverse;
    type->tp_clear = cache_clear;
    type->tp_dealloc = cache_dealloc;
    type->tp_as_mapping->mp_subscript = cc_cache_subscript;
    type->tp_as_mapping->mp_ass_subscript = cache_ass_subscript;
    type->tp_as_sequence->sq_item = NULL;
    type->tp_as_sequence->sq_ass_item = NULL;
    type->tp_flags |= Py_TPFLAGS_MAPPING; /* for match statements; registering sets it on heap types only */
    PyType_Modified(type);
    return 0;
}
