// x87 loops, timed: nanoseconds an item, and each loop's result as 80 bits, the same on every machine.
//
//   gcc -O2 -static -falign-functions=4096 -o x87 x87.c -lm
//   printf '#!/bin/sh\n/x87 3000\n/x87 20000\n' > script
//   tools/make-initramfs x87.gz script:/script x87:/x87
//   mimus -kernel ... -initrd x87.gz -append "console=ttyS0 mimus.run" -nographic -no-reboot
//
// The argument is the number of repetitions; a first run warms the translator up. No function crosses a page, so that
// no instruction does.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N 1000
#define LOOP __attribute__((noipa)) static

static long double a[N], b[N], c[N];
static double d[N];
static float f[N];
static long long q[N];

LOOP long double sum(void) {
    long double s = 0;
    for (int i = 0; i < N; i++)
        s += a[i];
    return s;
}

LOOP long double dot(void) {
    long double s = 0;
    for (int i = 0; i < N; i++)
        s += a[i] * b[i];
    return s;
}

// Operands of other widths.
LOOP long double mixed_dot(void) {
    long double s = 0;
    for (int i = 0; i < N; i++)
        s += (long double)d[i] * f[i];
    return s;
}

LOOP void scale_and_add(long double k) {
    for (int i = 0; i < N; i++)
        c[i] = a[i] * k + b[i];
}

LOOP long double quotients(void) {
    long double s = 1;
    for (int i = 0; i < N; i++)
        s += a[i] / b[i];
    return s;
}

LOOP long double roots(void) {
    long double s = 0;
    for (int i = 0; i < N; i++)
        s += __builtin_sqrtl(b[i]);
    return s;
}

LOOP long double horner(long double x) {
    long double s = 1;
    for (int i = 0; i < N; i++)
        s = s * x + 1.5L;
    return s;
}

// To and from integers and the narrower formats; to integers with FLDCW around each.
LOOP void convert(void) {
    for (int i = 0; i < N; i++) {
        q[i] = (long long)a[i];
        d[i] = (double)(a[i] * 2);
        c[i] = q[i];
        f[i] = b[i];
    }
}

LOOP int compare(void) {
    int n = 0;
    for (int i = 0; i < N; i++) {
        if (a[i] < b[i])
            n++;
        if (a[i] == b[i])
            n += 2;
    }
    return n;
}

LOOP long double maximum(void) {
    long double m = a[0];
    for (int i = 0; i < N; i++)
        m = a[i] > m ? a[i] : m;
    return m;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void report(const char *name, double ns, long double value) {
    unsigned char bytes[10];
    memcpy(bytes, &value, 10);
    printf("x87 %-14s %8.2f ns ", name, ns);
    for (int i = 9; i >= 0; i--)
        printf("%02x", bytes[i]);
    putchar('\n');
}

#define RUN(name, expression)                                      \
    do {                                                           \
        long double v = 0;                                         \
        double start = now();                                      \
        for (int r = 0; r < repetitions; r++) {                    \
            expression;                                            \
        }                                                          \
        report(name, (now() - start) * 1e9 / repetitions / N, v);  \
    } while (0)

int main(int argc, char **argv) {
    int repetitions = argc > 1 ? atoi(argv[1]) : 2000;
    for (int i = 0; i < N; i++) {
        a[i] = (i * 7919 % 1000) / 3.0L + 0.1L;
        b[i] = (i * 104729 % 997) / 7.0L + 0.3L;
        d[i] = i / 3.0;
        f[i] = i / 7.0f;
    }
    RUN("sum", v += sum());
    RUN("dot", v += dot());
    RUN("mixed dot", v += mixed_dot());
    RUN("scale and add", scale_and_add(1.25L + r); v += c[r % N]);
    RUN("quotients", v += quotients());
    RUN("roots", v += roots());
    RUN("horner", v += horner(0.7L));
    RUN("convert", convert(); v += c[5] + d[7] + f[9]);
    RUN("compare", v += compare());
    RUN("maximum", v += maximum());
    return 0;
}
