/* cc_resp.c — see cc_resp.h. */
#include "cc_resp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
    LEAST_ARGS = 8,
    MOST_DIGITS = 19, /* of a length; they fit 63 bits or are refused */
};

/* --- requests -------------------------------------------------------------------------------- */

void cc_resp_free(cc_resp_request *request)
{
    free(request->args);
    memset(request, 0, sizeof *request);
}

static bool add(cc_resp_request *request, size_t at, size_t size)
{
    if (CC_UNLIKELY(request->count == request->room)) {
        uint32_t room = request->room ? 2 * request->room : LEAST_ARGS;
        cc_resp_arg *args = realloc(request->args, room * sizeof *args);
        if (args == NULL)
            return false;
        request->args = args;
        request->room = room;
    }
    request->args[request->count++] = (cc_resp_arg){(uint32_t)at, (uint32_t)size};
    return true;
}

/* Reads "-?digits\r\n" at *at, and moves there behind it. `bad`: what it is when it is no number. */
CC_INLINE cc_resp_result read_number(const char *data, size_t size, size_t *at, int64_t *number,
                                     cc_resp_result bad)
{
    size_t i = *at;
    int64_t value = 0;
    bool negative = i < size && data[i] == '-';
    size_t from = i += negative;
    for (; i < size && data[i] >= '0' && data[i] <= '9'; i++) {
        if (i - from >= MOST_DIGITS - 1 || (i > from && value == 0)) /* "01" is no number */
            return bad;
        value = 10 * value + (data[i] - '0');
    }
    if (i == size)
        return CC_RESP_MORE;
    if (i == from || data[i] != '\r')
        return bad;
    if (i + 1 == size)
        return CC_RESP_MORE;
    if (data[i + 1] != '\n')
        return CC_RESP_BAD_END;
    *number = negative ? -value : value;
    *at = i + 2;
    return CC_RESP_READY;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == '\0';
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The character that an escape in double quotes stands for; *from is behind the backslash. */
static char unescape(const char *data, size_t end, size_t *from)
{
    static const char codes[] = "n\nr\rt\tb\ba\a";
    char c = data[*from];
    if (c == 'x' && *from + 2 < end && hex_digit(data[*from + 1]) >= 0
        && hex_digit(data[*from + 2]) >= 0) {
        c = (char)(hex_digit(data[*from + 1]) << 4 | hex_digit(data[*from + 2]));
        *from += 3;
        return c;
    }
    ++*from;
    for (const char *code = codes; *code != '\0'; code += 2)
        if (*code == c)
            return code[1];
    return c;
}

/* Takes one word of a line, from *from on, and unquotes it where it lies. */
static cc_resp_result read_word(cc_resp_request *request, char *data, size_t end, size_t *from)
{
    size_t i = *from, start = i, to = i;
    char quote = 0;
    while (i < end && (quote || !is_space(data[i]))) {
        char c = data[i++];
        if (!quote && (c == '"' || c == '\'')) {
            quote = c;
        } else if (c == quote && quote) {
            if (i < end && !is_space(data[i]))
                return CC_RESP_BAD_QUOTES;
            quote = 0;
            break;
        } else if (c == '\\' && quote == '"' && i < end) {
            data[to++] = unescape(data, end, &i);
        } else if (c == '\\' && quote == '\'' && i < end && data[i] == '\'') {
            data[to++] = data[i++];
        } else {
            data[to++] = c;
        }
    }
    *from = i;
    if (quote)
        return CC_RESP_BAD_QUOTES;
    return add(request, start, to - start) ? CC_RESP_READY : CC_RESP_NO_MEMORY;
}

static bool is_word(const cc_resp_arg *arg, const char *data, const char *word)
{
    return arg->size == strlen(word) && strncasecmp(data + arg->at, word, arg->size) == 0;
}

/* A request line or a Host header: a page in a browser was made to talk to this port. */
static bool is_http(const cc_resp_request *request, const char *data)
{
    const cc_resp_arg *first = request->args, *last = first + request->count - 1;
    return is_word(first, data, "POST") || is_word(first, data, "Host:")
           || (request->count == 3 && last->size >= 5
               && strncasecmp(data + last->at, "HTTP/", 5) == 0);
}

static cc_resp_result parse_line(cc_resp_request *request, char *data, size_t size,
                                 const cc_resp_limits *limits)
{
    size_t most = limits->max_line < limits->max_command ? limits->max_line : limits->max_command;
    size_t seen = size < most ? size : most;
    char *end = seen > request->at ? memchr(data + request->at, '\n', seen - request->at) : NULL;
    if (end == NULL) {
        request->at = (uint32_t)seen;
        return size >= most ? CC_RESP_LONG_LINE : CC_RESP_MORE;
    }
    size_t length = (size_t)(end - data), from = 0;
    if (length == 0 || data[length - 1] != '\r')
        return CC_RESP_BAD_END;
    request->at = (uint32_t)length + 1;
    for (length--;;) {
        while (from < length && is_space(data[from]))
            from++;
        if (from == length)
            break;
        if (request->count == limits->max_args)
            return CC_RESP_BAD_COUNT;
        cc_resp_result result = read_word(request, data, length, &from);
        if (result != CC_RESP_READY)
            return result;
    }
    if (request->count == 0)
        return CC_RESP_NOTHING;
    return is_http(request, data) ? CC_RESP_HTTP : CC_RESP_READY;
}

cc_resp_result cc_resp_parse(cc_resp_request *request, char *data, size_t size,
                             const cc_resp_limits *limits)
{
    cc_resp_result result;
    int64_t number = 0;
    size_t at = request->at;
    if (size == 0)
        return CC_RESP_MORE;
    if (data[0] != '*')
        return parse_line(request, data, size, limits);
    if (request->wanted == 0) {
        at = 1;
        result = read_number(data, size, &at, &number, CC_RESP_BAD_COUNT);
        if (CC_UNLIKELY(result != CC_RESP_READY))
            return result;
        request->at = (uint32_t)at;
        if (number <= 0)
            return CC_RESP_NOTHING;
        if (number > limits->max_args)
            return CC_RESP_BAD_COUNT;
        request->wanted = (uint32_t)number;
    }
    while (request->count < request->wanted) {
        size_t start = at + 1;
        if (at == size)
            return CC_RESP_MORE;
        if (data[at] != '$') {
            request->got = data[at];
            return CC_RESP_BAD_TYPE;
        }
        result = read_number(data, size, &start, &number, CC_RESP_BAD_BULK);
        if (CC_UNLIKELY(result != CC_RESP_READY))
            return result;
        if (number < 0 || number > limits->max_bulk)
            return CC_RESP_BAD_BULK;
        size_t end = start + (size_t)number;
        if (end + 2 > limits->max_command)
            return CC_RESP_LONG_COMMAND;
        if (end + 2 > size)
            return CC_RESP_MORE;
        if (data[end] != '\r' || data[end + 1] != '\n')
            return CC_RESP_BAD_END;
        if (CC_UNLIKELY(!add(request, start, (size_t)number)))
            return CC_RESP_NO_MEMORY;
        at = end + 2;
        request->at = (uint32_t)at;
    }
    return CC_RESP_READY;
}

const char *cc_resp_fault(cc_resp_result result)
{
    switch (result) {
    case CC_RESP_BAD_COUNT: return "invalid multibulk length";
    case CC_RESP_BAD_BULK: return "invalid bulk length";
    case CC_RESP_BAD_TYPE: return "expected '$'";
    case CC_RESP_BAD_END: return "expected CRLF";
    case CC_RESP_BAD_QUOTES: return "unbalanced quotes in request";
    case CC_RESP_LONG_LINE: return "too big inline request";
    case CC_RESP_LONG_COMMAND: return "too big request";
    case CC_RESP_NO_MEMORY: return "out of memory";
    default: return "";
    }
}

/* --- replies that pass through --------------------------------------------------------------- */

enum { TYPE, NUMBER, NUMBER_LF, TEXT, TEXT_LF, BULK, BULK_CR, BULK_LF };

/* A header's number has been read: what follows it. */
static cc_resp_result head_ends(cc_resp_frame *frame)
{
    char type = frame->header;
    bool null = frame->negative;
    uint64_t number = frame->left;
    frame->state = TYPE;
    if (frame->digits == 0 || (null && (number != 1 || (type != '$' && type != '*'))))
        return CC_RESP_BAD_COUNT;
    if (type == '$' || type == '!' || type == '=') {
        if (null)
            frame->values--;
        else
            frame->state = BULK;
        return CC_RESP_MORE;
    }
    uint64_t inner = null ? 0 : type == '%' || type == '|' ? 2 * number : number;
    if (number > UINT32_MAX || frame->values > UINT64_MAX / 2)
        return CC_RESP_BAD_COUNT;
    frame->values += inner - (type != '|'); /* attributes come before the value that they describe */
    return CC_RESP_MORE;
}

static cc_resp_result value_begins(cc_resp_frame *frame, char type)
{
    if (type == '\0' || strchr("+-:$*_,#(!=%~>|", type) == NULL)
        return CC_RESP_BAD_TYPE;
    if (frame->values == 0) {
        frame->values = 1;
        frame->type = type;
    }
    frame->header = type;
    frame->left = 0;
    frame->digits = 0;
    frame->negative = false;
    frame->state = strchr("$!=*%~>|", type) != NULL ? NUMBER : TEXT;
    return CC_RESP_MORE;
}

cc_resp_result cc_resp_follow(cc_resp_frame *frame, const char *data, size_t size, size_t *used)
{
    cc_resp_result result = CC_RESP_MORE;
    size_t at = 0;
    while (at < size && result == CC_RESP_MORE) {
        char c = data[at];
        if (frame->state == TEXT) {
            const char *end = memchr(data + at, '\r', size - at);
            at = end == NULL ? size : (size_t)(end - data) + 1;
            frame->state = end == NULL ? TEXT : TEXT_LF;
            continue;
        }
        if (frame->state == BULK) {
            uint64_t step = frame->left < size - at ? frame->left : size - at;
            frame->left -= step;
            at += step;
            frame->state = frame->left ? BULK : BULK_CR;
            continue;
        }
        at++;
        switch (frame->state) {
        case TYPE:
            result = value_begins(frame, c);
            break;
        case NUMBER:
            if (c >= '0' && c <= '9' && frame->digits < MOST_DIGITS - 1) {
                frame->left = 10 * frame->left + (uint64_t)(c - '0');
                frame->digits++;
            } else if (c == '-' && frame->digits == 0 && !frame->negative) {
                frame->negative = true;
            } else if (c == '\r') {
                frame->state = NUMBER_LF;
            } else {
                result = CC_RESP_BAD_COUNT;
            }
            break;
        case NUMBER_LF:
            result = c == '\n' ? head_ends(frame) : CC_RESP_BAD_END;
            break;
        case BULK_CR:
            frame->state = BULK_LF;
            result = c == '\r' ? CC_RESP_MORE : CC_RESP_BAD_END;
            break;
        default: /* the LF of a text or a bulk */
            frame->state = TYPE;
            frame->values--;
            result = c == '\n' ? CC_RESP_MORE : CC_RESP_BAD_END;
        }
        if (result == CC_RESP_MORE && frame->state == TYPE && frame->values == 0)
            result = CC_RESP_READY;
    }
    *used = at;
    return result;
}

/* --- encoding -------------------------------------------------------------------------------- */

unsigned cc_resp_decimal(char *to, int64_t number)
{
    char digits[20];
    unsigned at = sizeof digits, length = 0;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do
        digits[--at] = (char)('0' + left % 10);
    while ((left /= 10) != 0);
    if (number < 0)
        to[length++] = '-';
    memcpy(to + length, digits + at, sizeof digits - at);
    return length + (unsigned)sizeof digits - at;
}

void cc_resp_put_head(cc_out *out, char type, int64_t number)
{
    char *place = cc_out_place(out, 24);
    if (CC_UNLIKELY(place == NULL))
        return;
    place[0] = type;
    unsigned end = 1 + cc_resp_decimal(place + 1, number);
    memcpy(place + end, "\r\n", 2);
    out->size += end + 2;
}

void cc_resp_put_bulk(cc_out *out, const char *bytes, size_t size)
{
    char *place = cc_out_place(out, size + 32);
    if (CC_UNLIKELY(place == NULL))
        return;
    place[0] = '$';
    unsigned end = 1 + cc_resp_decimal(place + 1, (int64_t)size);
    memcpy(place + end, "\r\n", 2);
    memcpy(place + end + 2, bytes, size);
    memcpy(place + end + 2 + size, "\r\n", 2);
    out->size += end + size + 4;
}

void cc_resp_put_line(cc_out *out, char type, const char *text, size_t size)
{
    char *place = cc_out_place(out, size + 3);
    if (CC_UNLIKELY(place == NULL))
        return;
    place[0] = type;
    for (size_t i = 0; i < size; i++) /* what a client sent may be part of it */
        place[1 + i] = text[i] == '\r' || text[i] == '\n' ? ' ' : text[i];
    memcpy(place + 1 + size, "\r\n", 2);
    out->size += size + 3;
}

void cc_resp_put_double(cc_out *out, double number, unsigned protocol)
{
    char text[32];
    int size = isnan(number)   ? snprintf(text, sizeof text, "nan")
               : isinf(number) ? snprintf(text, sizeof text, number > 0 ? "inf" : "-inf")
                               : snprintf(text, sizeof text, "%.17g", number);
    if (protocol >= 3)
        cc_resp_put_line(out, ',', text, (size_t)size);
    else
        cc_resp_put_bulk(out, text, (size_t)size);
}
