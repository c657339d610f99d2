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

static uint8_t *emit(uint8_t *at, const uint8_t *bytes, size_t length) {
    memcpy(at, bytes, length);
    return at + length;
}
#define EMIT(at, ...) emit(at, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static uint8_t *emit_word(uint8_t *at, uint32_t word) {
    memcpy(at, &word, sizeof word);
    return at + sizeof word;
}

/* Writes a function somewhere in 64 KiB, calls it four times, and writes the next 64 bytes on. */
uint64_t code_writing(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        uint8_t *start = code + pass * 64 % CODE, *at = start;
        at = EMIT(at, 0x48, 0x89, 0xf8);                         /* mov rax, rdi */
        at = emit_word(EMIT(at, 0x48, 0x05), pass & 0x7fffffff); /* add rax, pass */
        at = EMIT(at, 0x48, 0x0f, 0xaf, 0xc6);                   /* imul rax, rsi */
        at = emit_word(EMIT(at, 0x48, 0x35), pass * 3 & 0xffff); /* xor rax, 3 pass */
        EMIT(at, 0xc3);                                          /* ret */
        function called = callable(start);
        for (uint64_t i = 0; i < 4; i++) {
            sum = mix(sum, called(sum >> 32, i + 3));
        }
    }
    return sum;
}

/* Changes the number that a function adds, and calls it each time. */
uint64_t code_patching(uint32_t count) {
    uint8_t *at = EMIT(code, 0x48, 0x89, 0xf8); /* mov rax, rdi */
    uint8_t *number = EMIT(at, 0x48, 0x05);     /* add rax, number */
    at = emit_word(number, 0);
    at = EMIT(at, 0x48, 0x31, 0xf0); /* xor rax, rsi */
    EMIT(at, 0xc3);                  /* ret */
    function called = callable(code);
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        emit_word(number, pass * 7 & 0x7fffffff);
        sum = mix(sum, called(sum >> 32, pass));
    }
    return sum;
}

/* A loop whose counter is in the page of its code, 2,048 bytes away. */
uint64_t code_data(uint32_t count) {
    uint8_t *loop = EMIT(code, 0x31, 0xc0); /* xor eax, eax */
    uint8_t *at = EMIT(loop, 0x48, 0xff, 0x07); /* inc qword [rdi] */
    at = EMIT(at, 0x48, 0x03, 0x07);            /* add rax, [rdi] */
    at = EMIT(at, 0xff, 0xce);                  /* dec esi */
    at = EMIT(at, 0x75, (uint8_t)(loop - at - 2)); /* jnz loop */
    EMIT(at, 0xc3);                             /* ret */
    uint64_t *counter = (uint64_t *)(code + PAGE / 2);
    *counter = 0;
    uint64_t address, sum = MIX_START;
    memcpy(&address, &counter, sizeof address);
    for (uint32_t pass = 0; pass < count; pass += 100) {
        sum = mix(sum, callable(code)(address, 100));
    }
    return mix(sum, *counter);
}
