/* Integer programs over data structures: compression, sorting, records, hashing, strings. */
#include "suite.h"

#include <stdbool.h>
#include <string.h>

#define TEXT (256 * 1024)
static char text[TEXT + 1];

void text_prepare(void) {
    make_text(text, TEXT);
    text[TEXT] = 0;
}

/*
 * LZ77 with one candidate for a match, found by a hash of its first 4 bytes. The output is tokens of one byte: below
 * 128 that many literals + 1 follow, and otherwise a match of token - 128 + LZ_LEAST bytes whose distance is in 2 bytes.
 */
#define LZ_LEAST 4
#define LZ_MOST (127 + LZ_LEAST)
#define LZ_HASH_BITS 14

static uint32_t word_at(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

static uint8_t *literals(uint8_t *out, const uint8_t *from, const uint8_t *to) {
    while (from < to) {
        size_t length = (size_t)(to - from) < 128 ? (size_t)(to - from) : 128;
        *out++ = (uint8_t)(length - 1);
        for (size_t i = 0; i < length; i++) {
            *out++ = *from++;
        }
    }
    return out;
}

static size_t lz_pack(uint8_t *out, const uint8_t *in, size_t length) {
    static uint32_t heads[1 << LZ_HASH_BITS];
    memset(heads, 0, sizeof heads);
    uint8_t *start = out;
    size_t at = 0, first_literal = 0;
    while (at + LZ_LEAST <= length) {
        uint32_t word = word_at(in + at);
        uint32_t *head = &heads[word * 2654435761u >> (32 - LZ_HASH_BITS)];
        size_t candidate = *head;
        *head = (uint32_t)at;
        if (candidate >= at || at - candidate > 0xffff || word_at(in + candidate) != word) {
            at++;
            continue;
        }
        size_t match = LZ_LEAST;
        while (match < LZ_MOST && at + match < length && in[candidate + match] == in[at + match]) {
            match++;
        }
        out = literals(out, in + first_literal, in + at);
        *out++ = (uint8_t)(128 + match - LZ_LEAST);
        *out++ = (uint8_t)(at - candidate);
        *out++ = (uint8_t)((at - candidate) >> 8);
        at += match;
        first_literal = at;
    }
    return (size_t)(literals(out, in + first_literal, in + length) - start);
}

static size_t lz_unpack(uint8_t *out, const uint8_t *in, size_t length) {
    uint8_t *start = out;
    const uint8_t *end = in + length;
    while (in < end) {
        size_t token = *in++;
        if (token < 128) {
            for (size_t i = 0; i <= token; i++) {
                *out++ = *in++;
            }
        } else {
            const uint8_t *from = out - (in[0] | in[1] << 8);
            in += 2;
            for (size_t i = 0; i < token - 128 + LZ_LEAST; i++) {
                *out++ = *from++;
            }
        }
    }
    return (size_t)(out - start);
}

/* Packs 256 KiB of text and unpacks it. */
uint64_t lz(uint32_t count) {
    static uint8_t packed[TEXT + TEXT / 64], unpacked[TEXT];
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        text[pass * 97 % TEXT] ^= 1;
        size_t length = lz_pack(packed, (const uint8_t *)text, TEXT);
        size_t restored = lz_unpack(unpacked, packed, length);
        bool same = restored == TEXT && memcmp(text, unpacked, TEXT) == 0;
        sum = mix(sum, length << 1 | same);
    }
    return mix_bytes(sum, packed, 4096);
}

#define NUMBERS (1 << 16)

static void sort(uint32_t *low, uint32_t *high) {
    while (high - low > 12) {
        uint32_t pivot = low[(high - low) / 2];
        uint32_t *i = low, *j = high;
        while (i <= j) {
            while (*i < pivot) {
                i++;
            }
            while (*j > pivot) {
                j--;
            }
            if (i <= j) {
                uint32_t number = *i;
                *i++ = *j;
                *j-- = number;
            }
        }
        if (j - low < high - i) {
            sort(low, j);
            low = i;
        } else {
            sort(i, high);
            high = j;
        }
    }
    for (uint32_t *i = low + 1; i <= high; i++) {
        uint32_t number = *i, *j = i;
        while (j > low && j[-1] > number) {
            j[0] = j[-1];
            j--;
        }
        *j = number;
    }
}

/* Sorts 65,536 random numbers. */
uint64_t quicksort(uint32_t count) {
    static uint32_t numbers[NUMBERS];
    uint64_t sum = MIX_START, state = 3;
    for (uint32_t pass = 0; pass < count; pass++) {
        for (int i = 0; i < NUMBERS; i++) {
            numbers[i] = (uint32_t)(next_random(&state) >> 32);
        }
        sort(numbers, numbers + NUMBERS - 1);
        for (int i = 0; i < NUMBERS; i += 1021) {
            sum = mix(sum, numbers[i]);
        }
    }
    return sum;
}

