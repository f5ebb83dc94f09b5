/* cc_glob.c — see cc_glob.h. */
#include "cc_glob.h"

#include <stdint.h>

/* Whether a byte is in the class that begins behind `at`, a '['; *at is set behind its ']'. */
static bool in_class(const char *pattern, size_t size, size_t *at, char byte)
{
    size_t i = *at + 1;
    bool inverted = i < size && pattern[i] == '^', found = false;
    for (i += inverted; i < size && pattern[i] != ']'; i++) {
        if (pattern[i] == '\\' && i + 1 < size) {
            found |= pattern[++i] == byte;
        } else if (i + 2 < size && pattern[i + 1] == '-') {
            int8_t low = (int8_t)pattern[i], high = (int8_t)pattern[i + 2], it = (int8_t)byte;
            found |= low <= high ? low <= it && it <= high : high <= it && it <= low;
            i += 2;
        } else {
            found |= pattern[i] == byte;
        }
    }
    *at = i < size ? i + 1 : size;
    return found != inverted;
}

/* Whether the part of the pattern at *at, no star, is met by a byte; *at is set behind it. */
static bool matches(const char *pattern, size_t size, size_t *at, char byte)
{
    if (pattern[*at] == '[')
        return in_class(pattern, size, at, byte);
    if (pattern[*at] == '?') {
        ++*at;
        return true;
    }
    *at += pattern[*at] == '\\' && *at + 1 < size;
    return pattern[(*at)++] == byte;
}

bool cc_glob(const char *pattern, size_t pattern_size, const char *text, size_t text_size)
{
    size_t at = 0, i = 0, behind_star = SIZE_MAX, tried = 0;
    if (text_size == 0)
        return pattern_size == 0;
    while (i < text_size) {
        if (at < pattern_size && pattern[at] == '*') {
            while (at < pattern_size && pattern[at] == '*')
                at++;
            if (at == pattern_size)
                return true;
            behind_star = at;
            tried = i;
        } else if (at < pattern_size && matches(pattern, pattern_size, &at, text[i])) {
            i++;
        } else if (behind_star == SIZE_MAX) {
            return false;
        } else { /* the last star takes a byte more */
            at = behind_star;
            i = ++tried;
        }
    }
    while (at < pattern_size && pattern[at] == '*')
        at++;
    return at == pattern_size;
}
