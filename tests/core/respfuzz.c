/* respfuzz.c — streams of RESP, broken and cut at random: the parser says the same of both.
 *
 * respfuzz [SCALE [SEED]]: 100,000 x SCALE inputs. Every part lies in memory of just its size, so
 * that AddressSanitizer sees a byte that is read beyond it. */
#include "cc_resp.h"

#include <stdio.h>
#include <stdlib.h>

enum { INPUTS = 100000, MOST_SIZE = 4096, MOST_CUTS = 6 };

static uint64_t state;

static uint32_t below(uint32_t n)
{
    return cc_random_below(&state, n);
}

static const char *const commands[] = {
    "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n",
    "*1\r\n$4\r\nPING\r\n", "PING\r\n", "SET \"a\\x41\\n\" 'b\\'c' d\r\n", "\r\n", "*0\r\n",
    "*-1\r\n",
    "*1\r\n$0\r\n\r\n", "GET / HTTP/1.1\r\n", "*11\r\n$1\r\na\r\n", "*1\r\n$999999999999\r\n",
    "  spaced   words\t\r\n", "*4\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
};
static const char *const replies[] = {
    "+OK\r\n", "-ERR no\r\n", ":42\r\n", "$5\r\nhello\r\n", "$-1\r\n", "$0\r\n\r\n", "*0\r\n",
    "*-1\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n+k\r\n*2\r\n:1\r\n:2\r\n", "_\r\n", "#t\r\n", ",1.5\r\n",
    "(123456789\r\n", "=7\r\ntxt:abc\r\n", "~1\r\n+x\r\n",
    ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
    "|1\r\n+a\r\n:1\r\n:2\r\n", "!3\r\nERR\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n", "*4294967296\r\n",
};
static const char specials[] = "\r\n*$+-:0123456789\"'\\ xGP\0%>|";

/* A few pieces, one after the other, with a few bytes changed, taken out or put in. */
static size_t make(char *to, const char *const *pieces, uint32_t count)
{
    size_t size = 0;
    for (uint32_t left = 1 + below(5); left > 0; left--) {
        const char *piece = pieces[below(count)];
        memcpy(to + size, piece, strlen(piece));
        size += strlen(piece);
    }
    for (uint32_t left = below(4); left > 0 && size > 0; left--) {
        uint32_t at = below((uint32_t)size), kind = below(4);
        char c = below(4) ? specials[below(sizeof specials)] : (char)below(256);
        if (kind == 0) {
            memmove(to + at, to + at + 1, --size - at);
        } else if (kind == 1) {
            memmove(to + at + 1, to + at, size++ - at);
            to[at] = c;
        } else {
            to[at] = c;
        }
    }
    return size;
}

static void mix(uint64_t *sum, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    *sum = cc_mix64(*sum, size + 1);
    while (size-- > 0)
        *sum = cc_mix64(*sum, *at++);
}

static void fail(const char *what, const char *data, size_t size)
{
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; i < size; i++)
        fprintf(stderr, " %02x", (unsigned char)data[i]);
    fprintf(stderr, "\n");
    exit(1);
}

static char *exact(const char *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    if (copy == NULL)
        exit(2);
    memcpy(copy, data, size);
    return copy;
}

