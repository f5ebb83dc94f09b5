/* cc_serve.h — commands that are executed where they were received: parsed, looked up, answered.
 *
 * What most requests ask for runs here, from the bytes of the request to those of the reply, without
 * a Python object for either. A key is the bytes object of one byte, the database's number, and the
 * name; it is looked up by the bytes of the request. Whatever is not known here, or only in another
 * form (SET with NX), or not allowed just now, is left to the caller, untouched.
 *
 * The caches served hold exact bytes as keys, and bytes or dicts as values: nothing here but the
 * table's timer and callbacks runs Python code. Thread safety: the GIL. */
#ifndef CC_SERVE_H
#define CC_SERVE_H

#include "cc_table.h"

#include "cc_resp.h"

/* What a command needs and a client may do. */
enum {
    CC_MAY_CONNECT = 1, /* what touches no data: PING */
    CC_MAY_READ = 2,
    CC_MAY_WRITE = 4,
    CC_MAY_ADMINISTER = 8,
};

enum { CC_HOT_COMMANDS = 32 }; /* room for counts; the table is in cc_commands.c */

/* What all clients share. */
typedef struct {
    cc_table *table;
    unsigned slow; /* commands that need any of these are left to the caller */
    bool proxy;    /* absent keys are left to the caller too */
    size_t pause;  /* bytes of output at which a client's commands wait */
    size_t point;  /* bytes from which on values are pointed at, not copied */
    PyObject *on_evict; /* borrowed; NULL: nobody is told */
    uint64_t commands;              /* executed, here and by the caller */
    uint64_t calls[CC_HOT_COMMANDS]; /* executed here, by the command's number */
} cc_service;

/* What one client is. */
typedef struct {
    const cc_resp_limits *limits;
    uint8_t database, protocol;
    uint8_t may;
    bool slow; /* everything is left to the caller: a transaction, replies that are not there yet */
} cc_session;

typedef enum {
    CC_SERVE_FAILED = -1, /* an exception is set */
    CC_SERVE_ALL,     /* what is left is the beginning of a command, or nothing */
    CC_SERVE_COMMAND, /* the request is a command for the caller */
    CC_SERVE_FULL,    /* the output is long enough */
    CC_SERVE_BAD,     /* the protocol is broken: *fault */
} cc_serve_end;

typedef enum {
    CC_RUN_FAILED = -1, /* an exception is set */
    CC_RUN_DONE,
    CC_RUN_NOT_MINE, /* nothing was done */
} cc_run;

/* Executes the commands in data. *used: the bytes of those that are done. */
cc_serve_end cc_serve(cc_service *service, cc_session *session, cc_resp_request *request,
                      cc_out *out, char *data, size_t size, size_t *used, cc_resp_result *fault);

/* Executes one command, whatever the session says. */
cc_run cc_serve_one(cc_service *service, cc_session *session, const cc_resp_request *request,
                    cc_out *out, char *data);

/* The name of a command by its number, and NULL after the last. */
const char *cc_hot_name(unsigned number);

/* Puts a value as a bulk; large ones are pointed at, and kept until they are sent. */
void cc_serve_put_value(const cc_service *service, cc_out *out, PyObject *value);

/* Lets go of an owner of what is pointed at. */
void cc_serve_release(void *owner);

#endif
