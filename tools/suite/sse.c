/* Floating-point programs: scalars and vectors, of doubles and floats. On x86 that is SSE and SSE2; without vectors each is done
 * in parts. */
#include "suite.h"

#include <math.h>

/* The bodies of a made-up solar system: position, velocity, mass. */
#define BODIES 5
static const double start[BODIES][7] = {
    {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 39.5},
    {4.8, -1.2, -0.1, 0.6, 2.8, -0.02, 0.038},
    {8.3, 4.1, -0.4, -1.0, 1.8, 0.008, 0.011},
    {12.9, -15.1, -0.2, 1.1, 0.9, -0.01, 0.0017},
    {15.4, -25.9, 0.2, 1.0, 0.6, -0.03, 0.002},
};

static void advance(double body[BODIES][7], double step) {
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            double dx = body[i][0] - body[j][0], dy = body[i][1] - body[j][1], dz = body[i][2] - body[j][2];
            double square = dx * dx + dy * dy + dz * dz;
            double force = step / (square * sqrt(square));
            double pull = body[j][6] * force, push = body[i][6] * force;
            body[i][3] -= dx * pull, body[i][4] -= dy * pull, body[i][5] -= dz * pull;
            body[j][3] += dx * push, body[j][4] += dy * push, body[j][5] += dz * push;
        }
    }
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            body[i][k] += step * body[i][k + 3];
        }
    }
}

uint64_t nbody(uint32_t count) {
    double body[BODIES][7];
    for (int i = 0; i < BODIES * 7; i++) {
        body[i / 7][i % 7] = start[i / 7][i % 7];
    }
    for (uint32_t pass = 0; pass < count; pass++) {
        advance(body, 0.001);
    }
    return mix_bytes(MIX_START, body, sizeof body);
}

/* How soon the points of a square leave the circle; scalar doubles. */
uint64_t mandelbrot(uint32_t count) {
    const int side = 96, most = 200;
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        double shift = 1e-4 * pass;
        for (int row = 0; row < side; row++) {
            for (int column = 0; column < side; column++) {
                double cr = -2.0 + shift + column * (2.5 / side), ci = -1.25 + row * (2.5 / side);
                double zr = 0, zi = 0;
                int steps = 0;
                while (steps < most && zr * zr + zi * zi <= 4.0) {
                    double next = zr * zr - zi * zi + cr;
                    zi = 2 * zr * zi + ci;
                    zr = next;
                    steps++;
                }
                sum = mix(sum, (uint64_t)steps);
            }
        }
    }
    return sum;
}

typedef double two_doubles __attribute__((vector_size(16)));
typedef float four_floats __attribute__((vector_size(16)));
typedef int32_t four_ints __attribute__((vector_size(16)));

#define VECTOR 1024
static two_doubles dx[VECTOR / 2], dy[VECTOR / 2];
static four_floats fx[VECTOR / 4], fy[VECTOR / 4];

/* A transform of 1,024 points: real and imaginary parts, and the roots of unity. */
#define POINTS 1024
static double re[POINTS], im[POINTS], root_re[POINTS / 2], root_im[POINTS / 2];

/* Roots of unity from square roots alone: a library's sine may use what the CPU has and round another way. */
static void make_roots(void) {
    root_re[0] = 1, root_im[0] = 0;
    double c = -1, s = 0;
    for (int step = POINTS / 2; step >= 1; step /= 2) {
        if (step < POINTS / 2) {
            for (int i = step; i < POINTS / 2; i += 2 * step) {
                int before = i - step;
                root_re[i] = root_re[before] * c - root_im[before] * s;
                root_im[i] = root_re[before] * s + root_im[before] * c;
            }
        }
        double half = sqrt((1 + c) / 2);
        s = c == -1 ? 1 : s / (2 * half);
        c = half;
    }
}

void sse_prepare(void) {
    uint64_t state = 9;
    for (int i = 0; i < VECTOR; i++) {
        uint64_t number = next_random(&state);
        dx[i / 2][i % 2] = (double)(number >> 40) / 65536.0 - 128.0;
        dy[i / 2][i % 2] = (double)(number & 0xffffff) / 65536.0;
        fx[i / 4][i % 4] = (float)(number >> 48) / 4096.0f - 8.0f;
        fy[i / 4][i % 4] = (float)(number & 0xffff) / 4096.0f;
    }
    for (int i = 0; i < POINTS; i++) {
        re[i] = (double)(next_random(&state) >> 44) / 65536.0 - 8.0;
        im[i] = 0;
    }
    make_roots();
}

/* y += a x for 1,024 doubles, two at a time. */
uint64_t daxpy(uint32_t count) {
    for (uint32_t pass = 0; pass < count; pass++) {
        double factor = pass % 2 ? 0.5 : -0.499;
        two_doubles a = {factor, factor};
        for (int i = 0; i < VECTOR / 2; i++) {
            dy[i] += a * dx[i];
        }
        __asm__ volatile("" ::: "memory");
    }
    return mix_bytes(MIX_START, dy, sizeof dy);
}

/* Four floats at a time: scale, add, square, compare and select, sum. */
uint64_t single_precision(uint32_t count) {
    four_floats total = {0, 0, 0, 0};
    for (uint32_t pass = 0; pass < count; pass++) {
        float factor = 0.25f + (float)(pass % 16) / 64;
        four_floats a = {factor, factor, factor, factor}, limit = {40, 40, 40, 40}, sum = {0, 0, 0, 0};
        for (int i = 0; i < VECTOR / 4; i++) {
            four_floats value = a * fx[i] + fy[i];
            four_floats square = value * value;
            four_ints small = square < limit;
            sum += (four_floats)((small & (four_ints)square) | (~small & (four_ints)limit));
        }
        total = total * 0.5f + sum;
    }
    return mix_bytes(MIX_START, &total, sizeof total);
}

static void transform(void) {
    for (int i = 1, j = 0; i < POINTS; i++) {
        int bit = POINTS / 2;
        for (; j & bit; bit /= 2) {
            j ^= bit;
        }
        j ^= bit;
        if (i < j) {
            double swap = re[i];
            re[i] = re[j], re[j] = swap;
            swap = im[i];
            im[i] = im[j], im[j] = swap;
        }
    }
    for (int half = 1; half < POINTS; half *= 2) {
        int step = POINTS / 2 / half;
        for (int group = 0; group < POINTS; group += 2 * half) {
            for (int i = 0; i < half; i++) {
                int a = group + i, b = a + half;
                double r = re[b] * root_re[i * step] - im[b] * root_im[i * step];
                double m = re[b] * root_im[i * step] + im[b] * root_re[i * step];
                re[b] = re[a] - r, im[b] = im[a] - m;
                re[a] += r, im[a] += m;
            }
        }
    }
}

/* Fast Fourier transforms of 1,024 points, each of the one before. */
uint64_t fft(uint32_t count) {
    for (uint32_t pass = 0; pass < count; pass++) {
        transform();
        /* Twice in a row is the points in another order and 1,024 times as large: keep them small. */
        for (int i = 0; i < POINTS; i++) {
            re[i] *= 1.0 / 32, im[i] *= 1.0 / 32;
        }
    }
    return mix(mix_bytes(MIX_START, re, sizeof re), bits(im[POINTS / 3]));
}
