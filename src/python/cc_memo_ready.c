/* cc_memo_ready.c — see cc_memo_ready.h.
 *
 * It has what a coroutine has (await, send, throw, close), so that `asyncio.create_task`, `gather`,
 * `wait_for` and `isinstance(x, collections.abc.Coroutine)` take it for one. Like any coroutine it
 * is awaited once; unlike others it may be dropped unawaited, since nothing is lost by it. */
#include "cc_memo_ready.h"

typedef struct {
    PyObject_HEAD
    PyObject *value; /* owned; NULL: awaited or closed */
} ready;

static PyTypeObject ready_type;

PyObject *cc_ready(PyObject *value)
{
    ready *self = PyObject_GC_New(ready, &ready_type);
    if (self == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    self->value = value;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* The value, which leaves; NULL: an exception is set. */
static PyObject *take(PyObject *self)
{
    PyObject *value = ((ready *)self)->value;
    if (value == NULL)
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    ((ready *)self)->value = NULL;
    return value;
}

/* `await`, and a task's step: the value as a result, no StopIteration made. */
static PySendResult ready_am_send(PyObject *self, PyObject *sent, PyObject **result)
{
    *result = NULL;
    if (sent != NULL && sent != Py_None)
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
    else
        *result = take(self);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* StopIteration(value), which the caller wants as an exception. */
static PyObject *stop(PyObject *value)
{
    if (value == NULL)
        return NULL;
    PyObject *end = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (end != NULL) {
        PyErr_SetObject(PyExc_StopIteration, end);
        Py_DECREF(end);
    }
    return NULL;
}

static PyObject *ready_next(PyObject *self)
{
    return stop(take(self));
}

static PyObject *ready_send(PyObject *self, PyObject *sent)
{
    PyObject *value;
    ready_am_send(self, sent, &value);
    return stop(value);
}

/* throw(exception), or the older throw(type, value, traceback). */
static PyObject *ready_throw(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *error = count > 1 && args[1] != Py_None ? args[1] : count > 0 ? args[0] : NULL;
    if (count < 1 || count > 3)
        return PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments (%zd given)", count);
    Py_CLEAR(((ready *)self)->value);
    if (PyExceptionInstance_Check(error))
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    else if (PyExceptionClass_Check(args[0]))
        PyErr_SetObject(args[0], error == args[0] ? NULL : error);
    else
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    return NULL;
}

static PyObject *ready_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_CLEAR(((ready *)self)->value);
    Py_RETURN_NONE;
}

static int ready_clear(PyObject *self)
{
    Py_CLEAR(((ready *)self)->value);
    return 0;
}

static void ready_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    ready_clear(self);
    PyObject_GC_Del(self);
}

static int ready_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((ready *)self)->value);
    return 0;
}

static PyMethodDef methods[] = {
    {"send", ready_send, METH_O, PyDoc_STR("send(None): end with StopIteration(value).")},
    {"throw", (PyCFunction)(void (*)(void))ready_throw, METH_FASTCALL,
     PyDoc_STR("throw(error): end with that error.")},
    {"close", ready_close, METH_NOARGS, PyDoc_STR("close(): let go of the value.")},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods async_methods = {.am_await = PyObject_SelfIter, .am_send = ready_am_send};

static PyTypeObject ready_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "cachecore._memo.Ready",
    .tp_doc = PyDoc_STR("A coroutine that returns a remembered value at once."),
    .tp_basicsize = sizeof(ready),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = ready_dealloc,
    .tp_traverse = ready_traverse,
    .tp_clear = ready_clear,
    .tp_as_async = &async_methods,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = ready_next,
    .tp_methods = methods,
};

int cc_ready_ready(void)
{
    return PyType_Ready(&ready_type);
}
