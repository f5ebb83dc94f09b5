/* cc_row.c — see cc_row.h. */
#include "cc_row.h"
#include "cc_sum.h"

#include <float.h>
#include <string.h>

enum { MOST = 127, SCALE = sizeof(float) };

#define LARGEST 0x1.fffff0p127f /* FLT_MAX / 127 * 127 is infinite */

/* Callers' rows need not be aligned. */
typedef float __attribute__((aligned(1), may_alias)) loose_float;

size_t cc_row_stored(size_t width, cc_codec codec)
{
    return codec == CC_ROWS_INT8 ? SCALE + width / sizeof(float) : width;
}

void cc_row_encode(unsigned char *to, const unsigned char *from, size_t items)
{
    const loose_float *row = (const loose_float *)from;
    int8_t *codes = (int8_t *)to + SCALE;
    float most = 0;
    for (size_t i = 0; i < items; i++) {
        float size = row[i] < 0 ? -row[i] : row[i];
        most = size > most ? size : most;
    }
    float scale = (most < LARGEST ? most : LARGEST) / MOST;
    if (most < MOST * FLT_MIN) /* what is that small becomes zero */
        scale = 0;
    float factor = scale == 0 ? 0 : 1 / scale;
    memcpy(to, &scale, SCALE);
    for (size_t i = 0; i < items; i++) {
        float code = row[i] * factor;
        code = code > -MOST ? code : -MOST; /* what is no number, too: the caller's memory may change */
        code = code < MOST ? code : MOST;
        codes[i] = (int8_t)(int)(code + (code < 0 ? -0.5f : 0.5f));
    }
}

void cc_row_decode(unsigned char *to, const unsigned char *from, size_t items)
{
    loose_float *row = (loose_float *)to;
    const int8_t *codes = (const int8_t *)from + SCALE;
    float scale;
    memcpy(&scale, from, SCALE);
    for (size_t i = 0; i < items; i++)
        row[i] = (float)codes[i] * scale;
}

uint32_t cc_row_sum(const unsigned char *row, size_t width, int64_t id)
{
    uint64_t sum = cc_sum(row, width, (uint64_t)id);
    return (uint32_t)(sum ^ sum >> 32);
}
