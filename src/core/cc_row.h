/* cc_row.h — how a row lies in a table: as it is, or as int8 with a scale of its own; its checksum.
 *
 * int8: four bytes of scale, a float, then an item a byte. The largest item becomes 127, and each is off
 * by half a scale at most, 1/254 of the row's largest absolute value:
 *
 *     q = round(x / scale), scale = max |x| / 127        x' = q * scale
 *
 * That is symmetric quantisation with a scale for each row (Jacob et al., "Quantization and training of
 * neural networks for efficient integer-arithmetic-only inference", 2018). */
#ifndef CC_ROW_H
#define CC_ROW_H

#include "cc_base.h"

typedef enum { CC_ROWS_PLAIN, CC_ROWS_INT8 } cc_codec;

/* Bytes that a row of `width` bytes takes in a table. */
size_t cc_row_stored(size_t width, cc_codec codec);

/* float32 items to int8 and back. Items are finite. */
void cc_row_encode(unsigned char *to, const unsigned char *from, size_t items);
void cc_row_decode(unsigned char *to, const unsigned char *from, size_t items);

/* A checksum of a row and whose it is: any one byte that changes changes it, but for one time in 2^32. */
uint32_t cc_row_sum(const unsigned char *row, size_t width, int64_t id);

#endif