/* Reads the commands of a stream that comes in parts ending at `cuts`: a sum of what was found. */
static uint64_t read_commands(const char *data, const size_t *cuts, const cc_resp_limits *limits)
{
    cc_resp_request request = {0};
    uint64_t sum = 1;
    char *held = exact("", 0);
    size_t kept = 0, come = 0;
    cc_resp_result result = CC_RESP_MORE;
    for (; result == CC_RESP_MORE && (come == 0 || cuts[-1] != cuts[0]); cuts++) {
        size_t size = kept + *cuts - come, at = 0;
        char *all = malloc(size ? size : 1);
        if (all == NULL)
            exit(2);
        memcpy(all, held, kept);
        memcpy(all + kept, data + come, *cuts - come);
        come = *cuts;
        free(held);
        for (;;) {
            result = cc_resp_parse(&request, all + at, size - at, limits);
            if (result != CC_RESP_READY && result != CC_RESP_NOTHING)
                break;
            if (request.at == 0 || request.at > size - at)
                fail("a command ends outside", data, come);
            if (result == CC_RESP_READY && request.count == 0)
                fail("a command without a name", data, come);
            for (uint32_t i = 0; i < request.count; i++) {
                cc_resp_arg arg = request.args[i];
                if (arg.at > request.at || arg.size > request.at - arg.at)
                    fail("an argument ends outside", data, come);
                mix(&sum, all + at + arg.at, arg.size);
            }
            mix(&sum, "command", 7);
            at += request.at;
            cc_resp_next(&request);
        }
        if (request.room > 2 * size + 16)
            fail("memory for arguments that have not come", data, come);
        kept = size - at;
        held = exact(all + at, kept);
        free(all);
    }
    mix(&sum, &result, sizeof result);
    free(held);
    cc_resp_free(&request);
    return sum;
}

/* Follows the replies of a stream in the same way. */
static uint64_t follow_replies(const char *data, const size_t *cuts)
{
    cc_resp_frame frame = {0};
    uint64_t sum = 1;
    size_t come = 0, length = 0;
    cc_resp_result result = CC_RESP_MORE;
    for (; come == 0 || cuts[-1] != cuts[0]; cuts++) {
        char *part = exact(data + come, *cuts - come);
        size_t size = *cuts - come, at = 0, used;
        while (at < size) {
            result = cc_resp_follow(&frame, part + at, size - at, &used);
            if (used == 0 || used > size - at)
                fail("a reply ends outside", data, *cuts);
            at += used;
            length += used;
            if (result == CC_RESP_MORE)
                break;
            if (result != CC_RESP_READY) {
                free(part);
                return cc_mix64(sum, (uint64_t)result);
            }
            mix(&sum, &length, sizeof length);
            mix(&sum, &frame.type, 1);
            length = 0;
        }
        free(part);
        come = *cuts;
    }
    return sum;
}

/* The ends of parts in order, the last one twice: it ends the list. */
static void cut(size_t *cuts, size_t size)
{
    uint32_t count = below(MOST_CUTS);
    for (uint32_t i = 0; i < count; i++) {
        size_t at = 1 + below((uint32_t)size), to = i;
        for (; to > 0 && cuts[to - 1] > at; to--)
            cuts[to] = cuts[to - 1];
        cuts[to] = at;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (cuts[i] < size && (kept == 0 || cuts[kept - 1] != cuts[i]))
            cuts[kept++] = cuts[i];
    cuts[kept] = cuts[kept + 1] = size;
}

int main(int count, char **args)
{
    uint64_t scale = count > 1 ? strtoull(args[1], NULL, 10) : 1;
    uint64_t seed = count > 2 ? strtoull(args[2], NULL, 10) : 20240607;
    const cc_resp_limits limits = {10, 64, 200, 400};
    char data[MOST_SIZE];
    size_t whole[2], cuts[MOST_CUTS + 2];
    state = cc_mix64(seed, 1) | 1;
    for (uint64_t input = 0; input < scale * INPUTS; input++) {
        size_t size = make(data, commands, sizeof commands / sizeof *commands);
        if (size > 0) {
            whole[0] = whole[1] = size;
            cut(cuts, size);
            if (read_commands(data, whole, &limits) != read_commands(data, cuts, &limits))
                fail("commands differ when they are cut", data, size);
        }
        size = make(data, replies, sizeof replies / sizeof *replies);
        if (size > 0) {
            whole[0] = whole[1] = size;
            cut(cuts, size);
            if (follow_replies(data, whole) != follow_replies(data, cuts))
                fail("replies differ when they are cut", data, size);
        }
    }
    printf("%llu inputs\n", (unsigned long long)(scale * INPUTS));
    return 0;
}
