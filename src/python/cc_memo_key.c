/* cc_memo_key.c — see cc_memo_key.h. */
#include "cc_memo_key.h"

/* The key of a call: it holds what the call was made with. Immutable; its hash is kept, so that
   no argument is hashed twice. */
typedef struct {
    PyObject_VAR_HEAD /* ob_size: the number of arguments */
    Py_hash_t hash;
    PyObject *names; /* owned; NULL: none */
    bool typed;
    PyObject *args[]; /* owned */
} call_key;

enum { DEPTH = 4 }; /* of tuples in tuples that are compared without Python */

static PyTypeObject key_type;

/* xxHash's round for 64-bit lanes (Yann Collet, 2014), as tuples use it; the count ends it. */
CC_INLINE uint64_t mix(uint64_t hash, Py_hash_t lane)
{
    hash += (uint64_t)lane * 14029467366897019727ull;
    hash = hash << 31 | hash >> 33;
    return hash * 11400714785074694791ull;
}

bool cc_call_hash(cc_call *call)
{
    uint64_t hash = 2870177450012600261ull;
    Py_hash_t lane;
    for (Py_ssize_t i = 0; i < call->count; i++) {
        if (CC_UNLIKELY(!cc_key_full_hash(call->args[i], &lane)))
            return false;
        hash = mix(hash, lane);
    }
    for (Py_ssize_t i = 0; call->names != NULL && i < PyTuple_GET_SIZE(call->names); i++) {
        if (CC_UNLIKELY(!cc_key_full_hash(PyTuple_GET_ITEM(call->names, i), &lane)))
            return false;
        hash = mix(hash, lane);
    }
    hash += (uint64_t)call->count;
    call->hash = (Py_hash_t)(hash == (uint64_t)-1 ? 1 : hash);
    return true;
}

/* Beyond plain objects, what is often made anew for each call: floats, and tuples of such. */
static cc_equality compare_made_anew(PyObject *a, PyObject *b, unsigned depth)
{
    if (a == b)
        return CC_EQUAL;
    if (PyFloat_CheckExact(a) && PyFloat_CheckExact(b))
        return PyFloat_AS_DOUBLE(a) == PyFloat_AS_DOUBLE(b) ? CC_EQUAL : CC_DIFFERENT;
    if (!PyTuple_CheckExact(a) || !PyTuple_CheckExact(b) || depth == 0)
        return cc_key_equal(a, b);
    cc_equality equality = PyTuple_GET_SIZE(a) == PyTuple_GET_SIZE(b) ? CC_EQUAL : CC_DIFFERENT;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a) && equality == CC_EQUAL; i++)
        equality = compare_made_anew(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i), depth - 1);
    return equality;
}

CC_INLINE cc_equality compare_objects(PyObject *a, PyObject *b)
{
    return CC_LIKELY(a == b) ? CC_EQUAL : compare_made_anew(a, b, DEPTH);
}

/* Names are compared as values are; most often both calls come from the same line of code. */
static cc_equality compare_names(PyObject *a, PyObject *b)
{
    if (CC_LIKELY(a == b))
        return CC_EQUAL;
    if (a == NULL || b == NULL || PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b))
        return CC_DIFFERENT;
    cc_equality equality = CC_EQUAL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a) && equality == CC_EQUAL; i++)
        equality = compare_objects(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i));
    return equality;
}

cc_equality cc_call_compare(const cc_record *record, uint32_t hash, const void *wanted)
{
    const cc_call *call = wanted;
    const call_key *key = (const call_key *)cc_record_key(record);
    if (record->meta.hash != hash || Py_TYPE(key) != &key_type || key->hash != call->hash
        || Py_SIZE(key) != call->count)
        return CC_DIFFERENT;
    cc_equality equality = compare_names(key->names, call->names);
    for (Py_ssize_t i = 0; i < call->count && CC_LIKELY(equality == CC_EQUAL); i++) {
        if (call->typed && Py_TYPE(key->args[i]) != Py_TYPE(call->args[i]))
            return CC_DIFFERENT;
        equality = compare_objects(key->args[i], call->args[i]);
    }
    return equality;
}

