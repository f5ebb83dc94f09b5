/* cc_commands.h — the commands that cc_serve.h executes: how one is called, and found by its name. */
#ifndef CC_COMMANDS_H
#define CC_COMMANDS_H

#include "cc_serve.h"

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

#endif
