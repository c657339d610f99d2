/* What the programs of the suite share: the row each is in, numbers to work on, and checksums. */
#ifndef SUITE_H
#define SUITE_H

#include <stddef.h>
#include <stdint.h>

/* Keeps a function a function: not inlined, cloned or analysed from its callers. */
#define OPAQUE __attribute__((noipa))

/* Does the fixed work `count` times over and returns a checksum of the results. */
typedef uint64_t (*work_fn)(uint32_t count);

/* Sets up what the work needs; its time is not measured. */
typedef void (*prepare_fn)(void);

struct row {
    const char *name;
    const char *kind;
    work_fn work;
    prepare_fn prepare;
    uint32_t count;
};

/* A folder to write in, on tmpfs. */
extern const char *scratch;

/* Prints what went wrong with errno's text and ends the suite. */
void die(const char *what) __attribute__((noreturn));

/* Memory of zeros that is there until the row is over. */
void *map(size_t length);

/* The next number of a xorshift64* sequence; the state must not be 0. */
static inline uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1d;
}

/* FNV-1a, 64 bits, a word at a time. */
#define MIX_START 0xcbf29ce484222325
static inline uint64_t mix(uint64_t sum, uint64_t value) {
    return (sum ^ value) * 0x100000001b3;
}

/* FNV-1a over bytes. */
static inline uint64_t mix_bytes(uint64_t sum, const void *bytes, size_t length) {
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++) {
        sum = mix(sum, byte[i]);
    }
    return sum;
}

/* The bits of a double. */
static inline uint64_t bits(double value) {
    union {
        double value;
        uint64_t bits;
    } both = {.value = value};
    return both.bits;
}

/* Fills `text` with words, spaces and lines, as repetitive as a text is. */
void make_text(char *text, size_t length);

/* The programs; each file says what they do. */
uint64_t sieve(uint32_t), crc32(uint32_t), sha256(uint32_t), matrix(uint32_t), division(uint32_t);
uint64_t lz(uint32_t), quicksort(uint32_t), dhrystone(uint32_t), hash_table(uint32_t), string_scan(uint32_t);
uint64_t recursion(uint32_t), virtual_calls(uint32_t), bytecode_switch(uint32_t), bytecode_goto(uint32_t);
uint64_t nbody(uint32_t), mandelbrot(uint32_t), daxpy(uint32_t), single_precision(uint32_t), fft(uint32_t);
uint64_t x87_sums(uint32_t), x87_division(uint32_t);
uint64_t memcpy_l2(uint32_t), memcpy_dram(uint32_t), memset_l2(uint32_t), memset_dram(uint32_t);
uint64_t copy_sse(uint32_t), copy_aliased(uint32_t);
uint64_t chase_l1(uint32_t), chase_dram(uint32_t);
uint64_t getpid_loop(uint32_t), page_faults(uint32_t), fork_exec(uint32_t), pipe_ping_pong(uint32_t),
    file_io(uint32_t), atomics(uint32_t), signals(uint32_t);
uint64_t code_writing(uint32_t), code_patching(uint32_t), code_data(uint32_t), cold_code(uint32_t);

void integer_prepare(void), division_prepare(void), text_prepare(void), calls_prepare(void), sse_prepare(void), x87_prepare(void);
void memory_prepare(void), chase_l1_prepare(void), chase_dram_prepare(void), code_prepare(void), signals_prepare(void);

#endif
