/* cc_commands.h — commands that run from the bytes of a request to those of its reply.
 *
 * What most requests ask for, without a Python object for the request or the reply. A key is the
 * bytes object of one byte, the database's number, and the name; it is looked up by the bytes of
 * the request. The caches served hold exact bytes as keys, and bytes or dicts as values: nothing here but
 * the table's timer and callbacks runs Python code. Thread safety: the GIL. */
#ifndef CC_COMMANDS_H
#define CC_COMMANDS_H

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

/* The errors that are told here, by the words they begin with. */
enum { CC_FAULT_ERR, CC_FAULT_WRONGTYPE, CC_FAULT_OOM, CC_FAULTS };

/* What all clients share. */
typedef struct {
    cc_table *table;
    unsigned slow; /* commands that need any of these are left to the caller */
    bool proxy;    /* absent keys are left to the caller too */
    size_t pause;  /* bytes of output at which a client's commands wait */
    size_t point;  /* bytes from which on values are pointed at, not copied */
    PyObject *on_evict; /* borrowed; NULL: nobody is told */
    double ttl, jitter; /* of what is set without a lifetime, as a Cache has them */
    uint64_t commands;              /* executed, here and by the caller */
    uint64_t calls[CC_HOT_COMMANDS]; /* executed here, by the command's number */
    uint64_t faults[CC_FAULTS];      /* errors that were told here */
} cc_service;

/* What one client is. */
typedef struct {
    const cc_resp_limits *limits;
    uint8_t database, protocol;
    uint8_t may;
    bool slow; /* everything is left to the caller: a transaction, replies that are not there yet */
} cc_session;

typedef enum {
    CC_RUN_FAILED = -1, /* an exception is set */
    CC_RUN_DONE,
    CC_RUN_NOT_MINE, /* nothing was done */
} cc_run;

typedef struct {
    cc_service *service;
    const cc_session *session;
    cc_out *out;
    char *data; /* the command's bytes, writable */
    const cc_resp_arg *args;
    uint32_t count;
} cc_call;

typedef struct {
    const char *name;
    uint32_t size; /* of the name */
    cc_run (*run)(const cc_call *call);
    unsigned needs; /* CC_MAY_... */
} cc_hot;

/* By a name in letters of either case; NULL: none of ours. */
const cc_hot *cc_hot_find(const char *text, uint32_t size, unsigned *number);

/* The name of a command by its number, and NULL after the last. */
const char *cc_hot_name(unsigned number);

/* Puts a value as a bulk; large ones are pointed at, and kept until they are sent. */
void cc_value_put(const cc_service *service, cc_out *out, PyObject *value);

/* Lets go of an owner of what is pointed at. */
void cc_value_release(void *owner);

#endif
