/* cc_memo_ready.h — what a memoized coroutine function returns on a hit: a coroutine that ends at
 * once, with the value. */
#ifndef CC_MEMO_READY_H
#define CC_MEMO_READY_H

#include "cc_table.h"

/* A coroutine that returns `value`, whose reference it takes over. NULL: an exception is set, and
   the reference is released. */
PyObject *cc_ready(PyObject *value);

/* Readies its type. -1: an exception is set. */
int cc_ready_ready(void);

#endif
