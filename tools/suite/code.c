/* Programs that write code, as a just-in-time compiler does. */
#include "suite.h"

#include <string.h>
#include <sys/mman.h>

typedef uint64_t (*function)(uint64_t, uint64_t);

#define PAGE 4096
#define CODE (16 * PAGE)
static uint8_t *code;

void code_prepare(void) {
    code = map(CODE);
    if (mprotect(code, CODE, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) {
        die("memory to write and execute");
    }
}

static function callable(uint8_t *at) {
    function called;
    memcpy(&called, &at, sizeof called);
    return called;
}

static uint8_t *emit_word(uint8_t *at, uint32_t word) {
    memcpy(at, &word, sizeof word);
    return at + sizeof word;
}

/*
 * What differs between processors:
 *   emit_mixer   a function of two numbers: ((first + add) * second) ^ flip
 *   emit_adder   a function of two numbers: (first + a number) ^ second; returns where the number is
 *   patch_adder  makes the number another one
 *   emit_loop    a function of an address and a count: so often increments the word there, and returns the sum of its values
 *   settle       has the processor see code that was written
 */
#if defined(__x86_64__)
static uint8_t *emit(uint8_t *at, const uint8_t *bytes, size_t length) {
    memcpy(at, bytes, length);
    return at + length;
}
#define EMIT(at, ...) emit(at, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void emit_mixer(uint8_t *at, uint32_t add, uint32_t flip) {
    at = EMIT(at, 0x48, 0x89, 0xf8);                /* mov rax, rdi */
    at = emit_word(EMIT(at, 0x48, 0x05), add);      /* add rax, add */
    at = EMIT(at, 0x48, 0x0f, 0xaf, 0xc6);          /* imul rax, rsi */
    at = emit_word(EMIT(at, 0x48, 0x35), flip);     /* xor rax, flip */
    EMIT(at, 0xc3);                                 /* ret */
}

static uint8_t *emit_adder(uint8_t *at) {
    at = EMIT(at, 0x48, 0x89, 0xf8);        /* mov rax, rdi */
    uint8_t *number = EMIT(at, 0x48, 0x05); /* add rax, number */
    at = emit_word(number, 0);
    at = EMIT(at, 0x48, 0x31, 0xf0); /* xor rax, rsi */
    EMIT(at, 0xc3);                  /* ret */
    return number;
}

static void patch_adder(uint8_t *number, uint32_t value) {
    emit_word(number, value);
}

static void emit_loop(uint8_t *at) {
    uint8_t *loop = EMIT(at, 0x31, 0xc0);          /* xor eax, eax */
    at = EMIT(loop, 0x48, 0xff, 0x07);             /* inc qword [rdi] */
    at = EMIT(at, 0x48, 0x03, 0x07);               /* add rax, [rdi] */
    at = EMIT(at, 0xff, 0xce);                     /* dec esi */
    at = EMIT(at, 0x75, (uint8_t)(loop - at - 2)); /* jnz loop */
    EMIT(at, 0xc3);                                /* ret */
}

static void settle(void) {
}
#elif defined(__riscv)
/* lui a2, value's upper part; addiw a2, a2, its lower part: any number below 2^31 - 2^11. */
static uint8_t *emit_number(uint8_t *at, uint32_t value) {
    at = emit_word(at, ((value + 0x800) & 0xfffff000) | 0x637);
    return emit_word(at, value << 20 | 0x6061b);
}

static void emit_mixer(uint8_t *at, uint32_t add, uint32_t flip) {
    at = emit_number(at, add);
    at = emit_word(at, 0x00c50533); /* add a0, a0, a2 */
    at = emit_word(at, 0x02b50533); /* mul a0, a0, a1 */
    at = emit_number(at, flip);
    at = emit_word(at, 0x00c54533); /* xor a0, a0, a2 */
    emit_word(at, 0x00008067);      /* ret */
}

static uint8_t *emit_adder(uint8_t *number) {
    uint8_t *at = emit_number(number, 0);
    at = emit_word(at, 0x00c50533); /* add a0, a0, a2 */
    at = emit_word(at, 0x00b54533); /* xor a0, a0, a1 */
    emit_word(at, 0x00008067);      /* ret */
    return number;
}

static void patch_adder(uint8_t *number, uint32_t value) {
    emit_number(number, value);
}

static void emit_loop(uint8_t *at) {
    static const uint32_t words[] = {
        0x00000613, /* li a2, 0 */
        0x00053683, /* loop: ld a3, 0(a0) */
        0x00168693, /* addi a3, a3, 1 */
        0x00d53023, /* sd a3, 0(a0) */
        0x00d60633, /* add a2, a2, a3 */
        0xfff58593, /* addi a1, a1, -1 */
        0xfe0596e3, /* bnez a1, loop */
        0x00060513, /* mv a0, a2 */
        0x00008067, /* ret */
    };
    memcpy(at, words, sizeof words);
}

static void settle(void) {
    __asm__ volatile("fence.i" ::: "memory");
}
#else
#error "no code for this processor"
#endif

/* Writes a function somewhere in 64 KiB, calls it four times, and writes the next 64 bytes on. */
uint64_t code_writing(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        uint8_t *start = code + pass * 64 % CODE;
        emit_mixer(start, pass & 0x3fffffff, pass * 3 & 0xffff);
        settle();
        function called = callable(start);
        for (uint64_t i = 0; i < 4; i++) {
            sum = mix(sum, called(sum >> 32, i + 3));
        }
    }
    return sum;
}

/* Changes the number that a function adds, and calls it each time. */
uint64_t code_patching(uint32_t count) {
    uint8_t *number = emit_adder(code);
    function called = callable(code);
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        patch_adder(number, pass * 7 & 0x3fffffff);
        settle();
        sum = mix(sum, called(sum >> 32, pass));
    }
    return sum;
}

/* A loop whose counter is in the page of its code, 2,048 bytes away. */
uint64_t code_data(uint32_t count) {
    emit_loop(code);
    settle();
    uint64_t *counter = (uint64_t *)(code + PAGE / 2);
    *counter = 0;
    uint64_t address, sum = MIX_START;
    memcpy(&address, &counter, sizeof address);
    for (uint32_t pass = 0; pass < count; pass += 100) {
        sum = mix(sum, callable(code)(address, 100));
    }
    return mix(sum, *counter);
}

/* A program of 8,192 functions, each called three times; then another one. */
uint64_t cold_code(uint32_t count) {
    const size_t functions = 8192, size = 64;
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        uint8_t *start = mmap(NULL, functions * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) {
            die("mmap");
        }
        for (size_t i = 0; i < functions; i++) {
            emit_mixer(start + i * size, (uint32_t)(pass * functions + i), (uint32_t)i * 3 & 0xffff);
        }
        settle();
        if (mprotect(start, functions * size, PROT_READ | PROT_EXEC) != 0) {
            die("memory to execute");
        }
        for (size_t i = 0; i < 3 * functions; i++) {
            sum = mix(sum, callable(start + i % functions * size)(sum >> 32, i + 3));
        }
        munmap(start, functions * size);
    }
    return sum;
}
