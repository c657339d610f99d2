/* Bandwidth and latency of memory. */
#include "suite.h"

#include <string.h>

/* Within a second-level cache, and beyond any that a core has to itself. */
#define SMALL (256 << 10)
#define LARGE (32 << 20)
/* Between the two, so that they are not a power of two apart and share no set of a TLB or a cache. */
#define GAP (17 << 12)

static uint8_t *from, *to;

/* A number in each cache line, so that every page is there. */
void memory_prepare(void) {
    /* The second half is for copy_aliased. */
    from = map(2 * LARGE);
    /* Wherever the second mapping is, below the first or above. */
    to = (uint8_t *)map(LARGE + 3 * GAP) + GAP;
    uint64_t state = 13;
    for (size_t i = 0; i < LARGE; i += 64) {
        uint64_t number = next_random(&state);
        memcpy(from + i, &number, 8);
        to[i] = 1;
    }
}

/* The first bytes of some cache lines, and the last byte. */
static uint64_t sample(const uint8_t *bytes, size_t length) {
    uint64_t sum = MIX_START;
    for (size_t i = 0; i < length; i += 63 * 64) {
        sum = mix_bytes(sum, bytes + i, 8);
    }
    return mix(sum, bytes[length - 1]);
}

/* The C library's memcpy and memset choose by CPUID how they work: they find ERMS in the guests, wide vectors natively. */
static uint64_t copy(size_t length, uint32_t count) {
    for (uint32_t pass = 0; pass < count; pass++) {
        from[pass % length] += 1;
        memcpy(to, from, length);
        __asm__ volatile("" ::: "memory");
    }
    return sample(to, length);
}

uint64_t memcpy_l2(uint32_t count) {
    return copy(SMALL, count);
}

uint64_t memcpy_dram(uint32_t count) {
    return copy(LARGE, count);
}

static uint64_t set(size_t length, uint32_t count) {
    for (uint32_t pass = 0; pass < count; pass++) {
        memset(to, (int)(pass & 255), length);
        __asm__ volatile("" ::: "memory");
    }
    return sample(to, length);
}

uint64_t memset_l2(uint32_t count) {
    return set(SMALL, count);
}

uint64_t memset_dram(uint32_t count) {
    return set(LARGE, count);
}

/* A loop of 16-byte loads and stores, the same in every guest. */
OPAQUE static uint64_t copy_vectors(uint8_t *out, const uint8_t *in, uint32_t count) {
    typedef uint64_t vector __attribute__((vector_size(16)));
    for (uint32_t pass = 0; pass < count; pass++) {
        from[pass % SMALL] += 1;
        for (size_t i = 0; i < SMALL; i += 64) {
            const vector *source = (const vector *)(in + i);
            vector *target = (vector *)(out + i);
            target[0] = source[0], target[1] = source[1], target[2] = source[2], target[3] = source[3];
            /* Not a call of memcpy. */
            __asm__ volatile("" ::: "memory");
        }
    }
    return sample(out, SMALL);
}

uint64_t copy_sse(uint32_t count) {
    return copy_vectors(to, from, count);
}

/* The same to just 32 MiB away, where a page is likely to share its set of a TLB with the one that it is copied from. */
uint64_t copy_aliased(uint32_t count) {
    return copy_vectors(from + LARGE, from, count);
}

/* A cycle through nodes of a cache line each, in random order: every load waits for the one before. */
struct node {
    struct node *next;
    uint64_t number[7];
};

#define NEAR ((16 << 10) / sizeof(struct node))
#define FAR ((64 << 20) / sizeof(struct node))
static struct node *near, *far;

static struct node *make_cycle(size_t nodes) {
    struct node *node = map(nodes * sizeof *node);
    uint32_t *order = map(nodes * sizeof *order);
    uint64_t state = 17;
    for (size_t i = 0; i < nodes; i++) {
        order[i] = (uint32_t)i;
    }
    for (size_t i = nodes - 1; i > 0; i--) {
        size_t other = (next_random(&state) >> 32) % (i + 1);
        uint32_t swap = order[i];
        order[i] = order[other], order[other] = swap;
    }
    for (size_t i = 0; i < nodes; i++) {
        node[order[i]].next = &node[order[(i + 1) % nodes]];
        node[order[i]].number[0] = i;
    }
    return node;
}

static uint64_t chase(struct node *node, uint32_t count) {
    for (uint32_t step = 0; step < count; step++) {
        node = node->next;
    }
    return mix(MIX_START, node->number[0]);
}

void chase_l1_prepare(void) {
    near = make_cycle(NEAR);
}

uint64_t chase_l1(uint32_t count) {
    return chase(near, count);
}

void chase_dram_prepare(void) {
    far = make_cycle(FAR);
}

uint64_t chase_dram(uint32_t count) {
    return chase(far, count);
}
