/* cc_serve.c — see cc_serve.h. */
#include "cc_serve.h"

#include "cc_commands.h"

CC_INLINE cc_run run(cc_service *service, const cc_session *session,
                     const cc_resp_request *request, cc_out *out, char *data, const cc_hot *hot,
                     unsigned number)
{
    cc_call call = {service, session, out, data, request->args, request->count};
    cc_run result = hot->run(&call);
    if (CC_LIKELY(result == CC_RUN_DONE)) {
        service->commands++;
        service->calls[number]++;
    }
    return result;
}

CC_INLINE const cc_hot *find(const cc_resp_request *request, const char *data, unsigned *number)
{
    return cc_hot_find(data + request->args[0].at, request->args[0].size, number);
}

cc_serve_end cc_serve(cc_service *service, cc_session *session, cc_resp_request *request,
                      cc_out *out, char *data, size_t size, size_t *used, cc_resp_result *fault)
{
    *used = 0;
    while (*used < size) {
        unsigned number;
        char *command = data + *used;
        cc_resp_result result = cc_resp_parse(request, command, size - *used, session->limits);
        if (CC_LIKELY(result == CC_RESP_READY)) {
            const cc_hot *hot = session->slow ? NULL : find(request, command, &number);
            if (hot == NULL || (hot->needs & (~(unsigned)session->may | service->slow)) != 0)
                return CC_SERVE_COMMAND;
            cc_run done = run(service, session, request, out, command, hot, number);
            if (CC_UNLIKELY(done != CC_RUN_DONE))
                return done == CC_RUN_FAILED ? CC_SERVE_FAILED : CC_SERVE_COMMAND;
        } else if (result == CC_RESP_MORE) {
            break;
        } else if (result != CC_RESP_NOTHING) {
            *fault = result;
            return CC_SERVE_BAD;
        }
        *used += request->at;
        cc_resp_next(request);
        if (CC_UNLIKELY(cc_out_left(out) >= service->pause))
            return CC_SERVE_FULL;
    }
    return CC_SERVE_ALL;
}

cc_run cc_serve_one(cc_service *service, cc_session *session, const cc_resp_request *request,
                    cc_out *out, char *data)
{
    unsigned number;
    const cc_hot *hot = find(request, data, &number);
    return hot == NULL ? CC_RUN_NOT_MINE
                       : run(service, session, request, out, data, hot, number);
}
