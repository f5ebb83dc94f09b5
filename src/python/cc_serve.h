/* cc_serve.h — commands that are executed where they were received: parsed, looked up, answered.
 *
 * Whatever cc_commands.h does not know, or only in another form (SET with NX), or what is not allowed
 * just now, is left to the caller, untouched. Thread safety: the GIL. */
#ifndef CC_SERVE_H
#define CC_SERVE_H

#include "cc_commands.h"

typedef enum {
    CC_SERVE_FAILED = -1, /* an exception is set */
    CC_SERVE_ALL,     /* what is left is the beginning of a command, or nothing */
    CC_SERVE_COMMAND, /* the request is a command for the caller */
    CC_SERVE_FULL,    /* the output is long enough */
    CC_SERVE_BAD,     /* the protocol is broken: *fault */
} cc_serve_end;

/* Executes the commands in data. *used: the bytes of those that are done. */
cc_serve_end cc_serve(cc_service *service, cc_session *session, cc_resp_request *request,
                      cc_out *out, char *data, size_t size, size_t *used, cc_resp_result *fault);

/* Executes one command, whatever the session says. */
cc_run cc_serve_one(cc_service *service, cc_session *session, const cc_resp_request *request,
                    cc_out *out, char *data);

#endif
