/* Programs of fixed work to measure an emulator with: runs rows of a table and prints name, checksum and seconds of each. */
#define _GNU_SOURCE
#include "suite.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * The last column is the work: how often a program repeats its own. It gives 0.2 to 0.5 s on the machine of
 * docs/performance.md, native, but where QEMU 7.2 would then take more than about 5 s: there it is less, in the rows
 * of kind sse and x87 (QEMU's floating point is software), memory (its REP instructions go byte by byte) and above all
 * code (each write to code costs it some microseconds).
 */
#if defined(__x86_64__)
#define FLOAT "sse"
#else
#define FLOAT "float"
#endif
static const struct row rows[] = {
    {"sieve", "integer", sieve, NULL, 200},
    {"crc32", "integer", crc32, integer_prepare, 2000},
    {"sha256", "integer", sha256, integer_prepare, 1500},
    {"lz", "integer", lz, text_prepare, 250},
    {"quicksort", "integer", quicksort, NULL, 80},
    {"matrix", "integer", matrix, integer_prepare, 250},
    {"division", "integer", division, division_prepare, 12000},
    {"dhrystone", "integer", dhrystone, NULL, 12000000},
    {"hash_table", "integer", hash_table, NULL, 200},
    {"string_scan", "integer", string_scan, text_prepare, 300},
    {"recursion", "calls", recursion, NULL, 10000},
    {"virtual_calls", "calls", virtual_calls, calls_prepare, 40000},
    {"bytecode_switch", "calls", bytecode_switch, NULL, 2000},
    {"bytecode_goto", "calls", bytecode_goto, NULL, 2000},
    {"nbody", FLOAT, nbody, NULL, 3000000},
    {"mandelbrot", FLOAT, mandelbrot, NULL, 200},
    {"daxpy", FLOAT, daxpy, sse_prepare, 400000},
    {"single", FLOAT, single_precision, sse_prepare, 200000},
    {"fft", FLOAT, fft, sse_prepare, 15000},
#if defined(__x86_64__)
    {"x87_sums", "x87", x87_sums, x87_prepare, 80000},
    {"x87_division", "x87", x87_division, x87_prepare, 40000},
#endif
    {"memcpy_l2", "memory", memcpy_l2, memory_prepare, 15000},
    {"memcpy_dram", "memory", memcpy_dram, memory_prepare, 120},
    {"memset_l2", "memory", memset_l2, memory_prepare, 12000},
    {"memset_dram", "memory", memset_dram, memory_prepare, 100},
    {"copy_sse", "memory", copy_sse, memory_prepare, 8000},
    {"copy_aliased", "memory", copy_aliased, memory_prepare, 8000},
    {"chase_l1", "chase", chase_l1, chase_l1_prepare, 200000000},
    {"chase_dram", "chase", chase_dram, chase_dram_prepare, 2500000},
    {"getpid", "system", getpid_loop, NULL, 2500000},
    {"page_faults", "system", page_faults, NULL, 700},
    {"fork_exec", "system", fork_exec, NULL, 1500},
    {"pipe_ping_pong", "system", pipe_ping_pong, NULL, 50000},
    {"file_io", "system", file_io, NULL, 400},
    {"atomics", "system", atomics, NULL, 20000000},
    {"signals", "system", signals, signals_prepare, 40000},
    {"code_writing", "code", code_writing, code_prepare, 200000},
    {"code_patching", "code", code_patching, code_prepare, 400000},
    {"code_data", "code", code_data, code_prepare, 20000000},
    {"cold_code", "code", cold_code, NULL, 8},
};
#define ROWS (sizeof rows / sizeof rows[0])

const char *scratch = "/tmp";

void die(const char *what) {
    fprintf(stderr, "suite: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct {
    void *memory;
    size_t length;
} mapped[4];
static size_t maps;

void *map(size_t length) {
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || maps == sizeof mapped / sizeof mapped[0]) {
        die("mmap");
    }
    mapped[maps].memory = memory;
    mapped[maps++].length = length;
    return memory;
}

void make_text(char *text, size_t length) {
    static const char *const words[] = {"the", "mocking", "bird", "sings", "in", "other", "voices", "and", "never",
                                        "a",   "guest",   "runs", "on",    "to", "host",  "again"};
    uint64_t state = 7;
    size_t at = 0;
    while (at < length) {
        uint64_t number = next_random(&state) >> 32;
        const char *word = words[number % 16];
        while (*word && at < length) {
            text[at++] = *word++;
        }
        if (number % 11 == 0 && at < length) {
            text[at++] = (char)('0' + number / 16 % 10);
        }
        if (at < length) {
            text[at++] = number % 13 == 0 ? '\n' : ' ';
        }
    }
}

static double now(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0) {
        die("CLOCK_MONOTONIC");
    }
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void report(const char *name, const char *kind, uint64_t sum, double seconds) {
    printf("row %s %s %016llx %.6f\n", name, kind, (unsigned long long)sum, seconds);
    fflush(stdout);
}

static void run(const struct row *row, uint32_t divisor) {
    if (row->prepare) {
        row->prepare();
    }
    uint32_t count = row->count / divisor;
    double start = now();
    uint64_t sum = row->work(count ? count : 1);
    report(row->name, row->kind, sum, now() - start);
    /* A fork would copy their page tables. */
    while (maps > 0) {
        maps--;
        munmap(mapped[maps].memory, mapped[maps].length);
    }
}

/* A program of another tree finds its libraries and files there, and nothing of what is around it here. */
static char *const environment[] = {"PATH=/usr/bin:/bin", "HOME=/", "LC_ALL=C", "PYTHONHASHSEED=0", "PERL_HASH_SEED=0", NULL};

static void enter(const char *root) {
    /* In a namespace of one's own everybody may. */
    if (chroot(root) != 0 && (unshare(CLONE_NEWUSER) != 0 || chroot(root) != 0)) {
        die(root);
    }
    if (chdir("/") != 0) {
        die("/");
    }
}

/* Runs a program of the system, or of the tree at `root`; its checksum is that of what it writes to standard output. */
static void run_command(const char *name, const char *root, char *const *command) {
    char path[256];
    snprintf(path, sizeof path, "%s/suite-output", scratch);
    int output = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (output < 0) {
        die(path);
    }
    double start = now();
    pid_t child = fork();
    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        int input = open("/dev/null", O_RDONLY);
        if (input < 0 || dup2(input, 0) < 0 || dup2(output, 1) < 0) {
            die("/dev/null");
        }
        if (root) {
            enter(root);
        }
        execve(command[0], command, environment);
        die(command[0]);
    }
    int status;
    if (waitpid(child, &status, 0) != child) {
        die("waitpid");
    }
    double seconds = now() - start;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "suite: %s: %s failed with status %#x\n", name, command[0], status);
        exit(1);
    }
    static char buffer[65536];
    uint64_t sum = MIX_START;
    ssize_t length;
    lseek(output, 0, SEEK_SET);
    while ((length = read(output, buffer, sizeof buffer)) > 0) {
        sum = mix_bytes(sum, buffer, (size_t)length);
    }
    close(output);
    unlink(path);
    report(name, "real", sum, seconds);
}

