/* cc_glob.h — patterns of keys, as Redis' KEYS and SCAN match them.
 *
 *     *       any bytes, none too         [a-z]  one byte of a range; ends may be given in any order
 *     ?       any byte                   [^ab]  one byte that is not among these
 *     \x      the byte x itself          [a\]]  a backslash quotes within brackets too
 *
 * A class that is not closed ends with the pattern. Ranges compare bytes as signed, as Redis does on
 * x86-64. An empty text is matched by an empty pattern alone: "*", which matches all, is the
 * caller's to know.
 *
 * Takes O(text) steps, times the pattern's length at worst, however many stars there are: only the
 * last star is ever tried again, because what came before it has matched as early as it can. */
#ifndef CC_GLOB_H
#define CC_GLOB_H

#include <stdbool.h>
#include <stddef.h>

bool cc_glob(const char *pattern, size_t pattern_size, const char *text, size_t text_size);

#endif
