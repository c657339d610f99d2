/* Integer programs over small arrays: loops, shifts, table look-ups. */
#include "suite.h"

#include <string.h>

#define SIEVE (1 << 20)

/* Eratosthenes' sieve of a million bytes. */
uint64_t sieve(uint32_t count) {
    static uint8_t composite[SIEVE];
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        memset(composite, 0, sizeof composite);
        uint32_t primes = 0;
        for (uint32_t i = 2; i < SIEVE; i++) {
            if (composite[i]) {
                continue;
            }
            primes++;
            for (uint64_t multiple = (uint64_t)i * i; multiple < SIEVE; multiple += i) {
                composite[multiple] = 1;
            }
        }
        sum = mix(sum, primes + pass);
    }
    return sum;
}

#define BUFFER 65536
static uint8_t buffer[BUFFER];
static uint32_t crc_table[256];

#define ORDER 128
static int32_t left[ORDER][ORDER], right[ORDER][ORDER], product[ORDER][ORDER];

void integer_prepare(void) {
    uint64_t state = 1;
    for (int i = 0; i < BUFFER; i++) {
        buffer[i] = (uint8_t)(next_random(&state) >> 40);
    }
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) {
            value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
        }
        crc_table[i] = value;
    }
    for (int i = 0; i < ORDER * ORDER; i++) {
        left[i / ORDER][i % ORDER] = (int32_t)(next_random(&state) >> 48);
        right[i / ORDER][i % ORDER] = (int32_t)(next_random(&state) >> 48);
    }
}

/* CRC-32 of 64 KiB, a byte and a table look-up at a time. */
uint64_t crc32(uint32_t count) {
    uint32_t crc = 0xffffffff;
    for (uint32_t pass = 0; pass < count; pass++) {
        for (int i = 0; i < BUFFER; i++) {
            crc = crc >> 8 ^ crc_table[(crc ^ buffer[i]) & 255];
        }
    }
    return crc;
}

/* FIPS 180-4, 4.2.2. */
static const uint32_t sha_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t value, int by) {
    return value >> by | value << (32 - by);
}

/* FIPS 180-4, 6.2.2: one block of 64 bytes. */
static void sha_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, block + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + sha_constants[i] + w[i];
        uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* SHA-256 of 64 KiB, whole blocks without the padding. */
uint64_t sha256(uint32_t count) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (uint32_t pass = 0; pass < count; pass++) {
        for (int i = 0; i < BUFFER; i += 64) {
            sha_block(state, buffer + i);
        }
    }
    return mix_bytes(MIX_START, state, sizeof state);
}

/* The product of two matrices of 128 x 128 32-bit integers. */
uint64_t matrix(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        left[pass % ORDER][pass / ORDER % ORDER] += 1;
        for (int i = 0; i < ORDER; i++) {
            for (int j = 0; j < ORDER; j++) {
                int32_t dot = 0;
                for (int k = 0; k < ORDER; k++) {
                    dot += left[i][k] * right[k][j];
                }
                product[i][j] = dot;
            }
        }
        sum = mix(sum, (uint32_t)product[pass % ORDER][pass * 7 % ORDER]);
    }
    return mix_bytes(sum, product, sizeof product);
}

#define DIVISIONS 1024
static uint64_t dividends[DIVISIONS], divisors[DIVISIONS];

/* Numbers of all lengths. */
void division_prepare(void) {
    uint64_t state = 3;
    for (int i = 0; i < DIVISIONS; i++) {
        dividends[i] = next_random(&state) >> next_random(&state) % 32;
        divisors[i] = next_random(&state) >> next_random(&state) % 64 | 1;
    }
}

/* Both results of a division; a divisor is odd, so not 0, and not negative, so that no quotient overflows. */
#define DIVIDE(type, bits) \
    do { \
        type dividend = (type)dividends[i], divisor = (type)(divisors[i] & (UINT64_MAX >> (65 - (bits)))); \
        sum += (uint64_t)(dividend / divisor) ^ (uint64_t)(dividend % divisor) << 1; \
    } while (0)

/* Divisions of 8 to 64 bits, signed and not, and of 128 bits by 64 with a quotient of 64. */
uint64_t division(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        dividends[pass % DIVISIONS] += pass;
        for (int i = 0; i < DIVISIONS; i++) {
            DIVIDE(uint8_t, 8);
            DIVIDE(int8_t, 8);
            DIVIDE(uint16_t, 16);
            DIVIDE(int16_t, 16);
            DIVIDE(uint32_t, 32);
            DIVIDE(int32_t, 32);
            DIVIDE(uint64_t, 64);
            DIVIDE(int64_t, 64);
            __extension__ typedef unsigned __int128 uint128_t;
            uint128_t wide = (uint128_t)(dividends[i] % divisors[i]) << 64 | sum;
            sum += (uint64_t)(wide / divisors[i]);
        }
    }
    return mix(MIX_START, sum);
}
