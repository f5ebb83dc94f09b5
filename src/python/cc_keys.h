/* cc_keys.h — keys: their 32-bit hash, and equality of exact str, bytes and int without Python.
 *
 * The hash is a function of the Python hash alone, whatever the type, because equal keys of
 * different types (1, 1.0, True; a str and its subclass) must meet. One folded multiplication with a
 * secret of the table spreads keys that agree modulo any power of two, and costs four cycles that
 * overlap with other work. (A plain multiplication by a secret odd factor is universal too, but one
 * factor in a thousand piles up arithmetic progressions.) */
#ifndef CC_KEYS_H
#define CC_KEYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cc_base.h"

#include <string.h>

CC_INLINE uint32_t cc_key_fold(Py_hash_t hash, uint64_t secret)
{
    return (uint32_t)(cc_mix64((uint64_t)hash, secret) >> 32);
}

/* The Python hash of an exact int, read off its digits when it has few; -1 when it does not. */
CC_INLINE Py_hash_t cc_int_hash(PyObject *key)
{
    Py_hash_t value;
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)key))
        return -1;
    value = PyUnstable_Long_CompactValue((PyLongObject *)key);
#else
    const digit *digits = ((PyLongObject *)key)->ob_digit;
    switch (Py_SIZE(key)) {
    case 0: value = 0; break;
    case 1: value = digits[0]; break;
    case -1: value = -(Py_hash_t)digits[0]; break;
#if PYLONG_BITS_IN_DIGIT == 30 /* two digits stay below the hash's modulus 2^61 - 1 */
    case 2: value = digits[0] | (Py_hash_t)digits[1] << PyLong_SHIFT; break;
#endif
    default: return -1;
    }
#endif
    return value == -1 ? -2 : value;
}

CC_INLINE Py_hash_t cc_bytes_hash(PyObject *key)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return ((PyBytesObject *)key)->ob_shash; /* deprecated to read, and still how bytes keep it */
#pragma GCC diagnostic pop
}

/* The Python hash of a key; false: an exception is set. Exact str, bytes and int run no Python code. */
CC_INLINE bool cc_key_full_hash(PyObject *key, Py_hash_t *hash)
{
    *hash = -1;
    if (CC_LIKELY(PyUnicode_CheckExact(key)))
        *hash = ((PyASCIIObject *)key)->hash;
    else if (PyLong_CheckExact(key))
        *hash = cc_int_hash(key);
    else if (PyBytes_CheckExact(key))
        *hash = cc_bytes_hash(key);
    if (CC_UNLIKELY(*hash == -1))
        *hash = PyObject_Hash(key);
    return CC_LIKELY(*hash != -1);
}

/* The same as the table's own hash. */
CC_INLINE bool cc_key_hash(PyObject *key, uint64_t secret, uint32_t *hash)
{
    Py_hash_t full;
    if (CC_UNLIKELY(!cc_key_full_hash(key, &full)))
        return false;
    *hash = cc_key_fold(full, secret);
    return true;
}

CC_INLINE bool cc_int_equal(PyObject *a, PyObject *b)
{
    const PyLongObject *x = (PyLongObject *)a, *y = (PyLongObject *)b;
#if PY_VERSION_HEX >= 0x030C0000
    uintptr_t size = x->long_value.lv_tag & ~(uintptr_t)4; /* bit 2 says immortal, from 3.14 on */
    if (size != (y->long_value.lv_tag & ~(uintptr_t)4))
        return false;
    size_t digits = size >> 3;
    return memcmp(x->long_value.ob_digit, y->long_value.ob_digit,
                  (digits ? digits : 1) * sizeof(digit)) == 0;
#else
    Py_ssize_t size = Py_SIZE(x);
    if (size != Py_SIZE(y))
        return false;
    return memcmp(x->ob_digit, y->ob_digit, (size_t)(size < 0 ? -size : size) * sizeof(digit)) == 0;
#endif
}

CC_INLINE bool cc_key_plain(PyTypeObject *type)
{
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type;
}

typedef enum { CC_DIFFERENT, CC_EQUAL, CC_ASK_PYTHON } cc_equality;

/* Compares two distinct objects whose 32-bit hashes agree, without running Python code. */
CC_INLINE cc_equality cc_key_equal(PyObject *a, PyObject *b)
{
    PyTypeObject *type = Py_TYPE(a);
    if (type != Py_TYPE(b))
        return cc_key_plain(type) && cc_key_plain(Py_TYPE(b)) ? CC_DIFFERENT : CC_ASK_PYTHON;
    if (type == &PyUnicode_Type) {
        Py_ssize_t length = PyUnicode_GET_LENGTH(a);
        int kind = PyUnicode_KIND(a);
        return length == PyUnicode_GET_LENGTH(b) && kind == (int)PyUnicode_KIND(b)
                       && memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)(length * kind)) == 0
                   ? CC_EQUAL
                   : CC_DIFFERENT;
    }
    if (type == &PyLong_Type)
        return cc_int_equal(a, b) ? CC_EQUAL : CC_DIFFERENT;
    if (type == &PyBytes_Type) {
        size_t length = (size_t)PyBytes_GET_SIZE(a);
        return length == (size_t)PyBytes_GET_SIZE(b)
                       && memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), length) == 0
                   ? CC_EQUAL
                   : CC_DIFFERENT;
    }
    return CC_ASK_PYTHON;
}

#endif
