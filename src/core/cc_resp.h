/* cc_resp.h — RESP, the protocol of Redis: requests that arrive in parts, and the encoding of replies.
 *
 * A request is an array of bulk strings, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", or a line of words, "GET k\r\n".
 * The parser is given all bytes of a command that have come so far and says whether it is complete;
 * asked again with more of them it goes on where it was, so that a command costs the same however
 * it was cut. Its arguments are places in those bytes. Line ends are CR LF, nothing else. Memory is
 * taken as arguments arrive, never because a length announces them; a length beyond the limits is
 * refused when it is read. After the protocol's specification (redis.io, "Redis serialization
 * protocol specification"). Not thread safe. */
#ifndef CC_RESP_H
#define CC_RESP_H

#include "cc_out.h"

typedef struct {
    uint32_t max_args;    /* arguments, the command's name included */
    uint32_t max_bulk;    /* bytes of one argument */
    uint32_t max_line;    /* bytes of a line of words */
    uint32_t max_command; /* bytes of a command in all, its framing included */
} cc_resp_limits;

typedef struct {
    uint32_t at, size; /* a place in the command's bytes */
} cc_resp_arg;

/* A command that is being read; all zero at first. */
typedef struct {
    cc_resp_arg *args; /* owned */
    uint32_t room, count, wanted;
    uint32_t at;  /* bytes looked at; those of the command when it is complete */
    char got;     /* in place of the '$' */
} cc_resp_request;

typedef enum {
    CC_RESP_MORE,  /* the command goes on */
    CC_RESP_READY, /* args and count tell it; the next one begins at `at` */
    CC_RESP_NOTHING, /* an empty line or array, to be skipped: the next command begins at `at` */
    CC_RESP_BAD_COUNT,
    CC_RESP_BAD_BULK,
    CC_RESP_BAD_TYPE,  /* `got` in place of '$' */
    CC_RESP_BAD_END,   /* a line or bulk that CR LF does not end */
    CC_RESP_BAD_QUOTES,
    CC_RESP_LONG_LINE,
    CC_RESP_LONG_COMMAND,
    CC_RESP_HTTP, /* somebody speaks HTTP: a browser that was made to */
    CC_RESP_NO_MEMORY,
} cc_resp_result;

/* Looks at the `size` bytes of a command that have come; quoted words of a line are unquoted in place. */
cc_resp_result cc_resp_parse(cc_resp_request *request, char *data, size_t size,
                             const cc_resp_limits *limits);

/* Makes ready for the next command. */
CC_INLINE void cc_resp_next(cc_resp_request *request)
{
    request->count = request->wanted = request->at = 0;
}

void cc_resp_free(cc_resp_request *request);

/* What is wrong, as Redis says it, after "Protocol error: ". */
const char *cc_resp_fault(cc_resp_result result);

/* --- replies that pass through --------------------------------------------------------------- */

/* Where a stream of replies is; all zero at first. It needs no bytes again that it has seen. */
typedef struct {
    uint64_t values; /* that the reply still lacks; 0: between two replies */
    uint64_t left;   /* bytes of a bulk, or what a header says so far */
    uint8_t state;
    char type;      /* of the reply as a whole: one of + - : $ * _ , # ( ! = % ~ > */
    char header;    /* of the value that is read */
    bool negative;
    uint8_t digits;
} cc_resp_frame;

/* Goes on until a reply ends: READY, or MORE, or BAD_TYPE, BAD_COUNT, BAD_END. *used: bytes taken. */
cc_resp_result cc_resp_follow(cc_resp_frame *frame, const char *data, size_t size, size_t *used);

/* --- encoding -------------------------------------------------------------------------------- */

/* Writes a number in decimal, at most 20 bytes; how many. */
unsigned cc_resp_decimal(char *to, int64_t number);

/* A type byte, a number and CR LF: integers, and the heads of bulks, arrays, maps, sets and pushes. */
void cc_resp_put_head(cc_out *out, char type, int64_t number);

void cc_resp_put_bulk(cc_out *out, const char *bytes, size_t size);
void cc_resp_put_double(cc_out *out, double number, unsigned protocol);

/* A type byte, text without line ends, CR LF: '+' and '-'. */
void cc_resp_put_line(cc_out *out, char type, const char *text, size_t size);

CC_INLINE void cc_resp_put_null(cc_out *out, unsigned protocol)
{
    if (protocol >= 3)
        cc_out_put(out, "_\r\n", 3);
    else
        cc_out_put(out, "$-1\r\n", 5);
}

CC_INLINE void cc_resp_put_bool(cc_out *out, bool truth, unsigned protocol)
{
    cc_out_put(out, protocol >= 3 ? truth ? "#t\r\n" : "#f\r\n" : truth ? ":1\r\n" : ":0\r\n", 4);
}

CC_INLINE void cc_resp_put_ok(cc_out *out)
{
    cc_out_put(out, "+OK\r\n", 5);
}

#endif
