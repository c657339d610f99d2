/* Programs whose time goes into the kernel: system calls, faults, processes, pipes, files. */
#define _GNU_SOURCE
#include "suite.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

uint64_t getpid_loop(uint32_t count) {
    long self = syscall(SYS_getpid);
    uint64_t same = 0;
    for (uint32_t pass = 0; pass < count; pass++) {
        same += syscall(SYS_getpid) == self;
    }
    return mix(MIX_START, same);
}

/* Maps 256 pages, touches each, unmaps them. */
uint64_t page_faults(uint32_t count) {
    const size_t length = 256 * PAGE;
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            die("mmap");
        }
        for (size_t at = 0; at < length; at += PAGE) {
            memory[at] += (uint8_t)(pass + at / PAGE);
            sum = mix(sum, memory[at]);
        }
        munmap(memory, length);
    }
    return sum;
}

/* Waits for a child and returns its exit code. */
static int exit_code(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child) {
        die("waitpid");
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Runs suite-exit, the smallest program there is, which lies beside this one. */
uint64_t fork_exec(uint32_t count) {
    char path[512];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
    if (length < 0) {
        die("/proc/self/exe");
    }
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, "suite-exit");
    char *const arguments[] = {path, NULL};
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        pid_t child = fork();
        if (child < 0) {
            die("fork");
        }
        if (child == 0) {
            execv(path, arguments);
            _exit(1);
        }
        sum = mix(sum, (uint64_t)exit_code(child));
    }
    return sum;
}

/* Two processes that send each other a byte in turn. */
uint64_t pipe_ping_pong(uint32_t count) {
    int ping[2], pong[2];
    if (pipe(ping) != 0 || pipe(pong) != 0) {
        die("pipe");
    }
    pid_t child = fork();
    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        uint8_t byte;
        close(ping[1]);
        while (read(ping[0], &byte, 1) == 1) {
            byte = (uint8_t)(byte * 5 + 1);
            if (write(pong[1], &byte, 1) != 1) {
                _exit(1);
            }
        }
        _exit(42);
    }
    close(ping[0]);
    uint64_t sum = MIX_START;
    uint8_t byte = 0;
    for (uint32_t pass = 0; pass < count; pass++) {
        if (write(ping[1], &byte, 1) != 1 || read(pong[0], &byte, 1) != 1) {
            die("a pipe");
        }
        sum = mix(sum, byte);
    }
    close(ping[1]);
    close(pong[0]);
    close(pong[1]);
    return mix(sum, (uint64_t)exit_code(child));
}

/* Writes and reads a file of 1 MiB on tmpfs in pieces of a page. */
uint64_t file_io(uint32_t count) {
    static uint8_t block[PAGE];
    char path[256];
    snprintf(path, sizeof path, "%s/suite-file", scratch);
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (file < 0) {
            die(path);
        }
        for (uint32_t i = 0; i < 256; i++) {
            memset(block, (int)(pass + i), 64);
            if (write(file, block, PAGE) != PAGE) {
                die(path);
            }
        }
        lseek(file, 0, SEEK_SET);
        while (read(file, block, PAGE) == PAGE) {
            sum = mix(sum, block[63]);
        }
        sum = mix(sum, (uint64_t)lseek(file, 0, SEEK_CUR));
        close(file);
        unlink(path);
    }
    return sum;
}

/* Read-modify-writes of every kind that C has, of 4 and 8 bytes, on words that nobody else touches. */
uint64_t atomics(uint32_t count) {
    static uint64_t words[16];
    static uint32_t halves[16];
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        uint64_t *word = &words[pass % 16], expected = pass % 3;
        uint32_t *half = &halves[pass * 5 % 16];
        sum += __atomic_fetch_add(word, pass, __ATOMIC_SEQ_CST);
        sum ^= __atomic_fetch_or(half, pass & 0x55, __ATOMIC_SEQ_CST);
        sum += __atomic_exchange_n(half, (uint32_t)sum, __ATOMIC_SEQ_CST);
        sum += __atomic_compare_exchange_n(word, &expected, sum, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        sum ^= __atomic_sub_fetch(half, expected & 0xff, __ATOMIC_SEQ_CST);
        __atomic_store_n(&words[pass * 3 % 16], sum & 0xffff, __ATOMIC_SEQ_CST);
    }
    for (int i = 0; i < 16; i++) {
        sum = mix(sum, words[i] ^ halves[i]);
    }
    return sum;
}

static volatile uint64_t caught;
static uint8_t *guarded;

static void on_signal(int number) {
    caught += (uint64_t)number;
}

/* Lets the store be done that was refused. */
static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    caught += (uint64_t)number;
    if ((uint8_t *)info->si_addr != guarded || mprotect(guarded, PAGE, PROT_READ | PROT_WRITE) != 0) {
        _exit(1);
    }
}

void signals_prepare(void) {
    guarded = map(PAGE);
    struct sigaction signal = {.sa_handler = on_signal}, fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGUSR1, &signal, NULL) != 0 || sigaction(SIGSEGV, &fault, NULL) != 0) {
        die("sigaction");
    }
}

/* Sends itself a signal, and stores to a page that it may not write to until a handler has seen to it. */
uint64_t signals(uint32_t count) {
    pid_t self = getpid();
    caught = 0;
    for (uint32_t pass = 0; pass < count; pass++) {
        kill(self, SIGUSR1);
        mprotect(guarded, PAGE, PROT_READ);
        *(volatile uint8_t *)guarded += 1;
    }
    signal(SIGSEGV, SIG_DFL);
    return mix(mix(MIX_START, caught), *guarded);
}