/* What a program of the seventies is thought to do, in the spirit of Dhrystone: records, strings, branches, calls. */
enum colour { RED, GREEN, BLUE };

struct person {
    struct person *next;
    enum colour colour;
    int age;
    char name[31];
};

static struct person people[2];
static int ages[50];

OPAQUE static enum colour mixed(enum colour a, enum colour b) {
    switch (a) {
    case RED:
        return b == RED ? GREEN : BLUE;
    case GREEN:
        return b;
    default:
        return b == BLUE ? RED : GREEN;
    }
}

OPAQUE static bool before(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++, b++;
    }
    return *a < *b;
}

OPAQUE static void rename_person(struct person *person, const char *name) {
    char *to = person->name;
    while ((*to++ = *name++)) {
    }
}

OPAQUE static int celebrate(struct person *person, int years) {
    struct person *next = person->next;
    *next = *person;
    next->next = person;
    next->age += years;
    ages[next->age % 50] += years;
    next->colour = mixed(person->colour, next->colour);
    return next->age;
}

uint64_t dhrystone(uint32_t count) {
    people[0] = (struct person){.next = &people[1], .colour = RED, .age = 20, .name = "MIMUS, 1'ST VOICE"};
    people[1] = (struct person){.next = &people[0], .colour = BLUE, .age = 40, .name = "MIMUS, 2'ND VOICE"};
    memset(ages, 0, sizeof ages);
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        struct person *person = &people[pass & 1];
        rename_person(person, pass & 2 ? "MIMUS, THE THIRD VOICE" : "MIMUS, THE FOURTH VOICE");
        int age = celebrate(person, (int)(pass & 7));
        if (before(people[0].name, people[1].name)) {
            age += 3;
        }
        person->age = age % 97;
        person->colour = mixed(people[0].colour, people[1].colour);
        sum = mix(sum, (uint64_t)age + person->colour);
    }
    return mix_bytes(sum, ages, sizeof ages);
}

/* Open addressing with linear probing: 65,536 slots, half of them used. */
#define SLOTS (1 << 16)

OPAQUE static uint64_t *slot_of(uint64_t (*slots)[2], uint64_t key) {
    uint32_t at = (uint32_t)(key * 0x9e3779b97f4a7c15 >> 48);
    while (slots[at][0] != 0 && slots[at][0] != key) {
        at = (at + 1) % SLOTS;
    }
    return slots[at];
}

uint64_t hash_table(uint32_t count) {
    static uint64_t slots[SLOTS][2];
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        memset(slots, 0, sizeof slots);
        uint64_t state = pass + 1;
        for (uint32_t i = 0; i < SLOTS / 2; i++) {
            uint64_t key = next_random(&state) | 1, *slot = slot_of(slots, key);
            slot[0] = key;
            slot[1] += i;
        }
        state = pass + 1;
        for (uint32_t i = 0; i < SLOTS; i++) {
            uint64_t *slot = slot_of(slots, next_random(&state) | 1);
            sum += slot[0] ? slot[1] : 1;
        }
        sum = mix(sum, slots[pass % SLOTS][0]);
    }
    return sum;
}

/* Byte loops as C programs write them: lines, words, numbers, a word that is searched for. */
OPAQUE static size_t length_of(const char *string) {
    const char *end = string;
    while (*end) {
        end++;
    }
    return (size_t)(end - string);
}

OPAQUE static const char *find(const char *in, const char *what) {
    for (; *in; in++) {
        const char *a = in, *b = what;
        while (*b && *a == *b) {
            a++, b++;
        }
        if (!*b) {
            return in;
        }
    }
    return NULL;
}

OPAQUE static uint64_t words_and_numbers(const char *at) {
    uint64_t words = 0, total = 0;
    while (*at) {
        while (*at == ' ' || *at == '\n') {
            at++;
        }
        uint64_t number = 0;
        while (*at && *at != ' ' && *at != '\n') {
            if (*at >= '0' && *at <= '9') {
                number = number * 10 + (uint64_t)(*at - '0');
            }
            at++;
        }
        words++;
        total += number;
    }
    return words * 1000003 + total;
}

uint64_t string_scan(uint32_t count) {
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        text[pass * 89 % TEXT] = 'q';
        sum = mix(sum, length_of(text));
        sum = mix(sum, words_and_numbers(text));
        for (const char *at = text; (at = find(at, "host again")); at++) {
            sum = mix(sum, (uint64_t)(at - text));
        }
    }
    return sum;
}
