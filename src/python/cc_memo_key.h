/* cc_memo_key.h — calls as keys: the arguments of a memoized call, compared without building
 * anything, and the key object under which its result is kept.
 *
 * Two calls are the same when they were written the same way: as many positional arguments, the
 * same names in the same order, equal values; of the same types as well, if the key says `typed`. */
#ifndef CC_MEMO_KEY_H
#define CC_MEMO_KEY_H

#include "cc_table.h"

/* A call as vectorcall hands it over. Everything is borrowed. */
typedef struct {
    PyObject *const *args; /* positional ones, then those given by name */
    Py_ssize_t count;      /* of all of them */
    PyObject *names;       /* a tuple of the last ones' names, or NULL */
    Py_hash_t hash;
    bool typed;
} cc_call;

/* Fills *call in, but for its hash. */
CC_INLINE void cc_call_init(cc_call *call, PyObject *const *args, Py_ssize_t positional,
                            PyObject *names, bool typed)
{
    call->args = args;
    call->count = positional;
    call->names = NULL;
    if (names != NULL && PyTuple_GET_SIZE(names) != 0) {
        call->count += PyTuple_GET_SIZE(names);
        call->names = names;
    }
    call->typed = typed;
}

/* Hashes every argument once; may run any code. false: an exception is set. */
bool cc_call_hash(cc_call *call);

/* Compares a call with a record whose hash agrees, without running Python code: a cc_comparison. */
cc_equality cc_call_compare(const cc_record *record, uint32_t hash, const void *call);

/* The key object of a call, whose hash is there. NULL: an exception is set. */
PyObject *cc_call_key(const cc_call *call);

/* Readies the type of key objects. -1: an exception is set. */
int cc_call_key_ready(void);

#endif
