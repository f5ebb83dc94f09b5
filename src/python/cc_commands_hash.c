/* cc_commands_hash.c — reading hashes, which are dicts of bytes. */
#include "cc_commands_inner.h"

/* A look-up of a hash, counted: *hash is a new reference, or NULL when there is none. NOT_MINE: it is
   something else, which the client has been told. */
static cc_run look_up_hash(const cc_call *call, PyObject **hash)
{
    cc_table *table = call->service->table;
    cc_raw raw = key_at(call, 1);
    cc_result result = look_up(table, raw, cc_raw_hash(table, raw), hash);
    if (result == CC_FAILED)
        return CC_RUN_FAILED;
    if (result == CC_ABSENT)
        *hash = NULL;
    if (result == CC_ABSENT || PyDict_Check(*hash))
        return CC_RUN_DONE;
    Py_DECREF(*hash);
    put_error(call, CC_WRONG_TYPE);
    return CC_RUN_NOT_MINE;
}

/* Puts the value of a field of a hash, or null; false: an exception is set. */
static bool put_field(const cc_call *call, PyObject *hash, uint32_t i)
{
    PyObject *value = NULL;
    if (hash != NULL) {
        PyObject *field = value_at(call, i);
        if (field == NULL)
            return false;
        value = PyDict_GetItemWithError(hash, field);
        Py_DECREF(field);
    }
    if (value != NULL)
        cc_value_put(call->service, call->out, value);
    else
        cc_resp_put_null(call->out, call->session->protocol);
    return value != NULL || !PyErr_Occurred();
}

static cc_run put_fields(const cc_call *call, bool many)
{
    PyObject *hash;
    cc_run result = look_up_hash(call, &hash);
    if (result != CC_RUN_DONE)
        return result == CC_RUN_NOT_MINE ? CC_RUN_DONE : result;
    if (many)
        cc_resp_put_head(call->out, '*', call->count - 2);
    for (uint32_t i = 2; i < call->count && result == CC_RUN_DONE; i++)
        if (!put_field(call, hash, i))
            result = CC_RUN_FAILED;
    Py_XDECREF(hash);
    return result;
}

/* What a proxy knows of a hash need not be all of it: it answers itself. */
cc_run cc_run_hget(const cc_call *call)
{
    return call->count != 3 || call->service->proxy ? CC_RUN_NOT_MINE : put_fields(call, false);
}

cc_run cc_run_hmget(const cc_call *call)
{
    return call->count < 3 || call->service->proxy ? CC_RUN_NOT_MINE : put_fields(call, true);
}

cc_run cc_run_hgetall(const cc_call *call)
{
    PyObject *hash, *field, *value;
    Py_ssize_t at = 0;
    if (call->count != 2 || call->service->proxy)
        return CC_RUN_NOT_MINE;
    cc_run result = look_up_hash(call, &hash);
    if (result != CC_RUN_DONE)
        return result == CC_RUN_NOT_MINE ? CC_RUN_DONE : result;
    bool map = call->session->protocol >= 3;
    Py_ssize_t count = hash != NULL ? PyDict_GET_SIZE(hash) : 0;
    cc_resp_put_head(call->out, map ? '%' : '*', map ? count : 2 * count);
    while (hash != NULL && PyDict_Next(hash, &at, &field, &value)) {
        cc_value_put(call->service, call->out, field);
        cc_value_put(call->service, call->out, value);
    }
    Py_XDECREF(hash);
    return CC_RUN_DONE;
}
