/* cc_commands_inner.h — what the files of commands share. */
#ifndef CC_COMMANDS_INNER_H
#define CC_COMMANDS_INNER_H

#include "cc_commands.h"

#include "cc_raw.h"

#define CC_WRONG_TYPE "WRONGTYPE Operation against a key holding the wrong kind of value"

/* cc_commands_hash.c */
cc_run cc_run_hget(const cc_call *call);
cc_run cc_run_hmget(const cc_call *call);
cc_run cc_run_hgetall(const cc_call *call);

/* A look-up, counted, of what was found and is not surely fresh. */
cc_result cc_look_up_slowly(cc_table *table, cc_raw raw, uint32_t hash, PyObject **value);

CC_INLINE cc_run put_error(const cc_call *call, const char *text)
{
    call->service->faults[text[0] == 'W'   ? CC_FAULT_WRONGTYPE
                          : text[0] == 'O' ? CC_FAULT_OOM
                                           : CC_FAULT_ERR]++;
    cc_resp_put_line(call->out, '-', text, strlen(text));
    return CC_RUN_DONE;
}

/* The bytes of a key: the byte before an argument, of its framing, becomes the database's number. */
CC_INLINE cc_raw key_at(const cc_call *call, uint32_t i)
{
    cc_resp_arg arg = call->args[i];
    char *bytes = call->data + arg.at - 1;
    bytes[0] = (char)call->session->database;
    return (cc_raw){bytes, (size_t)arg.size + 1};
}

CC_INLINE PyObject *new_bytes(cc_raw raw)
{
    return PyBytes_FromStringAndSize(raw.bytes, (Py_ssize_t)raw.size);
}

CC_INLINE PyObject *value_at(const cc_call *call, uint32_t i)
{
    cc_resp_arg arg = call->args[i];
    return new_bytes((cc_raw){call->data + arg.at, arg.size});
}

/* A look-up, counted; on a hit *value is a new reference. */
CC_INLINE cc_result look_up(cc_table *table, cc_raw raw, uint32_t hash, PyObject **value)
{
    cc_record *record = cc_raw_find(table, raw, hash);
    if (CC_LIKELY(record != NULL && cc_table_fresh(table, record))) {
        *value = cc_hit(table, record);
        return CC_FOUND;
    }
    if (CC_LIKELY(record == NULL)) {
        table->misses++;
        return CC_ABSENT;
    }
    return cc_look_up_slowly(table, raw, hash, value);
}

#endif
