/* Programs in long double, which is the x87's format. */
#include "suite.h"

#include <math.h>
#include <string.h>

#define NUMBERS 512
static long double numbers[NUMBERS];

void x87_prepare(void) {
    uint64_t state = 11;
    for (int i = 0; i < NUMBERS; i++) {
        numbers[i] = 1.0L + (long double)(next_random(&state) >> 32) / 4294967296.0L;
    }
}

/* The 80 bits of a long double. */
static uint64_t mix_extended(uint64_t sum, long double value) {
    unsigned char bytes[10];
    memcpy(bytes, &value, sizeof bytes);
    return mix_bytes(sum, bytes, sizeof bytes);
}

/* A polynomial and a sum: multiplications and additions. */
uint64_t x87_sums(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        long double x = 0.25L + (long double)(pass % 64) / 256, total = 0;
        for (int i = 0; i < NUMBERS; i++) {
            total = total * x + numbers[i] * (x - numbers[i]);
        }
        sum = mix_extended(sum, total);
    }
    return sum;
}

/* Divisions and square roots. */
uint64_t x87_division(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        long double x = 1 + (long double)(pass % 64), total = 0;
        for (int i = 0; i < NUMBERS; i++) {
            total += x / numbers[i] - sqrtl(numbers[i] + x);
        }
        sum = mix_extended(sum, total);
    }
    return sum;
}
