/* Programs whose time goes into calls and indirect jumps. */
#include "suite.h"

/* Fibonacci's numbers by recursion. */
OPAQUE static uint64_t fib(uint32_t n) {
    if (n < 2) {
        return n;
    }
    uint64_t one = fib(n - 1), two = fib(n - 2);
    /* Both are calls: without this the second would be a loop. */
    __asm__("" : "+r"(one), "+r"(two));
    return one + two;
}

uint64_t recursion(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        sum = mix(sum, fib(20 + pass % 2));
    }
    return sum;
}

/* Objects of four classes, called through their tables of functions. */
struct shape;
struct class {
    uint64_t (*area)(struct shape *);
    void (*grow)(struct shape *, uint64_t);
};
struct shape {
    const struct class *class;
    uint64_t width, height;
};

OPAQUE static uint64_t square_area(struct shape *shape) {
    return shape->width * shape->width;
}
OPAQUE static uint64_t box_area(struct shape *shape) {
    return shape->width * shape->height;
}
OPAQUE static uint64_t triangle_area(struct shape *shape) {
    return shape->width * shape->height / 2;
}
OPAQUE static uint64_t line_area(struct shape *shape) {
    return shape->width;
}
OPAQUE static void grow_width(struct shape *shape, uint64_t by) {
    shape->width += by;
}
OPAQUE static void grow_both(struct shape *shape, uint64_t by) {
    shape->width += by;
    shape->height ^= by;
}

static const struct class classes[4] = {
    {square_area, grow_width},
    {box_area, grow_both},
    {triangle_area, grow_both},
    {line_area, grow_width},
};

#define SHAPES 1024
static struct shape shapes[SHAPES];

void calls_prepare(void) {
    uint64_t state = 5;
    for (int i = 0; i < SHAPES; i++) {
        uint64_t number = next_random(&state);
        shapes[i] = (struct shape){&classes[number >> 62], number & 255, number >> 8 & 255};
    }
}

uint64_t virtual_calls(uint32_t count) {
    uint64_t sum = 0;
    for (uint32_t pass = 0; pass < count; pass++) {
        for (int i = 0; i < SHAPES; i++) {
            struct shape *shape = &shapes[i];
            sum += shape->class->area(shape);
            shape->class->grow(shape, sum & 3);
        }
    }
    return sum;
}

/* A machine with a stack, and a program for it: the lengths of Collatz sequences. */
enum { PUSH, LOAD, STORE, ADD, MULTIPLY, HALVE, ODD, EQUAL, JUMP_IF, JUMP, HALT };

/* The number of each line is where it is; variable 0 is the start, 1 the number that it has become, 2 the sum of lengths. */
static const uint8_t collatz[] = {
    /*  0 */ PUSH, 1, STORE, 0,
    /*  4 */ LOAD, 0, STORE, 1,
    /*  8 */ LOAD, 1, PUSH, 1, EQUAL, JUMP_IF, 46,
    /* 15 */ LOAD, 2, PUSH, 1, ADD, STORE, 2,
    /* 22 */ LOAD, 1, ODD, JUMP_IF, 34,
    /* 27 */ LOAD, 1, HALVE, STORE, 1, JUMP, 8,
    /* 34 */ LOAD, 1, PUSH, 3, MULTIPLY, PUSH, 1, ADD, STORE, 1, JUMP, 8,
    /* 46 */ LOAD, 0, PUSH, 1, ADD, STORE, 0,
    /* 53 */ LOAD, 0, PUSH, 200, EQUAL, JUMP_IF, 62, JUMP, 4,
    /* 62 */ HALT,
};

/* How the two interpreters carry out an instruction; `NEXT` is how they go to the next. */
#define POP (*--top)
#define TOP (top[-1])
#define BODY(INSTRUCTION, NEXT) \
    INSTRUCTION(PUSH) *top++ = *pc++; NEXT; \
    INSTRUCTION(LOAD) *top++ = variables[*pc++]; NEXT; \
    INSTRUCTION(STORE) variables[*pc++] = POP; NEXT; \
    INSTRUCTION(ADD) top--; TOP += *top; NEXT; \
    INSTRUCTION(MULTIPLY) top--; TOP *= *top; NEXT; \
    INSTRUCTION(HALVE) TOP >>= 1; NEXT; \
    INSTRUCTION(ODD) TOP &= 1; NEXT; \
    INSTRUCTION(EQUAL) top--; TOP = TOP == *top; NEXT; \
    INSTRUCTION(JUMP_IF) pc = POP ? program + *pc : pc + 1; NEXT; \
    INSTRUCTION(JUMP) pc = program + *pc; NEXT;

OPAQUE static uint64_t interpret_switch(const uint8_t *program) {
    uint64_t stack[16], variables[4] = {0}, *top = stack;
    const uint8_t *pc = program;
    for (;;) {
        switch (*pc++) {
#define CASE(name) case name:
            BODY(CASE, break)
        default:
            return variables[2];
        }
    }
}

/* The same with a jump of its own after each instruction (GCC's labels as values). */
OPAQUE static uint64_t interpret_goto(const uint8_t *program) {
    static const void *const labels[] = {&&at_PUSH, &&at_LOAD, &&at_STORE, &&at_ADD, &&at_MULTIPLY, &&at_HALVE,
                                         &&at_ODD, &&at_EQUAL, &&at_JUMP_IF, &&at_JUMP, &&at_HALT};
    uint64_t stack[16], variables[4] = {0}, *top = stack;
    const uint8_t *pc = program;
#define LABEL(name) at_##name:
#define DISPATCH goto *labels[*pc++]
    DISPATCH;
    BODY(LABEL, DISPATCH)
at_HALT:
    return variables[2];
}

uint64_t bytecode_switch(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        sum = mix(sum, interpret_switch(collatz));
    }
    return sum;
}

uint64_t bytecode_goto(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        sum = mix(sum, interpret_goto(collatz));
    }
    return sum;
}