PyObject *cc_call_key(const cc_call *call)
{
    call_key *key = PyObject_GC_NewVar(call_key, &key_type, call->count);
    if (key == NULL)
        return NULL;
    bool tracked = false;
    for (Py_ssize_t i = 0; i < call->count; i++) {
        key->args[i] = Py_NewRef(call->args[i]);
        tracked = tracked || PyObject_IS_GC(call->args[i]);
    }
    key->hash = call->hash;
    key->names = Py_XNewRef(call->names);
    key->typed = call->typed;
    if (tracked) /* strings and numbers need no garbage collection, nor do their keys */
        PyObject_GC_Track(key);
    return (PyObject *)key;
}

/* --- the type of keys ----------------------------------------------------------------------- */

static void key_dealloc(PyObject *self)
{
    call_key *key = (call_key *)self;
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, key_dealloc)
    for (Py_ssize_t i = 0; i < Py_SIZE(key); i++)
        Py_DECREF(key->args[i]);
    Py_XDECREF(key->names);
    PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static int key_traverse(PyObject *self, visitproc visit, void *arg)
{
    call_key *key = (call_key *)self;
    for (Py_ssize_t i = 0; i < Py_SIZE(key); i++)
        Py_VISIT(key->args[i]);
    Py_VISIT(key->names);
    return 0;
}

static Py_hash_t key_hash(PyObject *self)
{
    return ((call_key *)self)->hash;
}

/* 1: equal, 0: not, -1: an exception is set. Runs any code; both keys are held by the caller. */
static int equal_keys(const call_key *a, const call_key *b)
{
    if (a->hash != b->hash || a->typed != b->typed || Py_SIZE(a) != Py_SIZE(b)
        || (a->names == NULL) != (b->names == NULL))
        return 0;
    int equal = a->names == b->names ? 1 : PyObject_RichCompareBool(a->names, b->names, Py_EQ);
    for (Py_ssize_t i = 0; i < Py_SIZE(a) && equal == 1; i++) {
        if (a->typed && Py_TYPE(a->args[i]) != Py_TYPE(b->args[i]))
            return 0;
        equal = PyObject_RichCompareBool(a->args[i], b->args[i], Py_EQ);
    }
    return equal;
}

static PyObject *key_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(other) != &key_type || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    int equal = equal_keys((call_key *)self, (call_key *)other);
    return equal < 0 ? NULL : PyBool_FromLong(equal == (op == Py_EQ));
}

/* CallKey(1, 'a', n=3): how the call was written. */
static PyObject *key_repr(PyObject *self)
{
    call_key *key = (call_key *)self;
    Py_ssize_t named = key->names ? PyTuple_GET_SIZE(key->names) : 0;
    PyObject *text = PyUnicode_FromString("CallKey("), *name, *next;
    for (Py_ssize_t i = 0; text != NULL && i < Py_SIZE(key); i++) {
        const char *comma = i ? ", " : "";
        name = i < Py_SIZE(key) - named ? NULL
                                        : PyTuple_GET_ITEM(key->names, i - Py_SIZE(key) + named);
        next = name ? PyUnicode_FromFormat("%U%s%U=%R", text, comma, name, key->args[i])
                    : PyUnicode_FromFormat("%U%s%R", text, comma, key->args[i]);
        Py_SETREF(text, next);
    }
    if (text != NULL)
        Py_SETREF(text, PyUnicode_FromFormat("%U)", text));
    return text;
}

static PyTypeObject key_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cachecore._memo.CallKey",
    .tp_doc = PyDoc_STR("The arguments of a memoized call, as the key of its result."),
    .tp_basicsize = offsetof(call_key, args),
    .tp_itemsize = sizeof(PyObject *),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = key_dealloc,
    .tp_traverse = key_traverse,
    .tp_hash = key_hash,
    .tp_richcompare = key_compare,
    .tp_repr = key_repr,
};

int cc_call_key_ready(void)
{
    return PyType_Ready(&key_type);
}