/* The programs are of one thread, or two that take turns: on one CPU, as in a guest with one. */
static void pin(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        die("sched_getaffinity");
    }
    int cpu = CPU_SETSIZE - 1;
    while (cpu > 0 && !CPU_ISSET(cpu, &set)) {
        cpu--;
    }
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        die("sched_setaffinity");
    }
}

static const char usage[] = "usage: suite [-q DIVISOR] [-t FOLDER] [ROW...]\n"
                            "       suite [-t FOLDER] [-r ROOT] -x NAME PROGRAM [ARGUMENT...]\n"
                            "       suite -l\n"
                            "Runs the rows, all without a name, and prints \"row NAME KIND CHECKSUM SECONDS\" for each.\n"
                            "  -q DIVISOR  that much less work\n"
                            "  -t FOLDER   where to write files (/tmp)\n"
                            "  -x NAME     run PROGRAM as the row NAME; the checksum is that of its output\n"
                            "  -r ROOT     with ROOT as its root directory\n"
                            "  -l          list the rows: name and kind\n";

int main(int argc, char **argv) {
    uint32_t divisor = 1;
    const char *command = NULL, *root = NULL;
    int option;
    while ((option = getopt(argc, argv, "+q:t:x:r:lh")) != -1) {
        switch (option) {
        case 'q':
            divisor = (uint32_t)strtoul(optarg, NULL, 10);
            if (divisor == 0) {
                fputs("suite: -q wants a number of at least 1\n", stderr);
                return 2;
            }
            break;
        case 't':
            scratch = optarg;
            break;
        case 'r':
            root = optarg;
            break;
        case 'x':
            command = optarg;
            break;
        case 'l':
            for (size_t i = 0; i < ROWS; i++) {
                printf("%s %s\n", rows[i].name, rows[i].kind);
            }
            return 0;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    argv += optind;
    pin();
    double start = now();
    printf("suite begins\n");
    fflush(stdout);
    if (command && *argv) {
        run_command(command, root, argv);
    } else if (!*argv) {
        for (size_t i = 0; i < ROWS; i++) {
            run(&rows[i], divisor);
        }
    }
    for (; !command && *argv; argv++) {
        size_t i = 0;
        while (i < ROWS && strcmp(rows[i].name, *argv) != 0) {
            i++;
        }
        if (i == ROWS) {
            fprintf(stderr, "suite: no row %s (see -l)\n", *argv);
            return 2;
        }
        run(&rows[i], divisor);
    }
    printf("suite ends %.6f\n", now() - start);
    return 0;
}
