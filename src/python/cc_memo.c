/* cc_memo.c — see cc_memo.h.
 *
 * One positional argument that is exactly a str, bytes or int is its own key, and looked up as
 * `cache[key]` is. Of any other call the arguments are hashed and compared where they lie: a key
 * object is made on a miss only. No plain key equals a key object, so f("a") and f(("a",)) cannot
 * meet, whatever the arguments are. */
#include "cc_memo.h"

#include "cc_hit.h"
#include "cc_memo_key.h"
#include "cc_slots.h"

/* Of _memo.pyx; written once, when the module is imported. */
static cc_memo_missed missed;

static cc_table *table_of(PyObject *self)
{
    return &((cc_cache_head *)((cc_memo *)self)->cache)->table;
}

static PyObject *outcome(PyObject *self, cc_record *record)
{
    PyObject *value = cc_hit(table_of(self), record);
    return ((cc_memo *)self)->awaits ? cc_ready(value) : value;
}

/* A call whose key is there, and cheap to have or made already. */
static PyObject *call_keyed(PyObject *self, PyObject *key, uint32_t hash, PyObject *const *args,
                            size_t flags, PyObject *names)
{
    cc_record *record;
    if (CC_LIKELY(cc_table_probe(table_of(self), key, hash, &record) == CC_FOUND
                  && cc_table_fresh(table_of(self), record)))
        return outcome(self, record);
    return missed(self, key, args, flags, names);
}

static CC_NOINLINE PyObject *call_plain(PyObject *self, uint32_t hash, PyObject *const *args)
{
    return call_keyed(self, args[0], hash, args, 1, NULL);
}

static CC_NOINLINE PyObject *call_compound(PyObject *self, PyObject *const *args, size_t flags,
                                           PyObject *names)
{
    cc_table *table = table_of(self);
    cc_call call;
    cc_record *record;
    cc_call_init(&call, args, PyVectorcall_NARGS(flags), names, ((cc_memo *)self)->typed);
    if (CC_UNLIKELY(!cc_call_hash(&call)))
        return NULL;
    if (CC_LIKELY(cc_table_walk(table, cc_key_fold(call.hash, table->secret), cc_call_compare,
                                &call, &record) == CC_FOUND
                  && cc_table_fresh(table, record)))
        return outcome(self, record);
    PyObject *key = cc_call_key(&call);
    if (key == NULL)
        return NULL;
    PyObject *result = missed(self, key, args, flags, names);
    Py_DECREF(key);
    return result;
}

static CC_NOINLINE PyObject *call_unusual(PyObject *self, PyObject *const *args, size_t flags,
                                          PyObject *names)
{
    uint32_t hash;
    if (PyVectorcall_NARGS(flags) != 1 || names != NULL || !cc_key_plain(Py_TYPE(args[0])))
        return call_compound(self, args, flags, names);
    if (!cc_key_hash(args[0], table_of(self)->secret, &hash)) /* a str hashed for the first time */
        return NULL;
    return call_plain(self, hash, args);
}

CC_INLINE PyObject *call(PyObject *self, PyObject *const *args, size_t flags, PyObject *names,
                         bool awaits)
{
    cc_table *table = table_of(self);
    uint32_t hash;
    bool absent;
    if (CC_UNLIKELY(PyVectorcall_NARGS(flags) != 1 || names != NULL
                    || !cc_hash_at_hand(table, args[0], &hash)))
        return call_unusual(self, args, flags, names);
    cc_record *record = cc_find_identical(table, args[0], hash, &absent);
    if (CC_UNLIKELY(record == NULL || record->meta.expiry != 0))
        return call_plain(self, hash, args);
    PyObject *value = cc_hit(table, record);
    return awaits ? cc_ready(value) : value;
}

static PyObject *call_function(PyObject *self, PyObject *const *args, size_t flags,
                               PyObject *names)
{
    return call(self, args, flags, names, false);
}

static PyObject *call_coroutine_function(PyObject *self, PyObject *const *args, size_t flags,
                                         PyObject *names)
{
    return call(self, args, flags, names, true);
}

/* The key is whatever the user's function makes of the arguments. */
static PyObject *call_with_key(PyObject *self, PyObject *const *args, size_t flags,
                               PyObject *names)
{
    uint32_t hash;
    PyObject *key = PyObject_Vectorcall(((cc_memo *)self)->key, args, flags, names), *result = NULL;
    if (key == NULL)
        return NULL;
    if (cc_key_hash(key, table_of(self)->secret, &hash))
        result = call_keyed(self, key, hash, args, flags, names);
    Py_DECREF(key);
    return result;
}

PyObject *cc_memo_key(PyObject *self, PyObject *const *args, Py_ssize_t positional,
                      PyObject *names)
{
    cc_memo *memo = (cc_memo *)self;
    cc_call call;
    if (memo->key != Py_None)
        return PyObject_Vectorcall(memo->key, args, (size_t)positional, names);
    cc_call_init(&call, args, positional, names, memo->typed);
    if (call.count == 1 && call.names == NULL && cc_key_plain(Py_TYPE(args[0])))
        return Py_NewRef(args[0]);
    return cc_call_hash(&call) ? cc_call_key(&call) : NULL;
}

void cc_memo_prepare(PyObject *self)
{
    cc_memo *memo = (cc_memo *)self;
    memo->vectorcall = memo->key != Py_None ? call_with_key
                       : memo->awaits       ? call_coroutine_function
                                            : call_function;
}

int cc_memo_install(PyTypeObject *type, size_t head_size, cc_memo_missed on_miss)
{
    if (head_size != sizeof(cc_memo)) {
        PyErr_SetString(PyExc_SystemError, "Memoized was compiled with its fields in other places");
        return -1;
    }
    if (cc_call_key_ready() < 0 || cc_ready_ready() < 0)
        return -1;
    missed = on_miss;
    type->tp_vectorcall_offset = offsetof(cc_memo, vectorcall);
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
    PyType_Modified(type);
    return 0;
}
