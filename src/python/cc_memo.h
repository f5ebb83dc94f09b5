/* cc_memo.h — the call of a memoized function, as far as a hit goes. */
#ifndef CC_MEMO_H
#define CC_MEMO_H

#include "cc_memo_ready.h"

/* What every Memoized begins with, as its Cython declaration says too. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *cache; /* a Cache */
    PyObject *key;   /* makes the key of a call; None: the arguments are the key */
    int typed;
    int awaits; /* the function is a coroutine function */
} cc_memo;

/* What is called when nothing is remembered: the key of the call, and the call. */
typedef PyObject *const *cc_arguments;
typedef PyObject *(*cc_memo_missed)(PyObject *memo, PyObject *key, cc_arguments args,
                                    size_t flags, PyObject *names);

/* Completes the type that Cython made: vectorcall, and methods bound without an object for it.
   `head_size` is where the fields end that both declare. -1: an exception is set. */
int cc_memo_install(PyTypeObject *type, size_t head_size, cc_memo_missed missed);

/* Chooses the hit path of a memoized function whose fields are set. */
void cc_memo_prepare(PyObject *memo);

/* The key under which the result of a call is kept. NULL: an exception is set. */
PyObject *cc_memo_key(PyObject *memo, cc_arguments args, Py_ssize_t positional, PyObject *names);

#endif
